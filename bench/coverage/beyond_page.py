"""The second table of docs/coverage.md: networks beyond timm, by package."""

from collections.abc import Mapping
from typing import Any, Final

from bench.coverage.tallies import (
    Row,
    counts,
    error,
    left,
    second,
    shares,
    slowest,
    states,
    status,
    summed_up,
    theirs_in_short,
    times,
)
from bench.tables import table

Result = Mapping[str, Any]


def headline(result: Result) -> str:
    """What comes first about them."""
    uncut = sum((row["prunit"] or {}).get("status") == "uncut" for row in result["rows"])
    lines = [*states(result["rows"]), *summed_up("networks beyond timm", result["rows"]), slowest(result["rows"])]
    if uncut:
        lines.append(f"- {uncut} more do not run here uncut, in both modes and in float64, and are not counted")
    lines += [f"- not tried: {package}, {why}" for package, why in result["absent"].items()]
    return "\n".join(filter(None, lines))


def parts(result: Result) -> list[str]:
    """A table of packages and one of networks, with what leads to them."""
    rows: dict[str, list[Row]] = {}
    for row in result["rows"]:
        rows.setdefault(row["package"], []).append(row)
    head = ("package", "version", "run uncut", "prunit: exact", "at half the macs", "equal to zeroed weights")
    head += ("Torch-Pruning: run", "exact")
    summary = [_summary(package, result["packages"].get(package), of_it) for package, of_it in rows.items()]
    columns = ("network", "inputs of one", "M params", "prunit", "macs left", "params left", "trace, ms", "compact, ms")
    columns += ("error", "zeroed weights", "Torch-Pruning", "left whole, why")
    found = [_INTRODUCTION.format(n=len(result["rows"])), table(head, summary)]
    for package, of_it in rows.items():
        found += [f"### {package}", table(columns, [_cells(row) for row in of_it])]
    return found


def _summary(package: str, version: str | None, rows: list[Row]) -> tuple[object, ...]:
    us, them = counts(rows, "prunit"), counts(rows, "torch-pruning")
    same = sum(second(row["prunit"]) == "equal" for row in rows if row["prunit"] and row["prunit"]["status"] == "exact")
    ran = them["exact"] + them["wrong"] + them["runs"]
    return (
        package,
        version or "–",
        us["tried"],
        us["exact"],
        us["half"],
        same,
        f"{ran} of {them['tried']}",
        them["exact"],
    )


def _cells(row: Row) -> tuple[str, ...]:
    us = row["prunit"] or {}
    return (
        row["name"].partition(":")[2],
        us.get("inputs", "–"),
        f"{us['params'] / 1e6:.2f}" if "params" in us else "–",
        status(row["prunit"]),
        *shares(us),
        *times(us),
        error(us),
        second(us) if us.get("status") == "exact" else "–",
        theirs_in_short(row["torch-pruning"]),
        left(row),
    )


_INTRODUCTION: Final = """\
## Beyond timm

{n} networks of other packages, with random weights and small inputs, most of them with fewer or narrower blocks than
published: for segmentation, detection, restoration, volumes, speech, EEG, optical flow. `bench/coverage/beyond` has the
list; a package that is not installed is left out (`requirements.txt` there has the versions). Asked is the same as
above, without ONNX: what a network returns in evaluation mode and in training mode, losses and auxiliary heads and
lists among it, must equal the masked network in both. Drop-out is switched off, other chance is drawn alike; a network
that cannot be run uncut in both modes, in float32 and float64, is not counted. torchvision's detectors run with its
operators in Python where its compiled ones cannot be loaded.

*Zeroed weights*: the compact network against the uncut one in which every weight is zero that is not found in the
compact one by its value, in both modes, without prunit's mask; "norm" is a network with norms over channels, which
count those zeros, and so cannot be checked in this way; "–" where weights are not told apart by value.

Torch-Pruning is asked as above, in both modes; layers from which an output comes without another layer in between are
ignored, and it is told how to find the tensors among the outputs. In brackets the share of macs by its own counter,
where that takes the inputs."""
