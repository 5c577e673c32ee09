"""segmentation-models-pytorch: each of its decoders, on several encoders."""

from bench.coverage.beyond.case import CLASSES, Beyond, made, named, plain

_SMP = "segmentation_models_pytorch"


def cases() -> list[Beyond]:
    """All of its decoders on a ResNet-18, and some on other encoders, with auxiliary outputs or attention."""

    def net(decoder: str, encoder: str = "resnet18", size: int = 64, **more: object):
        settings = {"encoder_name": encoder, "encoder_weights": None, "classes": CLASSES} | more
        return plain(made(f"{_SMP}:{decoder}", **settings), size)

    builds = {
        decoder: net(decoder)
        for decoder in ("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "DeepLabV3", "UPerNet")
    }
    builds |= {
        "PAN-128": net("PAN", size=128),
        "DeepLabV3Plus-mobilenet_v2": net("DeepLabV3Plus", "mobilenet_v2"),
        "Segformer-mit_b0": net("Segformer", "mit_b0"),
        "Unet-efficientnet-b0-scse": net("Unet", "efficientnet-b0", decoder_attention_type="scse"),
        "Unet-densenet121-aux": net("Unet", "densenet121", aux_params={"classes": CLASSES, "dropout": 0.2}),
        "FPN-mobileone_s0": net("FPN", "mobileone_s0"),
    }
    return named("segmentation-models-pytorch", builds)
