"""A variant is judged in the engine that it runs in on this device, and it is said which one that was."""

from pathlib import Path

import pytest

from prunit.edge.judging.evaluation import Evaluation, evaluate
from prunit.edge.judging.judge import JudgeSettings
from prunit.edge.portfolio import Portfolio
from prunit.errors import FileError, MissingExtraError, UnknownNameError
from tests.edge.colours import class_folders, portfolio_of
from tests.edge.engines import Other, add, routes_in


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Other:
    found = Other()
    add(monkeypatch, found)
    return found


@pytest.fixture
def folder(tmp_path: Path, other: Other) -> Path:
    portfolio_of(tmp_path / "portfolio")
    class_folders(tmp_path / "photos", {"test": 2})
    names = [variant.name for variant in Portfolio.read(tmp_path / "portfolio").variants]
    routes_in(tmp_path / "portfolio", {names[1]: "other"})
    return tmp_path / "portfolio"


def judged(folder: Path, engine: str | None = None) -> Evaluation:
    settings = JudgeSettings(pictures=1)
    place = folder.parent / "photos"
    return evaluate(Portfolio.read(folder), folder, place, settings=settings, engine=engine)


def test_each_variant_in_its_engine(folder: Path, other: Other) -> None:
    found = judged(folder)
    assert [one.engine for one in found.variants] == ["onnxruntime", "other"]
    assert len(other.opened) == 2  # for its answers and its pictures
    assert found.device.engine == "onnxruntime"
    assert not any("judged" in note for note in found.notes)
    forced = judged(folder, "other")
    assert [one.engine for one in forced.variants] == ["other", "other"]
    assert forced.device.engine == "other"


def test_what_its_engine_cannot_do_the_default_one_does(folder: Path, other: Other) -> None:
    other.act = lambda session, x_BCHW: session.run(x_BCHW) + 1
    found = judged(folder)
    assert [one.engine for one in found.variants] == ["onnxruntime", "onnxruntime"]
    assert "was not judged in other: " in found.notes[-1]
    assert "failed its self-test" in found.notes[-1]


def test_an_engine_that_is_asked_for_has_to_be_there(folder: Path, other: Other) -> None:
    other.gone = True
    with pytest.raises(MissingExtraError, match=r"pip install 'prunit\[other\]'"):
        judged(folder, "other")
    with pytest.raises(UnknownNameError, match="did you mean 'other'"):
        judged(folder, "othr")


def test_a_variant_whose_own_engine_is_not_here_stays_out_with_a_note(folder: Path, other: Other) -> None:
    found = Portfolio.read(folder)
    first, second = found.variants
    found.model_copy(update={"variants": (first, second.model_copy(update={"engine": "other"}))}).write(folder)
    other.gone = True
    done = judged(folder)
    assert [one.variant for one in done.variants] == [first.name]
    assert done.notes[-1].startswith(f"'{second.name}' is not judged: the runtime 'other' needs the package 'other'")
    # Who names it wants to know; and so does who has no other.
    settings, place = JudgeSettings(), folder.parent / "photos"
    with pytest.raises(MissingExtraError, match="other"):
        evaluate(Portfolio.read(folder), folder, place, settings=settings, variants=[second.name])
    other.gone = False
    other.refuses.add(Path(second.artifact.path).stem)
    with pytest.raises(FileError, match="no operator"):  # it is here, and something is wrong
        judged(folder)
