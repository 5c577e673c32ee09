"""`prunit layers` and `prunit probe-device`: what a device has to measure, and the measuring."""

from collections.abc import Sequence
from pathlib import Path

from prunit.cli.progress import Bars
from prunit.edge.measuring.profile import DeviceProfile, LayerList, LayerShape


def layers_of_model(name: str, shape: str, classes: int) -> LayerList:
    """The layers of a model by name, for images of this shape (C×H×W)."""
    with Bars() as bars:
        bars.wait("loading PyTorch")
        from prunit.cli.planning import model_and_image
        from prunit.graph import trace
        from prunit.prices.meters import layers_of

        model, image = model_and_image(name, shape, classes)
        bars.tell(name, "check", 0, 0)
        return LayerList(model=f"{name}, {shape}", layers=tuple(layers_of(trace(model, image))))


def probe(files: Sequence[Path], out: Path, threads: int) -> DeviceProfile:
    """The profile of this device for the layers in these files; it is written to `out`."""
    from prunit.edge.measuring.probe_layers import LayerProbe, probe_layers

    shapes: list[LayerShape] = []
    for file in files:
        shapes += LayerList.read(file).layers
    with Bars() as bars:
        profile = probe_layers(
            shapes, LayerProbe(threads=threads), on_point=lambda done, total: bars.tell("device", "probe", done, total)
        )
    profile.write(out)
    return profile
