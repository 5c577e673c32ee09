"""The tables of docs/precisions.md."""

from collections.abc import Mapping
from typing import Any, Final

from bench._common import table

Result = Mapping[str, Any]

_ROUTES: Final = ("onnxruntime int8", "openvino fp32", "openvino bf16", "openvino int8")
_FLOAT: Final = "onnxruntime fp32"
_SHOWN: Final = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "openvino-bf16": "OpenVINO, bf16"}


def precisions(result: Result) -> str:
    """How many times faster than float in ONNX Runtime each route is, at batch 1 and 32."""
    rows = [
        (
            f"{row['title']}, {row['share']}",
            f"{row['macs'] / 1e6:,.1f} M",
            " / ".join(f"{row['routes'][_FLOAT][b]['p50_ms']:.2f}" for b in ("1", "32")),
            *(_both(row, route) for route in _ROUTES),
            _shares(row["file_bytes"]),
            f"{row['picked']} ({row['routes'][row['picked']]['1']['times_faster']:.1f}×)",
        )
        for row in result["rows"]
    ]
    head = (
        "network, share of its channels",
        "macs",
        "ONNX Runtime fp32, ms at batch 1 / 32",
        *(f"{route}, times faster" for route in _ROUTES),
        "int8 file of fp32",
        "picked (at batch 1)",
    )
    return table(head, rows)


def _both(row: Result, route: str) -> str:
    found = row["routes"].get(route)
    return "–" if found is None else " / ".join(f"{found[b]['times_faster']:.2f}" for b in ("1", "32"))


def _shares(sizes: Mapping[str, int | None]) -> str:
    return "–" if sizes["int8"] is None or sizes["fp32"] is None else f"{sizes['int8'] / sizes['fp32']:.2f}"


def builds(result: Result) -> str:
    """Each command with its variants: what the precision costs, and the route that a device takes."""
    by_command: dict[str, list[Result]] = {}
    for row in result["rows"]:
        by_command.setdefault(row["command"], []).append(row)
    parts = [f"`{command}`\n\n{_build(rows)}" for command, rows in by_command.items()]
    return "\n\n".join(parts)


def _build(rows: list[Result]) -> str:
    made = [row for row in rows if "left_out" not in row]
    sizes = {row["name"]: row["file_bytes"] for row in made}
    found = table(
        (
            "variant",
            "accuracy",
            "of its float twin, points (95 % interval)",
            "same answer",
            "file of the twin's",
            "engine picked",
            "ms at batch 1 / 32",
            "faster than dense fp32 in ONNX Runtime",
        ),
        [
            (
                row["name"],
                f"{100 * row['accuracy']:.2f}",
                _lost(row["lowered"]),
                f"{100 * row['lowered']['agreement']:.1f} %" if row["lowered"] else "",
                f"{row['file_bytes'] / sizes[row['twin']]:.2f}" if row["lowered"] and row["twin"] in sizes else "",
                _SHOWN.get(row["engine"], row["engine"]),
                " / ".join(f"{row['engines'][row['engine']][b]['p50_ms']:.2f}" for b in ("1", "32")),
                " / ".join(
                    f"{row['dense_ms'][b] / row['engines'][row['engine']][b]['p50_ms']:.1f}×" for b in ("1", "32")
                ),
            )
            for row in made
        ],
    )
    left = [f"Left out: {row['left_out']['name']}, {row['left_out']['why']}." for row in rows if "left_out" in row]
    return "\n\n".join([found, *left])


def _lost(lowered: Result | None) -> str:
    if lowered is None or lowered["against"] is None:
        return ""
    gap = lowered["against"]
    return f"{100 * gap['difference']:+.2f} ({100 * gap['low']:+.2f} to {100 * gap['high']:+.2f})"


def switching(result: Result) -> str:
    """Decision to first answer of a switch into an engine: from the same one, and from the other."""
    rows = [
        (
            f"{row['net']}, {row['into']}, {row['resident']} open",
            _SHOWN[row["engine"]],
            *(f"{row[way]['p50']:.2f} / {row[way]['p99']:.2f}" for way in ("within_ms", "across_ms")),
            f"{row['times']:.2f}×",
        )
        for row in result["rows"]
    ]
    return table(
        ("into", "engine", "from the same engine, ms p50 / p99", "from the other, ms p50 / p99", "times"), rows
    )
