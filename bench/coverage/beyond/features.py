"""Faces, key points, descriptors, edges and text: facenet-pytorch, kornia, python-doctr."""

from bench.coverage.beyond.case import CLASSES, Beyond, made, named, plain


def facenet() -> list[Beyond]:
    """The recogniser and the three stages of the detector."""
    mtcnn = "facenet_pytorch.models.mtcnn"
    builds = {
        "InceptionResnetV1": plain(made("facenet_pytorch:InceptionResnetV1", classify=True, num_classes=CLASSES), 96),
        "PNet": plain(made(f"{mtcnn}:PNet", pretrained=False), 32),
        "RNet": plain(made(f"{mtcnn}:RNet", pretrained=False), 24),
        "ONet": plain(made(f"{mtcnn}:ONet", pretrained=False), 48),
    }
    return named("facenet-pytorch", builds)


def kornia() -> list[Beyond]:
    """Descriptors of patches, key points, edges, super-resolution, faces."""
    feature, models = "kornia.feature", "kornia.models"
    builds = {
        "HardNet": plain(made(f"{feature}:HardNet", pretrained=False), 32, 1),
        "HardNet8": plain(made(f"{feature}:HardNet8", pretrained=False), 32, 1),
        "SOSNet": plain(made(f"{feature}:SOSNet", pretrained=False), 32, 1),
        "TFeat": plain(made(f"{feature}:TFeat", pretrained=False), 32, 1),
        "HyNet": plain(made(f"{feature}:HyNet", pretrained=False), 32, 1),
        "OriNet": plain(made(f"{feature}:OriNet", pretrained=False), 32, 1),
        "DISK": plain(made(f"{feature}:DISK", desc_dim=16)),
        "XFeat-net": plain(made(f"{feature}.xfeat:XFeatModel")),
        "DexiNed": plain(made(f"{models}.dexined:DexiNed", pretrained=False)),
        "RRDBNet": plain(made(f"{models}:RRDBNet", 3, 3, num_feat=16, num_block=2, num_grow_ch=8), 16),
        "SmallSRNet": plain(made(f"{models}.small_sr:SmallSRNet", upscale_factor=3, pretrained=False), 16, 1),
        "TinyViT": plain(made(f"{models}.tiny_vit:TinyViT.from_config", "5m", img_size=64, num_classes=CLASSES)),
        "MobileViT": plain(made(f"{models}.vit_mobile:MobileViT", mode="xxs")),
    }
    return named("kornia", builds)


def doctr() -> list[Beyond]:
    """Text found and read: detectors and recognisers."""
    models = "doctr.models"
    words = {"pretrained": False, "pretrained_backbone": False, "exportable": True}
    builds = {
        "db_mobilenet_v3_large": plain(made(f"{models}:db_mobilenet_v3_large", **words)),
        "linknet_resnet18": plain(made(f"{models}:linknet_resnet18", **words)),
        "fast_tiny": plain(made(f"{models}:fast_tiny", **words)),
        "textnet_tiny": plain(made(f"{models}:textnet_tiny", pretrained=False), 32),
        "vgg16_bn_r": plain(made(f"{models}:vgg16_bn_r", pretrained=False), 32),
    }
    return named("python-doctr", builds)
