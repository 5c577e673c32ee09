"""MONAI: networks on pictures and volumes."""

from bench.coverage.beyond.case import CLASSES, Beyond, made, named, plain, several, shaped


def cases() -> list[Beyond]:
    """U-shaped networks, classifiers, autoencoders, registration; two or three dimensions, whichever is theirs."""

    def net(name: str, **more: object):
        return made(f"monai.networks.nets:{name}", **more)

    two = {"spatial_dims": 2, "in_channels": 3, "out_channels": CLASSES}
    three = {"spatial_dims": 3, "in_channels": 1, "out_channels": CLASSES}
    ladder = {"channels": (8, 16, 32), "strides": (2, 2)}
    steps = {"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2]}
    unet_3d = net("UNet", **three, **ladder, num_res_units=2)
    volume = (1, 16, 16, 16)
    builds = {
        "UNet-3d": shaped(unet_3d, *volume),
        "UNet-2d-batch": plain(net("UNet", **two, **ladder, norm="BATCH"), 32),
        "BasicUNet": plain(net("BasicUNet", **two), 32),
        "BasicUNetPlusPlus-deep": plain(net("BasicUNetPlusPlus", **two, deep_supervision=True), 32),
        "AttentionUnet": plain(net("AttentionUnet", **two, **ladder), 32),
        "SegResNet": shaped(net("SegResNet", **three), *volume),
        "SegResNetDS-deep": shaped(net("SegResNetDS", **three, init_filters=8, dsdepth=3), *volume),
        "SegResNetVAE": shaped(net("SegResNetVAE", input_image_size=(16, 16, 16), vae_nz=16, **three), *volume),
        "DynUNet": plain(net("DynUNet", **two, **steps), 32),
        "DynUNet-deep": plain(
            net(
                "DynUNet",
                **two,
                kernel_size=[3] * 4,
                strides=[1, 2, 2, 2],
                upsample_kernel_size=[2] * 3,
                deep_supervision=True,
                deep_supr_num=2,
                res_block=True,
            ),
            32,
        ),
        "HighResNet": shaped(net("HighResNet", **three), 1, 8, 8, 8),
        "MedNeXt": plain(net("MedNeXt", **two, init_filters=8, deep_supervision=True), 32),
        "FlexibleUNet": plain(net("FlexibleUNet", in_channels=3, out_channels=CLASSES, backbone="efficientnet-b0")),
        "RegUNet": shaped(net("RegUNet", **three, num_channel_initial=8, depth=2), *volume),
        "LocalNet": shaped(net("LocalNet", **three, num_channel_initial=8, extract_levels=(0, 1, 2)), *volume),
        "VoxelMorph": several(_voxelmorph, (1, 32, 32), (1, 32, 32)),
        "Quicknat": plain(net("Quicknat", num_classes=CLASSES, num_filters=16), 32, 1),
        "SwinUNETR": plain(net("SwinUNETR", **two, feature_size=12)),
        "UNETR": plain(net("UNETR", **two, img_size=32, feature_size=8, hidden_size=48, mlp_dim=96, num_heads=4), 32),
        "AutoEncoder": plain(net("AutoEncoder", **two, **ladder | {"strides": (2, 2, 1)}), 32),
        "VarAutoEncoder": plain(
            net(
                "VarAutoEncoder",
                spatial_dims=2,
                in_shape=(3, 32, 32),
                out_channels=3,
                latent_size=8,
                **ladder | {"strides": (2, 2, 1)},
            ),
            32,
        ),
        "PatchDiscriminator": plain(net("PatchDiscriminator", spatial_dims=2, channels=16, in_channels=3)),
        "Regressor": plain(
            net("Regressor", in_shape=(3, 32, 32), out_shape=(CLASSES,), **ladder | {"strides": (2, 2, 1)}), 32
        ),
        "DenseNet121-3d": shaped(net("DenseNet121", **three), 1, 32, 32, 32),
        "SEResNet50": plain(net("SEResNet50", spatial_dims=2, in_channels=3, num_classes=CLASSES)),
        "ResNet10-3d": shaped(net("resnet10", spatial_dims=3, n_input_channels=1, num_classes=CLASSES), 1, 32, 32, 32),
        "EfficientNetBN": plain(
            net("EfficientNetBN", model_name="efficientnet-b0", pretrained=False, num_classes=CLASSES)
        ),
        "MILModel": shaped(
            net("MILModel", num_classes=CLASSES, mil_mode="att", pretrained=False, backbone="resnet18"), 2, 3, 32, 32
        ),
    }
    return named("monai", builds)


def _voxelmorph():
    from monai.networks.nets.voxelmorph import VoxelMorph, VoxelMorphUNet

    net = VoxelMorphUNet(
        spatial_dims=2,
        in_channels=2,
        unet_out_channels=16,
        channels=(8, 16, 16, 16, 16, 16),
        final_conv_channels=(16, 16),
    )
    return VoxelMorph(net, integration_steps=2, spatial_dims=2)
