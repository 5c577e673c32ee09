"""Exports of variants, measured on a toy network; no time is judged."""

import io
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import prunit
from bench import _exports, export_tables, variant_export
from tests.export.toynets import build, example


class Toy:
    title = "Toy"

    def make(self) -> tuple[nn.Module, Tensor]:
        return build("concat").eval(), example()


def test_variants_are_exported_from_what_the_dense_model_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, threads, file = str(Path(str(prunit.__file__)).parents[1]), torch.get_num_threads(), tmp_path / "kept.onnx"
    monkeypatch.setattr(_exports, "NETS", {"toy": Toy()})
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n\n"))
    try:
        _exports.answer(source, "toy", "variants", file)
        _exports.answer(source, "toy", "variant", file)
        with pytest.raises(SystemExit, match="not from elsewhere"):
            _exports.answer("elsewhere", "toy", "variant", file)
    finally:
        torch.set_num_threads(threads)
    once, *told = map(json.loads, capsys.readouterr().out.splitlines())
    assert once["file_bytes"] == file.stat().st_size > 0
    assert once["export_s"]["wall_s"] > 0 < once["template_s"]["cpu_s"]
    assert len(told) == 3
    assert all(each["peak_mb"] >= each["before_mb"] > 0 for each in told)


def test_rows_and_their_table_hold_one_build_against_the_other() -> None:
    now, earlier = (
        [{"wall_s": s * k, "cpu_s": s / 2 * k, "before_mb": 300.0, "peak_mb": 400.0 * k} for s in (1.0, 2.0, 3.0)]
        for k in (1, 5)
    )
    row = {"title": "Toy", **variant_export.row("variants", {"now": now, "earlier": earlier})}
    assert row["times_faster"]["of_medians"] == 5
    taken = {"export_s": {"wall_s": 4.0, "cpu_s": 3.5}, "template_s": {"wall_s": 2.0, "cpu_s": 1.5}, "file_bytes": 2345}
    text = export_tables.variant_export({"rows": [row | {"once": {"now": taken, "earlier": taken}}]})
    assert "| Toy | in a build | 1.00 (0.50 to 1.50) | 5.00 (2.50 to 7.50) | 5.0 (in pairs 5.0 to 5.0) |" in text
    assert "| 400 | 2000 |" in text
    assert "| Toy | 3.5 | 3.5 | 1.5 | 2 |" in text
