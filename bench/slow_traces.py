"""The networks of `bench.coverage` that take longest to read, read by this build and by another: `--against SRC`.

Each build is a process of its own, on one thread, and they take turns. It is CPU time, as what else runs counts less
then; and how many channels either build leaves free to go. Networks beyond timm need
`bench/coverage/beyond/requirements.txt`; those whose package is not there are left out with a word.

    git worktree add --detach ../before COMMIT
    python -m bench.slow_traces --against ../before/src
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from bench._builds import Build
from bench._common import ROOT, parser_of, quotient, record, spread, take_turns, write

NAMES: Final = (
    "efficientnet_cc_b0_4e",
    "maxvit_pico_rw_256",
    "coat_tiny",
    "ghostnetv3_050",
    "twins_svt_small",
    "xcit_nano_12_p8_224",
    "volo_d1_224",
    "caformer_s18",
    "spandrel:DCTLSA",
    "transformers:RT-DETR",
    "transformers:DeformableDETR",
    "ultralytics:rtdetr-resnet50",
    "ultralytics:yolo26n",
    "monai:UNETR",
    "torchvision:retinanet_resnet50_fpn",
)


def there(names: Sequence[str]) -> list[str]:
    """Those names whose package is installed."""
    found = []
    for name in names:
        package = name.partition(":")[0] if ":" in name else "timm"
        if find_spec(package) is None:
            print(f"{name}: {package} is not installed")
        else:
            found.append(name)
    return found


def measure(sources: dict[str, Path], names: Sequence[str], rounds: int) -> Iterator[dict[str, Any]]:
    """For each network as it comes: CPU milliseconds and free channels in each build, and how many times faster now."""
    with ExitStack() as stack:
        builds = {when: stack.enter_context(Build(source, 1)) for when, source in sources.items()}
        for name in names:
            turns = {when: partial(build.traced, name) for when, build in builds.items()}
            found = take_turns(turns, rounds)
            row: dict[str, Any] = {"model": name, "n": rounds}
            for when, runs in found.items():
                row[when] = {"cpu_ms": spread([run["cpu_ms"] for run in runs]), "free": runs[0]["free"]}
            if "before" in row:
                row["times_faster"] = quotient(
                    [run["cpu_ms"] for run in found["before"]], [run["cpu_ms"] for run in found["now"]]
                )
            print(name, {when: round(row[when]["cpu_ms"]["median"]) for when in found}, flush=True)
            yield row


def main() -> None:
    """Measure and store."""
    parser = parser_of("slow_traces", __doc__, rounds=5)
    parser.add_argument("--against", type=Path, metavar="SRC", help="the `src` of another build")
    parser.add_argument("--only", nargs="*", default=NAMES, metavar="NAME", help="networks; default the slowest")
    options = parser.parse_args()
    sources = {"before": options.against} if options.against else {}
    config = {"rounds": options.rounds, "against": bool(options.against)}
    rows: list[dict[str, Any]] = []
    for row in measure(sources | {"now": ROOT / "src"}, there(options.only), options.rounds):
        rows.append(row)  # stored as they come: a run that is stopped has those that it came to
        write(
            record("slow_traces", rows, config=config, n=options.rounds, percentile="median", threads=1), options.json
        )


if __name__ == "__main__":
    main()
