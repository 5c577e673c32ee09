"""Hugging Face transformers and diffusers, from small configurations, nothing loaded."""

from typing import Any

import torch
from torch import nn

from bench.coverage.beyond.case import CLASSES, Beyond, Build, given, made, named, plain
from bench.coverage.networks import Draw, noise

_WIDTHS = [16, 24, 32, 48]
_SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def transformers() -> list[Beyond]:
    """Convolutional networks, hybrids, segmenters, detectors and speech, each from its configuration."""
    sizes = {"hidden_sizes": _WIDTHS, "depths": [1, 1, 2, 1]}
    pictures: dict[str, dict[str, Any]] = {
        "ResNet": sizes | {"embedding_size": 16, "layer_type": "bottleneck"},
        "RegNet": sizes | {"embedding_size": 16, "groups_width": 8},
        "ConvNext": sizes,
        "ConvNextV2": sizes,
        "MobileNetV1": {"depth_multiplier": 0.25},
        "MobileNetV2": {"depth_multiplier": 0.35},
        "EfficientNet": {"width_coefficient": 0.5, "depth_coefficient": 0.5, "hidden_dim": 640, "image_size": 64},
        "Bit": sizes | {"embedding_size": 16, "num_groups": 8},
        "PoolFormer": {"hidden_sizes": _WIDTHS, "depths": [1, 1, 1, 1]},
        "FocalNet": {"embed_dim": 16, "depths": [1, 1, 1, 1], "image_size": 64},
        "SwiftFormer": {"embed_dims": _WIDTHS, "depths": [1, 1, 1, 1], "drop_path_rate": 0.0},
        "MobileViT": {"hidden_sizes": [16, 20, 24], "neck_hidden_sizes": [8, 8, 12, 16, 20, 24, 32], "image_size": 64},
        "MobileViTV2": {"width_multiplier": 0.5, "image_size": 64},
        "Levit": {
            "image_size": 64,
            "hidden_sizes": [32, 48, 64],
            "num_attention_heads": [2, 3, 4],
            "depths": [1, 1, 1],
        },
        "Cvt": {"embed_dim": [16, 32, 48], "num_heads": [1, 2, 3], "depth": [1, 2, 3]},
        "PvtV2": {"hidden_sizes": _WIDTHS, "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 4, 4]},
        "HGNetV2": {},
        "TextNet": {},
    }
    builds: dict[str, Build] = {
        name: plain(_hf(f"{name}Config", f"{name}ForImageClassification", num_labels=CLASSES, **more))
        for name, more in pictures.items()
    }
    builds |= {
        "Segformer": plain(
            _hf(
                "SegformerConfig",
                "SegformerForSemanticSegmentation",
                num_labels=CLASSES,
                hidden_sizes=_WIDTHS,
                depths=[1, 1, 1, 1],
                num_attention_heads=[1, 2, 4, 4],
                decoder_hidden_size=32,
            )
        ),
        "UperNet-convnext": plain(_upernet),
        "DPT-hybrid": plain(_dpt),
        "DETR": plain(_detr),
        "ConditionalDETR": plain(lambda: _detr("ConditionalDetr")),
        "DeformableDETR": plain(lambda: _detr("DeformableDetr")),
        "RT-DETR": plain(_rt_detr),
        "Swin2SR": plain(
            _hf(
                "Swin2SRConfig",
                "Swin2SRForImageSuperResolution",
                embed_dim=24,
                depths=[1, 1],
                num_heads=[2, 2],
                window_size=8,
                image_size=16,
            ),
            16,
        ),
        "SuperPoint": plain(_hf("SuperPointConfig", "SuperPointForKeypointDetection", keypoint_threshold=0.0), 32),
        "VitMatte": plain(_vitmatte, 64, 4),
        "Wav2Vec2": given(_speech("Wav2Vec2", "ForCTC"), _waves),
        "Hubert": given(_speech("Hubert", "ForCTC"), _waves),
        "SEW": given(_speech("SEW", "ForCTC", squeeze_factor=2), _waves),
        "WavLM": given(_speech("WavLM", "ForCTC"), _waves),
        "Whisper-encoder": given(_whisper, lambda n, generator: noise(generator, n, 16, 64)),
        "SpeechT5HifiGan": given(
            _hf(
                "SpeechT5HifiGanConfig",
                "SpeechT5HifiGan",
                model_in_dim=16,
                upsample_initial_channel=32,
                upsample_rates=[4, 2],
                upsample_kernel_sizes=[8, 4],
                resblock_kernel_sizes=[3, 5],
                resblock_dilation_sizes=[[1, 3], [1, 3]],
            ),
            lambda n, generator: noise(generator, n, 12, 16),
        ),
        "Dac": given(
            _hf(
                "DacConfig",
                "DacModel",
                encoder_hidden_size=8,
                decoder_hidden_size=64,
                downsampling_ratios=[2, 4],
                n_codebooks=2,
                codebook_size=32,
            ),
            lambda n, generator: noise(generator, n, 1, 320),
        ),
    }
    return named("transformers", builds)


def _hf(config: str, model: str, **more: Any):
    """A model of transformers from its configuration."""

    def make() -> nn.Module:
        import transformers

        return getattr(transformers, model)(getattr(transformers, config)(**more))

    return make


def _backbone() -> Any:
    import transformers

    return transformers.ResNetConfig(
        embedding_size=16,
        hidden_sizes=_WIDTHS,
        depths=[1, 1, 1, 1],
        layer_type="bottleneck",
        out_features=["stage2", "stage3", "stage4"],
    )


def _upernet() -> nn.Module:
    import transformers

    backbone = transformers.ConvNextConfig(
        hidden_sizes=_WIDTHS, depths=[1, 1, 1, 1], out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    config = transformers.UperNetConfig(
        backbone_config=backbone, num_labels=CLASSES, hidden_size=32, auxiliary_in_channels=_WIDTHS[2]
    )
    return transformers.UperNetForSemanticSegmentation(config)


def _dpt() -> nn.Module:
    import transformers

    config = transformers.DPTConfig(
        **_SMALL | {"num_hidden_layers": 4},
        image_size=64,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=_WIDTHS,
        fusion_hidden_size=16,
        num_labels=CLASSES,
    )
    return transformers.DPTForSemanticSegmentation(config)


def _detr(kind: str = "Detr") -> nn.Module:
    import transformers

    backbone = _backbone()
    if kind != "DeformableDetr":
        backbone.out_features = ["stage4"]
    config = getattr(transformers, f"{kind}Config")(
        backbone_config=backbone,
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        num_labels=CLASSES,
        num_queries=6,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
    )
    return getattr(transformers, f"{kind}ForObjectDetection")(config)


def _rt_detr() -> nn.Module:
    import transformers

    backbone = transformers.RTDetrResNetConfig(
        embedding_size=16, hidden_sizes=_WIDTHS, depths=[1, 1, 1, 1], out_features=["stage2", "stage3", "stage4"]
    )
    config = transformers.RTDetrConfig(
        backbone_config=backbone,
        num_labels=CLASSES,
        encoder_in_channels=_WIDTHS[1:],
        encoder_hidden_dim=32,
        encoder_ffn_dim=48,
        encoder_attention_heads=4,
        d_model=32,
        decoder_in_channels=[32, 32, 32],
        decoder_ffn_dim=48,
        decoder_layers=2,
        decoder_attention_heads=4,
        num_queries=6,
        num_denoising=0,
        anchor_image_size=None,
    )
    return transformers.RTDetrForObjectDetection(config)


def _vitmatte() -> nn.Module:
    import transformers

    backbone = transformers.VitDetConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=64,
        num_channels=4,
        out_features=["stage2"],
    )
    config = transformers.VitMatteConfig(
        backbone_config=backbone,
        hidden_size=32,
        convstream_hidden_sizes=[8, 16, 24],
        fusion_hidden_sizes=[32, 16, 12, 8],
    )
    return transformers.VitMatteForImageMatting(config)


def _speech(kind: str, head: str, **more: Any):
    plainly = {"hidden_dropout": 0.0, "mask_time_prob": 0.0, "mask_feature_prob": 0.0, "layerdrop": 0.0}
    convolutions = {"conv_dim": [32, 32, 32], "conv_stride": [5, 2, 2], "conv_kernel": [10, 3, 3]}
    positions = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "num_feat_extract_layers": 3}
    settings = _SMALL | plainly | convolutions | positions | {"vocab_size": 12} | more
    return _hf(f"{kind}Config", f"{kind}{head}", **settings)


def _waves(n: int, generator: torch.Generator) -> Any:
    return noise(generator, n, 800)


def _whisper() -> nn.Module:
    import transformers
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = transformers.WhisperConfig(
        d_model=32,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=64,
        num_mel_bins=16,
        max_source_positions=32,
    )
    return WhisperEncoder(config)


def diffusers() -> list[Beyond]:
    """Denoisers and autoencoders."""

    def net(name: str, **more: Any):
        return made(f"diffusers:{name}", **more)

    unet = {"block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 4}
    coder = {
        "block_out_channels": (16, 32),
        "norm_num_groups": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    plain_blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    attending = {
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }
    crossing = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 16,
        "attention_head_dim": 4,
    }
    builds = {
        "UNet2DModel": given(
            net("UNet2DModel", sample_size=16, **unet, **plain_blocks, add_attention=False), _at_time()
        ),
        "UNet2DModel-attention": given(
            net("UNet2DModel", sample_size=16, **unet, **attending, attention_head_dim=8), _at_time()
        ),
        "UNet2DConditionModel": given(
            net("UNet2DConditionModel", sample_size=16, **unet, **crossing), _at_time(4, encoder_hidden_states=(6, 16))
        ),
        "AutoencoderKL": plain(net("AutoencoderKL", **coder), 16),
        "VQModel": plain(net("VQModel", **coder, num_vq_embeddings=16), 16),
        "AutoencoderTiny": plain(
            net(
                "AutoencoderTiny",
                encoder_block_out_channels=(16, 16, 16, 16),
                decoder_block_out_channels=(16, 16, 16, 16),
            ),
            32,
        ),
    }
    return named("diffusers", builds)


def _at_time(channels: int = 3, **more: tuple[int, ...]) -> Draw:
    """Pictures of 16 pixels, how noisy they are, and what else is asked for by name."""

    def draw(n: int, generator: torch.Generator) -> dict[str, Any]:
        rest = {name: noise(generator, n, *shape) for name, shape in more.items()}
        return {"sample": noise(generator, n, channels, 16, 16), "timestep": torch.full((n,), 7)} | rest

    return draw
