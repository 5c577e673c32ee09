"""What runs on a node of Ray. `facts` is sent there as it is, and imports nothing of prunit before it is asked."""

from typing import Any


def facts(token: str) -> dict[str, Any]:
    """Versions on this node ('' where something is missing), and whether it sees the file `token`."""
    import importlib
    import pathlib
    import platform

    found: dict[str, Any] = {"python": platform.python_version()}
    for package, module, name in (("prunit", "prunit.version", "VERSION"), ("torch", "torch", "__version__")):
        try:
            found[package] = str(getattr(importlib.import_module(module), name))
        except ImportError:
            found[package] = ""
    try:
        found["sees"] = pathlib.Path(token).read_text() == pathlib.Path(token).name
    except OSError:
        found["sees"] = False
    return found


_BENCHES: dict[str, Any] = {}
"""The last bench of this process, by what it was made of: one piece follows another."""


def done(
    handed: dict[str, Any],
    about: dict[str, Any],
    names: list[str],
    asked: dict[str, Any],
    said: str,
    *arrays: Any,
) -> dict[str, Any]:
    """What came of a piece, as `worker.outcome`; it neither raises nor leaves by exit. `said` tells how far it is."""
    import json
    import pathlib

    from prunit.recipe.places.pieces import Piece
    from prunit.recipe.places.worker import failure, outcome
    from prunit.recipe.places.written import Written, alone

    piece = Piece.of(asked)
    written = Written(pathlib.Path(said))
    try:
        with alone(pathlib.Path(said).with_suffix("")):
            key = json.dumps(handed, sort_keys=True)
            if key not in _BENCHES:
                _BENCHES.clear()
                _BENCHES[key] = _bench(handed, about, dict(zip(names, arrays, strict=True)), written)
            bench = _BENCHES[key]
            bench.progress.tell_to(written)
            return outcome(bench, piece)
    except (Exception, SystemExit) as error:
        return failure(error)


def _bench(handed: dict[str, Any], about: dict[str, Any], arrays: dict[str, Any], written: Any) -> Any:
    import contextlib
    import logging
    import os

    import numpy as np
    import torch

    from prunit.recipe.places.benches import bench_again
    from prunit.recipe.places.handed import Handed
    from prunit.recipe.places.worker import Logged, Reporting

    told = Handed(**handed)
    with contextlib.suppress(OSError):  # what is not there will be missed by name
        os.chdir(told.home)
    torch.set_num_threads(told.threads)
    progress = Reporting(written, every_s=1.0)
    logger = logging.getLogger("prunit")
    for handler in [handler for handler in logger.handlers if isinstance(handler, Logged)]:
        logger.removeHandler(handler)
    logger.addHandler(Logged(lambda message: progress.tell(message)))
    # Ray's arrays are shared by all tasks of the node, and torch would write into them.
    own = {name: np.array(array) for name, array in arrays.items()}
    return bench_again(told, about, own, progress)
