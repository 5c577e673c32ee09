"""Builds whose results go to an address: worked on here, sent at the end, whole or not at all."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from prunit.edge.portfolio import Portfolio
from prunit.edge.publishing import fetch
from prunit.errors import ConfigError, FileError
from prunit.recipe import build, ladder
from prunit.recipe.outs import Out, OutFile
from prunit.recipe.progress import Step
from prunit.recipe.sweeps import sweep
from tests.edge.stores import Fault, Folders, Objects
from tests.recipe import building

ADDRESS = "objects://bucket/portfolio"


@pytest.fixture(autouse=True)
def _empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    yield
    Objects.forget()
    Folders.forget()


def built(out: Path | str, **options: Any) -> Portfolio:
    torch.manual_seed(0)
    return build(building.model(), building.data(), out, config=building.CONFIG, **options)


def test_a_build_is_sent_when_all_is_done_and_again_with_resume(tmp_path: Path) -> None:
    steps: list[Step] = []
    portfolio = built(ADDRESS, on_step=steps.append)
    work = tmp_path / "prunit-builds" / "objects_bucket_portfolio"
    assert Portfolio.read(work) == portfolio
    stages = [step.stage for step in steps]
    assert stages.index("send") > max(i for i, stage in enumerate(stages) if stage == "train")
    fetch(ADDRESS, tmp_path / "here")
    for name, data in building.results(work).items():
        assert [path.read_bytes() for path in (tmp_path / "here").rglob(name)] == [data]
    assert (tmp_path / "here" / "report.html").read_bytes() == (work / "report.html").read_bytes()
    with pytest.raises(ConfigError, match=r"already holds a build: continue it with --resume, .* \(--work\)"):
        built(ADDRESS)
    Objects.forget()
    again = built(ADDRESS, resume=True)
    assert {variant.name for variant in Portfolio.read(ADDRESS).variants} == {v.name for v in again.variants}


def test_what_could_not_be_sent_is_whole_here_and_the_one_there_stays(tmp_path: Path) -> None:
    built(ADDRESS, work=tmp_path / "first")
    before = Portfolio.read(ADDRESS)
    probes = 3 * 2  # written and removed: when asked, and before anything is sent
    Objects.fault = Fault(probes, good=True)
    with pytest.raises(
        FileError, match=r"reset by peer.*the portfolio is whole in '.*second', and the same command with"
    ):
        built(ADDRESS, work=tmp_path / "second")
    Objects.fault = None
    assert Portfolio.read(ADDRESS) == before
    assert Portfolio.read(tmp_path / "second").verify(tmp_path / "second") == []
    built(ADDRESS, work=tmp_path / "second", resume=True)
    assert Portfolio.read(ADDRESS) != before


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("objects://bucket/portfolio", "cannot write '.prunit-probe-.*' to .*: Access Denied; check that"),
        ("foo://bucket/portfolio", "fsspec knows no addresses"),
        (Path("s3://bucket/portfolio"), "lacks a '/' to be an address .*give 's3://bucket/portfolio' as text"),
    ],
)
def test_a_wrong_address_is_told_before_anything_is_trained(
    out: Path | str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*arguments: Any, **options: Any) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(Objects, "pipe_file", denied)
    steps: list[Step] = []
    with pytest.raises((FileError, ConfigError), match=message):
        built(out, on_step=steps.append)
    assert steps == []
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_and_a_ladder_are_sent(tmp_path: Path) -> None:
    asked = {**building.CONFIG, "budgets": ["params=1/2"]}
    sweep(building.model(), building.data(), "folders://x/sweep", recipes=("uniform", "global"), config=asked, eta=2)
    fetch("folders://x/sweep", tmp_path / "swept")
    work = tmp_path / "prunit-builds" / "folders_x_sweep"
    assert (tmp_path / "swept" / "trials.json").read_bytes() == (work / "trials.json").read_bytes()
    assert (tmp_path / "swept" / "report.html").exists()
    sparse = {"densities": ["1/4"], "method": "magnitude", "pad": "off"}
    config = {name: value for name, value in building.CONFIG.items() if name not in ("budgets", "prune")}
    ladder(building.model(), building.data(), "folders://x/ladder", config={**config, "sparse": sparse}, work="w")
    assert {v.name for v in Portfolio.read("folders://x/ladder").variants} == {"dense", "density-1-4"}
    assert Portfolio.read("w").verify("w") == []


def test_a_folder_is_named_after_its_address() -> None:
    assert Out.of("s3://my.bucket/a b/c") == Out(Path("prunit-builds/s3_my.bucket_a-b_c"), "s3://my.bucket/a b/c")
    secret = Out.of("ftp://me:secret@host/x")
    assert secret.folder == Path("prunit-builds/ftp_host_x")
    assert secret.shown_address == "ftp://…@host/x"
    assert Out.of("here") == Out(Path("here"))
    with pytest.raises(ConfigError, match=r"--work\) is where to work for an address"):
        Out.of("here", "there")


def test_files_beside_each_other_are_sent_with_the_named_one_last() -> None:
    into = OutFile.of("folders://x/models/small.safetensors")
    into.check()
    with into.written() as file:
        file.write_bytes(b"weights")
        file.with_name("small.onnx").write_bytes(b"graph")
    moved = [change for change in Folders.changes if change.startswith("copy ")][-2:]
    assert moved == ["copy /x/models/small.onnx", "copy /x/models/small.safetensors"]
    assert Folders().cat_file("/x/models/small.onnx") == b"graph"
    assert into.told(str(file)) == "folders://x/models/small.safetensors"
    with suppress(RuntimeError), into.written() as file:
        file.write_bytes(b"half")
        raise RuntimeError
    assert Folders().cat_file("/x/models/small.safetensors") == b"weights"
