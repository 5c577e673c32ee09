"""Speech and music: torchaudio, speechbrain, asteroid."""

from typing import Any

import torch
from torch import Tensor

from bench.coverage.beyond.case import CLASSES, Beyond, given, made, named, several, shaped
from bench.coverage.networks import noise


def torchaudio() -> list[Beyond]:
    """Separation, recognition, synthesis, quality."""
    models = "torchaudio.models"
    builds = {
        "ConvTasNet": shaped(
            made(
                f"{models}:ConvTasNet",
                enc_num_feats=32,
                msk_num_feats=16,
                msk_num_hidden_feats=32,
                msk_num_layers=3,
                msk_num_stacks=2,
            ),
            1,
            800,
        ),
        "Wav2Letter": shaped(
            made(f"{models}:Wav2Letter", num_classes=CLASSES, input_type="mfcc", num_features=13), 13, 64
        ),
        "DeepSpeech": shaped(made(f"{models}:DeepSpeech", 13, n_hidden=32, n_class=CLASSES), 1, 4, 13),
        "Conformer": given(made(f"{models}:Conformer", 32, 4, 64, 2, 7), _with_lengths),
        "HDemucs": shaped(made(f"{models}:HDemucs", ["voice", "rest"], channels=8, depth=4, nfft=1024), 2, 8192),
        "WaveRNN": several(
            made(
                f"{models}:WaveRNN",
                [2, 2],
                n_classes=8,
                hop_length=4,
                n_res_block=2,
                n_rnn=32,
                n_fc=32,
                n_freq=16,
                n_hidden=16,
                n_output=16,
            ),
            (1, 48),
            (1, 16, 16),
        ),
        "wav2vec2": shaped(_wav2vec2, 1600),
        "SquimObjective": shaped(
            made(
                f"{models}:squim_objective_model",
                feat_dim=32,
                win_len=32,
                d_model=32,
                nhead=4,
                hidden_dim=32,
                num_blocks=2,
                rnn_type="LSTM",
                chunk_size=15,
            ),
            1600,
        ),
        "Tacotron2": given(_tacotron, _spoken),
    }
    return named("torchaudio", builds)


def _with_lengths(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return noise(generator, n, 24, 32), torch.tensor([24, 20, 18, 24][:n])


def _wav2vec2() -> Any:
    from torchaudio.models import wav2vec2_model

    return wav2vec2_model(
        extractor_mode="group_norm",
        extractor_conv_layer_config=[(32, 10, 5), (32, 3, 2), (32, 3, 2)],
        extractor_conv_bias=False,
        encoder_embed_dim=32,
        encoder_projection_dropout=0.0,
        encoder_pos_conv_kernel=16,
        encoder_pos_conv_groups=4,
        encoder_num_layers=2,
        encoder_num_heads=4,
        encoder_attention_dropout=0.0,
        encoder_ff_interm_features=64,
        encoder_ff_interm_dropout=0.0,
        encoder_dropout=0.0,
        encoder_layer_norm_first=False,
        encoder_layer_drop=0.0,
        aux_num_out=CLASSES,
    )


def _tacotron() -> Any:
    from torchaudio.models import Tacotron2

    return Tacotron2(
        n_mels=16,
        n_symbol=20,
        symbol_embedding_dim=32,
        encoder_embedding_dim=32,
        decoder_rnn_dim=32,
        decoder_dropout=0.0,
        attention_rnn_dim=32,
        attention_hidden_dim=16,
        attention_location_n_filter=8,
        attention_location_kernel_size=7,
        attention_dropout=0.0,
        prenet_dim=16,
        postnet_n_convolution=3,
        postnet_embedding_dim=32,
    )


def _spoken(n: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    tokens = torch.randint(0, 20, (n, 12), generator=generator)
    return tokens, torch.full((n,), 12), noise(generator, n, 16, 10), torch.full((n,), 10)


def speechbrain() -> list[Beyond]:
    """Speakers and vocoders."""
    lobes = "speechbrain.lobes.models"
    builds = {
        "ECAPA_TDNN": shaped(
            made(
                f"{lobes}.ECAPA_TDNN:ECAPA_TDNN",
                16,
                channels=[32, 32, 32, 32, 96],
                attention_channels=16,
                lin_neurons=24,
                se_channels=16,
                res2net_scale=4,
            ),
            40,
            16,
        ),
        "Xvector": shaped(
            made(f"{lobes}.Xvector:Xvector", tdnn_channels=[32, 32, 32, 32, 64], lin_neurons=32, in_channels=16), 40, 16
        ),
        "ResNet": shaped(
            made(f"{lobes}.ResNet:ResNet", 16, channels=[16, 16, 32, 32], block_sizes=[1, 1, 1, 1], lin_neurons=24),
            40,
            16,
        ),
        "HifiGAN": shaped(
            made(f"{lobes}.HifiGAN:HifiganGenerator", 16, 1, "1", [[1, 3, 5], [1, 3, 5]], [3, 5], [8, 4], 32, [4, 2]),
            16,
            20,
        ),
    }
    return named("speechbrain", builds)


def asteroid() -> list[Beyond]:
    """Separation and denoising."""
    models = "asteroid.models"
    builds = {
        "ConvTasNet": shaped(
            made(
                f"{models}:ConvTasNet", 2, n_blocks=2, n_repeats=2, bn_chan=16, hid_chan=32, skip_chan=16, n_filters=32
            ),
            800,
        ),
        "SuDORMRFNet": shaped(
            made(f"{models}:SuDORMRFNet", 2, bn_chan=16, num_blocks=2, upsampling_depth=2, n_filters=32), 800
        ),
        "DeMask": shaped(made(f"{models}:DeMask", hidden_dims=(32,), n_filters=64, stride=32, kernel_size=64), 800),
    }
    return named("asteroid", builds)
