"""The table of `bench.variant_export` for the page of benchmarks."""

from collections.abc import Mapping
from typing import Any, Final

from bench._common import table

_WHERE: Final = {"variants": "in a build", "variant": "new process"}


def variant_export(result: Mapping[str, Any]) -> str:
    """A row for each network and process: seconds and memory of both builds; then what is paid once."""
    head = (
        "model",
        "process",
        "CPU, s",
        "earlier",
        "times less",
        "seconds",
        "earlier",
        "times faster",
        "MB",
        "earlier",
    )
    rows = [
        (
            row["title"],
            _WHERE[row["mode"]],
            *_beside(row, "cpu_s", "times_less_cpu"),
            *_beside(row, "wall_s", "times_faster"),
            *(f"{row['peak_mb'][build]['median']:.0f}" for build in ("now", "earlier")),
        )
        for row in result["rows"]
    ]
    of_one = ("model", "dense export, CPU s", "earlier", "template, CPU s", "template, kB")
    once = [
        (
            row["title"],
            *(f"{row['once'][build]['export_s']['cpu_s']:.1f}" for build in ("now", "earlier")),
            f"{row['once']['now']['template_s']['cpu_s']:.1f}",
            f"{row['once']['now']['file_bytes'] / 1e3:.0f}",
        )
        for row in result["rows"]
        if "once" in row
    ]
    return f"{table(head, rows)}\n\nOnce for each dense model:\n\n{table(of_one, once)}"


def _beside(row: Mapping[str, Any], what: str, ratio: str) -> tuple[str, ...]:
    now, earlier, paired = row[what]["now"], row[what]["earlier"], row[ratio]["paired"]
    return (
        *(f"{each['median']:.2f} ({each['min']:.2f} to {each['max']:.2f})" for each in (now, earlier)),
        f"{row[ratio]['of_medians']:.1f} (in pairs {paired['min']:.1f} to {paired['max']:.1f})",
    )
