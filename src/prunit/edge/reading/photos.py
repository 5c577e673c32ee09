"""An image file and its target at the size of a model's input, or what is wrong with them: in training and judging."""

import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy.typing as npt

from prunit.edge.pixels import Fit, opened, placed
from prunit.edge.reading.listing import Files
from prunit.edge.reading.targets import Misfit


class Problem(NamedTuple):
    """Why an image cannot be used."""

    text: str
    misfit: bool
    """The image is whole, but what it is labelled with does not fit it."""


@contextmanager
def quiet() -> Generator[None, None, None]:
    """Inside, Pillow's remarks on odd files are not shown: they change no pixel."""
    with warnings.catch_warnings():
        # Palettes with transparency, extra bytes in tags.
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
        yield


def filled(out_CHW: npt.NDArray[Any], files: Files, i: int, fit: Fit) -> npt.NDArray[Any] | Problem:
    """Write an image to `out_CHW`, grey where that has one channel; its target, or what is wrong with it."""
    from PIL import UnidentifiedImageError

    path = files.paths[i]
    try:
        with opened(path) as image:
            mode = "L" if out_CHW.shape[0] == 1 else "RGB"
            pixels_CHW, placing = placed(image, (out_CHW.shape[1], out_CHW.shape[2]), mode, fit)
        out_CHW[:] = pixels_CHW
        return files.targets.of(i, placing)
    except FileNotFoundError:
        return Problem(f"'{path}' (it is not there)", misfit=False)
    except UnidentifiedImageError:
        return Problem(f"'{path}' (not an image of a known format, {path.stat().st_size} bytes)", misfit=False)
    except Misfit as cause:
        return Problem(f"'{path}': {cause}", misfit=True)
    except Exception as cause:  # decoders fail in many ways
        return Problem(f"'{path}' ({' '.join(str(cause).split()) or type(cause).__name__})", misfit=False)


def named(problems: Sequence[Problem]) -> str:
    """The first of many problems, and how many more."""
    found: list[str] = []
    for misfit, what in ((False, "broken image"), (True, "label that does not fit its image")):
        texts = [problem.text for problem in problems if problem.misfit == misfit]
        more = f" and {len(texts) - 3} more" if len(texts) > 3 else ""
        several = what.replace("image", "images", 1) if not misfit else "labels that do not fit their images"
        if texts:
            found.append(f"{several if len(texts) > 1 else what}: {'; '.join(texts[:3])}{more}")
    return "; ".join(found)
