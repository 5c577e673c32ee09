"""braindecode: networks on EEG, 16 electrodes and four seconds."""

from bench.coverage.beyond.case import CLASSES, Beyond, Build, made, named, shaped

_CHANNELS, _RATE, _SECONDS = 16, 128, 4
_NAMES = (
    *("EEGNet", "ShallowFBCSPNet", "Deep4Net", "EEGConformer", "ATCNet", "BDTCN", "EEGInceptionERP"),
    *("EEGITNet", "EEGNeX", "EEGSimpleConv", "EEGTCNet", "TIDNet", "CTNet", "MSVTNet", "SCCNet", "IFNet", "SPARCNet"),
    *("SleepStagerChambon2018", "USleep"),
)


def cases() -> list[Beyond]:
    """Those of its networks that are made of convolutions."""
    builds: dict[str, Build] = {}
    for name in _NAMES:
        more = {"n_chans": _CHANNELS, "n_outputs": CLASSES, "sfreq": _RATE, "n_times": _RATE * _SECONDS}
        shape: tuple[int, ...] = (_CHANNELS, _RATE * _SECONDS)
        if name == "USleep":
            more, shape = more | {"n_times": 30 * _RATE}, (3, _CHANNELS, 30 * _RATE)
        builds[name] = shaped(made(f"braindecode.models:{name}", **more), *shape)
    return named("braindecode", builds)
