import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from prunit import files
from prunit.edge.portfolio import (
    Artifact,
    Device,
    Latency,
    Metrics,
    Portfolio,
    Preprocessing,
    StoredFile,
    Variant,
)
from prunit.errors import FileError, PortfolioError, UnknownNameError
from prunit.files import inside, sha256_of, staged

HASH = "0" * 64


def metrics(
    *, accuracy: float | None = 0.5, file_bytes: int = 10, macs: int = 7, p50_ms: float | None = None
) -> Metrics:
    latencies = () if p50_ms is None else (Latency(batch=32, threads=1, n=9, p50_ms=99, p90_ms=99, p99_ms=99),)
    if p50_ms is not None:
        latencies += (Latency(batch=1, threads=1, n=50, p50_ms=p50_ms, p90_ms=9, p99_ms=9),)
    return Metrics(
        accuracy=accuracy,
        params=1,
        macs=macs,
        weight_bytes=4,
        activation_bytes=8,
        file_bytes=file_bytes,
        latencies=latencies,
    )


def variant(name: str, measured: Metrics | None = None, folder: Path | None = None) -> Variant:
    """A variant; with `folder`, its files are written there."""
    artifact = {"sha256": HASH, "bytes": 5, "self_test_sha256": HASH}
    plan = None
    if folder:
        for suffix in ("onnx", "npz", "json"):
            (folder / f"{name}.{suffix}").write_text(f"{name}.{suffix}")
        plan = StoredFile.of(folder, f"{name}.json")
        artifact["sha256"] = sha256_of(folder / f"{name}.onnx")
        artifact["bytes"] = (folder / f"{name}.onnx").stat().st_size
        artifact["self_test_sha256"] = sha256_of(folder / f"{name}.npz")
    return Variant(
        name=name,
        recipe="uniform",
        budget={"params": "1/4"},
        keep=0.5,
        widths={"conv1": (64, 32), "conv2": (128, 1)},
        plan=plan,
        artifact=Artifact(
            path=f"{name}.onnx",
            input_name="input",
            input_shape=(3, 32, 32),
            output_name="logits",
            self_test=f"{name}.npz",
            tolerance=1e-4,
            **artifact,
        ),
        metrics=measured or metrics(),
        seconds={"prune": 0.1},
        epochs=3,
        seed=7,
    )


def portfolio(*variants: Variant) -> Portfolio:
    return Portfolio(
        name="resnet20-cifar10",
        model="resnet20",
        data="cifar10",
        classes=("cat", "dög"),
        preprocessing=Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1), size=(32, 32)),
        variants=variants,
        device=Device(name="CPU", cores=2, engine="onnxruntime", engine_version="1", os="Linux", python="3.11"),
        prunit_version="0.1.0",
        created="2026-01-01T00:00:00Z",
    )


def broken(folder: Path, change: Any) -> Path:
    """A manifest in `folder` after `change` was done to its JSON data."""
    portfolio(variant("dense", metrics(p50_ms=1.5))).write(folder)
    data = json.loads((folder / "portfolio.json").read_text())
    change(data)
    (folder / "portfolio.json").write_text(json.dumps(data))
    return folder


def test_round_trip_is_exact(tmp_path: Path) -> None:
    written = portfolio(variant("dense", metrics(p50_ms=1 / 3), tmp_path), variant("a=1_4"))
    path = written.write(tmp_path / "new" / "folder")
    first = path.read_bytes()
    read = Portfolio.read(path.parent)
    assert read == written
    assert list(read.variants[0].widths) == ["conv1", "conv2"]
    read.write(path.parent)
    assert path.read_bytes() == first
    assert os.listdir(path.parent) == ["portfolio.json"]  # noqa: PTH208
    assert list(json.loads(first))[:3] == ["format", "version", "name"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda data: data["variants"][0]["metrics"].update(acuracy=1),
            r"variants\[0\].metrics: unknown key 'acuracy'; did you mean 'accuracy'\?",
        ),
        (lambda data: data.update(clases=[]), r"top level: unknown key 'clases'; did you mean 'classes'\?"),
        (
            lambda data: data["variants"][0].update(recipy=data["variants"][0].pop("recipe")),
            r"variants\[0\]: unknown key 'recipy'; did you mean 'recipe'\?",
        ),
        (
            lambda data: data["variants"][0]["metrics"]["latencies"][1].update(p95_ms=1),
            r"variants\[0\].metrics.latencies\[1\]: unknown key 'p95_ms'; did you mean 'p9\d_ms'\?",
        ),
        (lambda data: data["device"].update(core=1), r"device: unknown key 'core'; did you mean 'cores'\?"),
        (lambda data: data["variants"][0].pop("recipe"), r"variants\[0\].recipe: Field required"),
        (lambda data: data.update(name=3), "name: Input should be a valid string"),
        (lambda data: data["variants"][0]["metrics"].update(params="9"), r"metrics.params: .* valid integer"),
        (lambda data: data["variants"][0]["metrics"].update(accuracy=93.5), "accuracy: .* less than or equal to 1"),
        (lambda data: data["variants"][0]["metrics"].update(accuracy=float("nan")), r"portfolio.json': .*accuracy"),
        (lambda data: data["variants"][0]["artifact"].update(path="../x"), r"artifact.path: the path '\.\./x' leaves"),
        (lambda data: data["variants"][0]["artifact"].update(path="/x"), "path '/x' leaves the portfolio folder"),
        (lambda data: data["variants"][0]["artifact"].update(self_test="a\\b"), r"self_test: .* must use '/'"),
        (lambda data: data["variants"][0]["artifact"].update(path="C:/x"), "artifact.path: .* must use '/'"),
        (lambda data: data["variants"][0]["artifact"].update(path="."), "artifact.path: a path must not be empty"),
        (lambda data: data["variants"][0]["artifact"].update(sha256="abc"), "artifact.sha256: String should match"),
        (lambda data: data["variants"].append(data["variants"][0]), "variants: two variants are called 'dense'"),
        (lambda data: data.update(format="onnx"), "field 'format' is not 'prunit-portfolio'"),
        (
            lambda data: data["variants"][0]["artifact"].update(outputs=[{"name": "logits"}, {"name": "logits"}]),
            r"variants\[0\].artifact.outputs: two outputs are called 'logits'",
        ),
        (
            lambda data: data["variants"][0]["artifact"].update(outputs=[{"name": "boxes", "shape": [9, 4]}]),
            r"variants\[0\].artifact.outputs: the first is called 'boxes', and 'output_name' is 'logits'",
        ),
        (lambda data: data.update(version=6), "field 'version' is 6 and this prunit reads up to 5; upgrade prunit"),
        (lambda data: data.update(version="1"), "version: Input should be 1, 2, 3, 4 or 5"),
        (lambda data: data.update(name=3, model=4), r"name: Input .* \(and 1 more\)"),
    ],
)
def test_a_wrong_field_is_named_in_one_line(tmp_path: Path, change: Any, message: str) -> None:
    folder = broken(tmp_path, change)
    before = (folder / "portfolio.json").read_bytes()
    with pytest.raises(PortfolioError, match=message) as caught:
        Portfolio.read(folder)
    assert str(folder / "portfolio.json") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (folder / "portfolio.json").read_bytes() == before


def test_a_manifest_of_the_version_before_is_read_and_written_as_one_of_today(tmp_path: Path) -> None:
    def older(data: Any) -> None:
        data["version"] = 1
        for added in ("answers", "scores", "interval", "against"):
            del data["variants"][0]["metrics"][added]
        del data["task"], data["preprocessing"]["fit"], data["variants"][0]["artifact"]["outputs"]

    read = Portfolio.read(broken(tmp_path, older))
    assert (read.version, read.variants[0].metrics.answers) == (1, None)
    assert (read.task.name, read.task.metric, read.preprocessing.fit) == ("classification", "accuracy", "crop")
    read.write(tmp_path)
    again = Portfolio.read(tmp_path)
    assert again.version == 5
    assert [(output.name, output.shape) for output in again.variants[0].artifact.outputs] == [("logits", None)]
    assert again.variants == read.variants


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is not JSON or was cut short"),
        (b'{"format": "prunit-portfolio", "ver', "it is not JSON or was cut short"),
        (b"[" * 100_000, "it is not JSON or was cut short"),
        (b"\xff\xfe\x00", "it is not text"),
        (b"[]", "field 'format' is not 'prunit-portfolio'"),
        (b'{"scripts": {}}', "field 'format' is not 'prunit-portfolio'"),
    ],
)
def test_a_foreign_or_cut_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "portfolio.json").write_bytes(content)
    with pytest.raises(PortfolioError, match=message) as caught:
        Portfolio.read(tmp_path)
    assert "\n" not in str(caught.value)


def test_every_cut_of_a_manifest_is_refused(tmp_path: Path) -> None:
    path = portfolio(variant("dense")).write(tmp_path)
    whole = path.read_bytes().rstrip()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(PortfolioError, match="cannot read"):
            Portfolio.read(tmp_path)


def test_a_folder_without_manifest_says_what_makes_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(PortfolioError, match=r"is no portfolio: it holds no portfolio.json; 'prunit build"):
            Portfolio.read(folder)
    with pytest.raises(PortfolioError, match=r"file' is no portfolio: it is a file; name the folder that holds"):
        Portfolio.read(tmp_path / "file")
    (tmp_path / "portfolio.json").mkdir()
    with pytest.raises(PortfolioError, match=r"cannot read .*: Is a directory"):
        Portfolio.read(tmp_path)


def test_records_are_frozen_and_refuse_unknown_keys() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        portfolio().name = "other"  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValidationError, match=r"treads\n.*Extra inputs are not permitted"):
        Latency.model_validate({"batch": 1, "treads": 1})


def test_variant_by_name() -> None:
    assert portfolio(variant("dense"), variant("half")).variant("half").name == "half"
    with pytest.raises(UnknownNameError, match="unknown variant 'hal'; did you mean 'half'"):
        portfolio(variant("dense"), variant("half")).variant("hal")


def test_pareto_by_hand() -> None:
    held = portfolio(
        variant("large", metrics(accuracy=0.9, file_bytes=100, p50_ms=1)),
        variant("worse", metrics(accuracy=0.7, file_bytes=60, p50_ms=5)),
        variant("small", metrics(accuracy=0.7, file_bytes=50, p50_ms=3)),
        variant("twin", metrics(accuracy=0.7, file_bytes=50)),
        variant("tiny", metrics(accuracy=0.1, file_bytes=10, p50_ms=2)),
        variant("unmeasured", metrics(accuracy=None, file_bytes=1, p50_ms=0.1)),
    )

    def names(x: str, y: str = "accuracy") -> list[str]:
        return [found.name for found in held.pareto(x, y)]

    assert names("file_bytes") == ["tiny", "small", "twin", "large"]
    assert names("latency_ms") == ["large"]  # fastest and best; 'twin' has no latency
    assert names("accuracy", "file_bytes") == ["tiny", "small", "twin", "large"]
    assert names("file_bytes", "latency_ms") == ["unmeasured"]
    assert names("peak_memory_bytes") == []
    with pytest.raises(UnknownNameError, match="unknown metric 'latency'; did you mean 'latency_ms'"):
        held.pareto("latency")


def test_verify_names_each_file_that_is_not_as_recorded(tmp_path: Path) -> None:
    held = portfolio(variant("dense", folder=tmp_path), variant("half", folder=tmp_path))
    assert held.verify(tmp_path) == []
    (tmp_path / "dense.onnx").unlink()
    (tmp_path / "dense.npz").write_text("dense.npy")
    (tmp_path / "half.onnx").write_text("cut")
    (tmp_path / "half.json").write_text("half.JSON")
    assert held.verify(tmp_path) == [
        "variant 'dense': 'dense.onnx' is missing",
        "variant 'dense': 'dense.npz' was changed: its SHA-256 is not the manifest's",
        "variant 'half': 'half.onnx' has 3 bytes instead of 9",
        "variant 'half': 'half.json' was changed: its SHA-256 is not the manifest's",
    ]


def test_links_out_of_the_folder_are_refused_and_inside_followed(tmp_path: Path) -> None:
    folder = tmp_path / "portfolio"
    folder.mkdir()
    held = portfolio(variant("dense", folder=folder))
    (tmp_path / "linked").symlink_to(folder)
    assert held.verify(tmp_path / "linked") == []
    (folder / "dense.onnx").rename(folder / "kept.onnx")
    (folder / "dense.onnx").symlink_to("kept.onnx")
    assert held.verify(folder) == []
    (folder / "kept.onnx").rename(tmp_path / "outside.onnx")
    (folder / "dense.onnx").unlink()
    (folder / "dense.onnx").symlink_to(tmp_path / "outside.onnx")
    (problem,) = held.verify(folder)
    assert "the path 'dense.onnx' leads through a link out of the portfolio folder" in problem


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "", "a\0b", "..\\x"])
def test_inside_refuses_what_leaves(tmp_path: Path, path: str) -> None:
    with pytest.raises(PortfolioError, match=re.escape(f"'{tmp_path}': ")):
        inside(tmp_path, path)


def test_stored_file_of_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(PortfolioError, match=r"cannot read '.*plan.json': No such file"):
        StoredFile.of(tmp_path, "plan.json")


def test_staged_keeps_the_old_file_when_the_block_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    (tmp_path / ".a.tmp.txt").write_text("left behind by a killed process")
    with pytest.raises(KeyboardInterrupt), staged(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_staged_names_the_file_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"cannot write '.*file/portfolio.json': .*; check that its folder is writable"):
        portfolio().write(tmp_path / "file")

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", no_space)
    with pytest.raises(FileError, match=r"cannot write '.*portfolio.json': No space left on device; .*disk has room"):
        portfolio().write(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_normalise_by_hand() -> None:
    how = Preprocessing(mean=(0.5, 0.0), std=(0.5, 0.25), size=(1, 1), channels="as stored")
    found = how.normalise(np.array([[[[255]], [[51]]]], np.uint8))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[[[1.0]], [[0.8]]]], rtol=1e-6)


def test_a_folder_may_be_text(tmp_path: Path) -> None:
    written = portfolio(variant("dense", folder=tmp_path))
    assert written.write(str(tmp_path)) == tmp_path / "portfolio.json"
    assert Portfolio.read(str(tmp_path)) == written == Portfolio.read(tmp_path)
    assert written.verify(str(tmp_path)) == []
    (tmp_path / "dense.json").unlink()
    assert written.verify(str(tmp_path)) == written.verify(tmp_path) != []
