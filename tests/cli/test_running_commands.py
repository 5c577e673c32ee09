"""`prunit install`, `prunit simulate` and `prunit replay`: what they print and refuse, without torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.running import prunit
from tests.edge.folders import portfolio_in


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    portfolio_in(tmp_path / "portfolio")
    (tmp_path / "trace.txt").write_text("20\n" * 2 + "60\n" * 2)
    return tmp_path / "portfolio"


def test_variants_are_installed(folder: Path, tmp_path: Path) -> None:
    result = prunit("install", folder)
    assert result.code == 0, result.err
    assert "3 of 3 variants installed for onnxruntime" in result.out
    found = json.loads(prunit("install", folder, "--cache", tmp_path / "cache", "--json").out)
    assert set(found["variants"]) == {"large", "middle", "small"}
    (folder / "small.onnx").write_bytes(b"other")
    result = prunit("install", folder, "--cache", tmp_path / "other")
    assert result.code == 2
    assert "'small.onnx' was changed" in result.err


def test_policies_are_compared_on_a_trace(folder: Path, tmp_path: Path) -> None:
    result = prunit("simulate", folder, "--trace", tmp_path / "trace.txt", "--target", 30)
    assert result.code == 0, result.err
    for text in ("in 30 ms", "fixed:large", "accurate", "queue", "saver", "oracle", "160 requests"):
        assert text in result.out
    arguments = ("--trace", tmp_path / "trace.txt", "--scale", 2, "--policy", "queue:dwell_s=1", "--json")
    found = json.loads(prunit("simulate", folder, *arguments).out)
    assert set(found) == {"queue:dwell_s=1", "oracle"}
    assert found["oracle"]["requests"] == 320
    (tmp_path / "link.txt").write_text("1000\n")
    over = ("--bandwidth", tmp_path / "link.txt", "--request-kb", 2)
    slower = json.loads(prunit("simulate", folder, *arguments, *over).out)
    assert slower["queue:dwell_s=1"]["p50_ms"] >= found["queue:dwell_s=1"]["p50_ms"] + 15


def test_a_trace_is_replayed_beside_its_simulation(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("30\n")
    result = prunit("replay", folder, "--trace", tmp_path / "short.txt", "--target", 500, "--json")
    found = json.loads(result.out)
    assert found["replayed"]["lost"] == 0
    assert found["replayed"]["outcome"]["requests"] == found["simulated"]["requests"] == 30
    shown = prunit("replay", folder, "--trace", tmp_path / "short.txt", "--target", 500)
    assert "0 requests without an answer" in shown.out


def test_mistakes(folder: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.txt"
    (tmp_path / "none.txt").write_text("0\n0\n")
    for arguments, complaint in (
        (("simulate", folder, "--trace", tmp_path / "no.txt"), "there is no trace"),
        (("simulate", folder, "--trace", folder / "large.onnx"), "cannot read the trace"),
        (("simulate", folder, "--trace", trace, "--policy", "quue"), "did you mean 'queue'"),
        (("simulate", folder, "--trace", trace, "--policy", "fixed:larg"), "did you mean 'large'"),
        (("simulate", folder, "--trace", trace, "--scale", 0), "it must be more than 0"),
        (("simulate", folder, "--trace", trace, "--start", 9), "has 4 seconds"),
        (("simulate", folder, "--trace", trace, "--target", 0), "must be more than 0"),
        (("simulate", folder, "--trace", tmp_path / "none.txt"), "holds no request"),
        (("simulate", tmp_path, "--trace", trace), "is no portfolio"),
        (("replay", tmp_path, "--trace", trace), "is no portfolio"),
        (("install", tmp_path), "is no portfolio"),
        (("simulate", folder, "--trace", trace, "--bandwidth", tmp_path / "no.csv"), "there is no trace"),
        (("simulate", folder, "--trace", trace, "--bandwidth", trace, "--request-kb", 0), "it must be more than 0"),
    ):
        result = prunit(*arguments)
        assert result.code == 2, result.out
        assert complaint in result.complaint


def test_none_of_them_needs_torch(folder: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from prunit.cli import main; main()"
    arguments = ("replay", str(folder), "--trace", str(tmp_path / "trace.txt"), "--seconds", "1")
    child = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    assert "0 requests without an answer" in child.stdout
