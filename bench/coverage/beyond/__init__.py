"""Networks beyond timm, of packages that are installed only where they are to be tried (requirements.txt beside this).

case            one of them: its name, its package, and what builds it
registry        all of them, by package; what stands in for operators that a package cannot load
segmentation    segmentation-models-pytorch
detection       torchvision's detection, segmentation, video and optical flow; ultralytics
pretrained      Hugging Face transformers and diffusers, from configurations
medical         MONAI
sound           torchaudio, speechbrain, asteroid
signals         braindecode
features        kornia, facenet-pytorch, python-doctr
restoration     spandrel
"""
