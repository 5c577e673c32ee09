"""The tables of the page on precisions: every figure where it belongs."""

from typing import Any

from bench import precision_tables, tables


def test_routes_stand_beside_float_in_the_default_engine() -> None:
    def route(one: float, many: float) -> dict[str, Any]:
        return {
            "1": {"n": 100, "p50_ms": 2.0, "times_faster": one},
            "32": {"n": 20, "p50_ms": 50.0, "times_faster": many},
        }

    row = {
        "title": "VGG-16, 32×32",
        "share": "1/2",
        "macs": 78_400_000,
        "file_bytes": {"fp32": 1000, "int8": 260},
        "routes": {
            "onnxruntime fp32": route(1, 1),
            "onnxruntime int8": route(3.1, 2.9),
            "openvino fp32": route(0.9, 1.1),
        },
        "picked": "onnxruntime int8",
    }
    line = precision_tables.precisions({"rows": [row]}).splitlines()[-1]
    assert line == (
        "| VGG-16, 32×32, 1/2 | 78.4 M | 2.00 / 50.00 | 3.10 / 2.90 | 0.90 / 1.10 | – | – | 0.26 |"
        " onnxruntime int8 (3.1×) |"
    )


def test_builds_show_their_command_and_what_was_left_out() -> None:
    def engine(ms: float) -> dict[str, Any]:
        return {"why_not": "", "1": {"p50_ms": ms, "n": 9}, "32": {"p50_ms": 20 * ms, "n": 9}}

    common = {"command": "prunit build x", "model": "x", "dense_ms": {"1": 4.0, "32": 80.0}, "images": 10_000}
    float_row = {
        "name": "dense",
        "twin": "dense",
        "precision": "fp32",
        "accuracy": 0.9,
        "lowered": None,
        "file_bytes": 1000,
    }
    facts = {"agreement": 0.987, "against": {"difference": -0.0012, "low": -0.003, "high": 0.0006}}
    int8_row = {
        **float_row,
        "name": "dense-int8",
        "precision": "int8",
        "accuracy": 0.8988,
        "lowered": facts,
        "file_bytes": 280,
    }
    rows = [
        {**common, **float_row, "engine": "onnxruntime", "engines": {"onnxruntime": engine(4.0)}},
        {**common, **int8_row, "engine": "openvino", "engines": {"onnxruntime": engine(2.0), "openvino": engine(1.0)}},
        {"command": "prunit build x", "model": "x", "left_out": {"name": "half-int8", "why": "it loses 2.00 points"}},
    ]
    page = precision_tables.builds({"rows": rows})
    assert page.startswith("`prunit build x`\n\n| variant |")
    assert (
        "| dense-int8 | 89.88 | -0.12 (-0.30 to +0.06) | 98.7 % | 0.28 | OpenVINO | 1.00 / 20.00 | 4.0× / 4.0× |"
        in page
    )
    assert page.endswith("Left out: half-int8, it loses 2.00 points.")


def test_switching_between_engines() -> None:
    row = {
        "net": "VGG-16",
        "resident": 1,
        "into": "half",
        "engine": "openvino",
        "within_ms": {"p50": 20.0, "p90": 22.0, "p99": 30.0},
        "across_ms": {"p50": 22.0, "p90": 25.0, "p99": 31.0},
        "times": 1.1,
    }
    line = precision_tables.switching({"rows": [row]}).splitlines()[-1]
    assert line == "| VGG-16, half, 1 open | OpenVINO | 20.00 / 30.00 | 22.00 / 31.00 | 1.10× |"


def test_the_page_has_a_place_for_each() -> None:
    page = tables.PRECISIONS.read_text("utf-8")
    assert all(f"<!-- bench:{name} -->" in page for name in tables.ON_PRECISIONS)
