"""Seconds of exporting one more trained variant, this build of prunit beside another (`--against SRC`), in turns.

variants  in a process that has exported the dense model before, as in a build: variants at 3/4, 1/2, 1/4 of all widths
variant   the first one of a new process, as in a build that goes on: it has what the dense model's export left on disk;
          of one network, as what it has to import beside does not depend on the network

Each export is whole: torch's answers to nine images, the file, its rewrites, the checker, the same images in ONNX
Runtime. Times are those of the export, imports that it needs included; memory is the whole process at its peak.
"""

import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench._common import ROOT, parser_of, quotient, record, spread, take_turns, write
from bench._exports import NETS, Exporting, Told, one

IN_A_NEW_PROCESS: Final = ("resnet20-32",)


def measure(key: str, sources: Mapping[str, Path], rounds: int) -> list[dict[str, Any]]:
    """A row for each mode: seconds and memory by build, and how many times faster this one is."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        files = {name: Path(folder) / f"{name}.onnx" for name in sources}
        waiting = {n: opened.enter_context(Exporting(source, key, files[n])) for n, source in sources.items()}
        found: dict[str, dict[str, list[Told]]] = {}
        runs: Mapping[str, Callable[[], Told]] = {name: build.variant for name, build in waiting.items()}
        found["variants"] = take_turns(runs, rounds)
        if key in IN_A_NEW_PROCESS:
            runs = {n: partial(one, source, key, files[n]) for n, source in sources.items()}
            found["variant"] = take_turns(runs, rounds, warm_up=0)
        rows = [row(mode, of_mode) for mode, of_mode in found.items()]
        rows[0]["once"] = {name: build.dense for name, build in waiting.items()}
    return [{"model": key, "title": NETS[key].title, **each} for each in rows]


def row(mode: str, found: Mapping[str, list[Told]]) -> dict[str, Any]:
    """What one mode took in each build, and the ratios where there are two."""
    by = {
        what: {name: [told[what] for told in runs] for name, runs in found.items()}
        for what in ("wall_s", "cpu_s", "before_mb", "peak_mb")
    }
    made: dict[str, Any] = {"mode": mode}
    made |= {what: {name: spread(values) for name, values in of.items()} for what, of in by.items()}
    if "earlier" in found:
        made["times_faster"] = quotient(by["wall_s"]["earlier"], by["wall_s"]["now"])
        made["times_less_cpu"] = quotient(by["cpu_s"]["earlier"], by["cpu_s"]["now"])
    return made


def main() -> None:
    parser = parser_of("variant_export", __doc__, rounds=9)
    parser.add_argument("--against", type=Path, metavar="SRC", help="the `src` of another build, to compare with")
    parser.add_argument("--only", choices=NETS, help="one network")
    options = parser.parse_args()
    sources = {"now": ROOT / "src", **({"earlier": options.against} if options.against else {})}
    rows: list[dict[str, Any]] = []
    for key in [options.only] if options.only else NETS:
        for each in measure(key, sources, options.rounds):
            times = "".join(f", {name} {wall['median']:.2f} s" for name, wall in each["wall_s"].items())
            ratio = each.get("times_less_cpu")
            faster = f", {ratio['of_medians']:.1f} times less CPU time" if ratio else ""
            print(f"{each['title']}, {each['mode']}{times}{faster}", flush=True)
            rows.append(each)
        _write(rows, options.rounds, options.json)  # now: the next network takes long


def _write(rows: list[dict[str, Any]], rounds: int, file: Path) -> None:
    config = {"batch": 1, "shares": "3/4, 1/2, 1/4", "order": "ABAB", "warm_up": 1}
    result = record("variant_export", rows, config=config, n=rounds, percentile="median (p50)", threads=1)
    write(result, file)


if __name__ == "__main__":
    main()
