"""spandrel: super-resolution, denoising, deblurring, dehazing."""

from bench.coverage.beyond.case import Beyond, made, named, plain, several

_HEADS = {"depths": (2, 2), "num_heads": (2, 2), "embed_dim": 24, "window_size": 8, "img_size": 16}


def cases() -> list[Beyond]:
    """Its architectures with a few small blocks each."""

    def net(path: str, **more: object):
        folder, _, rest = path.partition("/")
        file, _, name = rest.partition(":")
        return made(f"spandrel.architectures.{folder}.__arch.{file}:{name}", **more)

    shuffled = {"upscale": 2, "upsampler": "pixelshuffle"}
    builds = {
        "Compact": plain(net("Compact/SRVGG:SRVGGNetCompact", num_feat=16, num_conv=4, upscale=2), 16),
        "ESRGAN": plain(net("ESRGAN/RRDB:RRDBNet", num_filters=16, num_blocks=2, scale=2), 16),
        "RCAN": plain(net("RCAN/rcan_arch:RCAN", scale=2, n_resgroups=2, n_resblocks=2, n_feats=16, reduction=4), 16),
        "SPAN": plain(net("SPAN/span:SPAN", num_in_ch=3, num_out_ch=3, feature_channels=16, upscale=2), 16),
        "SAFMN": plain(net("SAFMN/safmn:SAFMN", dim=16, n_blocks=2, upscaling_factor=2), 32),
        "RealCUGAN": plain(net("RealCUGAN/upcunet_v3:UpCunet2x"), 32),
        "PLKSR": plain(net("PLKSR/PLKSR:PLKSR", dim=16, upscaling_factor=2, n_blocks=2), 16),
        "RealPLKSR": plain(net("PLKSR/RealPLKSR:RealPLKSR", dim=16, upscaling_factor=2, n_blocks=2), 16),
        "MoSR": plain(net("MoSR/mosr_arch:MoSR", upscale=2, n_block=2, dim=16), 16),
        "SwiftSRGAN": plain(net("SwiftSRGAN/SwiftSRGAN:Generator", num_channels=16, num_blocks=2), 16),
        "MMRealSR": plain(
            net(
                "MMRealSR/mmrealsr_arch:MMRRDBNet_test",
                num_in_ch=3,
                num_out_ch=3,
                num_feat=16,
                num_block=2,
                num_feats=[16, 16, 32, 32],
            ),
            32,
        ),
        "DCTLSA": plain(net("DCTLSA/dctlsa:DCTLSA", nf=20, num_modules=6, upscale=2), 16),
        "OmniSR": plain(net("OmniSR/OmniSR:OmniSR", num_feat=16, block_num=1, res_num=1, up_scale=2), 16),
        "DITN": plain(net("DITN/DITN_Real:DITN_Real", dim=16, ITL_blocks=1, SAL_blocks=1, upscale=2), 16),
        "SwinIR": plain(net("SwinIR/SwinIR:SwinIR", **_HEADS, **shuffled), 16),
        "Swin2SR": plain(net("Swin2SR/Swin2SR:Swin2SR", **_HEADS, **shuffled), 16),
        "HAT": plain(net("HAT/HAT:HAT", **_HEADS, **shuffled, squeeze_factor=4), 16),
        "DnCNN": plain(net("DnCNN/network_dncnn:DnCNN", in_nc=3, out_nc=3, nc=16, nb=5), 32),
        "DRUNet": plain(net("DRUNet/network_unet:DRUNet", in_nc=3, out_nc=3, nc=[8, 16, 16, 32], nb=2), 32),
        "FBCNN": plain(net("FBCNN/FBCNN:FBCNN", nc=[8, 16, 32, 512], nb=1), 32),
        "NAFNet": plain(
            net("NAFNet/NAFNet_arch:NAFNet", width=8, middle_blk_num=1, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1]), 32
        ),
        "SCUNet": plain(net("SCUNet/SCUNet:SCUNet", config=[1] * 7, dim=64, input_resolution=64)),
        "Uformer": plain(
            net("Uformer/Uformer:Uformer", img_size=128, embed_dim=8, depths=[1] * 9, num_heads=[1] * 9, win_size=4),
            128,
        ),
        "RetinexFormer": plain(net("RetinexFormer/retinexformer_arch:RetinexFormer", n_feat=8, stage=1), 32),
        "MixDehazeNet": plain(net("MixDehazeNet/MixDehazeNet:MixDehazeNet", embed_dims=[8, 16, 32, 16, 8]), 64),
        "FFTformer": plain(
            net("FFTformer/fftformer_arch:FFTformer", dim=8, num_blocks=[1, 1, 1], num_refinement_blocks=1), 32
        ),
        "LaMa": several(net("LaMa/LaMa:LaMa", in_nc=4), (3, 32, 32), (1, 32, 32)),
    }
    return named("spandrel", builds)
