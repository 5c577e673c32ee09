"""What `auto` comes to: by rules that give the same in every run, by timed steps, and as it was where one resumes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from prunit import zoo
from prunit.batches import Dataset, Split
from prunit.errors import FileError, ModelError
from prunit.train import TrainConfig, fitted_to, precision, resolved_precision, step_seconds, train
from prunit.train.checkpoint import fingerprint, load, save
from prunit.train.config import Chosen
from prunit.train.run import Run
from tests.train.toys import assert_same, small, stripes

CONFIG = fitted_to(TrainConfig(epochs=4, batch_size=16, device="cpu"), stripes())


@pytest.fixture
def has_bf16(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A CPU with instructions for bfloat16, whose users time steps however small."""
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr(precision, "SMALL", 0)
    return monkeypatch


class Clock:
    """Says how long steps in float32 and in bfloat16 take, and counts how often it was asked."""

    def __init__(self, full_s: float, half_s: float) -> None:
        self.answer, self.asked = [full_s, half_s], 0

    def __call__(self, runs: Sequence[Run], *, seconds: float) -> list[float]:
        assert [run.precision for run in runs] == ["32-true", "bf16-mixed"]
        assert seconds > 0
        self.asked += 1
        return self.answer


def clocked(patch: pytest.MonkeyPatch, full_s: float, half_s: float) -> Clock:
    clock = Clock(full_s, half_s)
    patch.setattr(precision, "times_of_steps", clock)
    return clock


@pytest.mark.parametrize(
    ("times", "expected"),
    [((1.0, 0.4), "bf16-mixed"), ((1.15, 1.0), "bf16-mixed"), ((1.1, 1.0), "32-true"), ((1.0, 3.0), "32-true")],
)
def test_a_step_must_be_clearly_faster(
    has_bf16: pytest.MonkeyPatch, times: tuple[float, float], expected: Chosen
) -> None:
    clock = clocked(has_bf16, *times)
    assert resolved_precision(small(), stripes(), CONFIG) == expected
    assert clock.asked == 1


def test_small_steps_are_not_timed(has_bf16: pytest.MonkeyPatch) -> None:
    clock = clocked(has_bf16, 9.0, 1.0)
    # 6 filters of 9 weights and 8 of 6 at 64 places, and 4 of 8 at the end; in batches of 16.
    macs = 16 * (64 * (6 * 9 + 8 * 6) + 4 * 8)
    has_bf16.setattr(precision, "SMALL", macs + 1)
    assert resolved_precision(small(), stripes(), CONFIG) == "32-true"
    assert clock.asked == 0
    has_bf16.setattr(precision, "SMALL", macs)
    assert resolved_precision(small(), stripes(), CONFIG) == "bf16-mixed"
    assert clock.asked == 1


def test_nothing_is_timed_for_what_is_asked_for_or_on_other_cpus(has_bf16: pytest.MonkeyPatch) -> None:
    clock = clocked(has_bf16, 9.0, 1.0)
    for asked in ("32-true", "bf16-mixed"):
        assert resolved_precision(small(), stripes(), CONFIG.model_copy(update={"precision": asked})) == asked
    has_bf16.setattr(precision, "cpu_has_bf16", lambda: False)
    assert resolved_precision(small(), stripes(), CONFIG) == "32-true"
    assert clock.asked == 0


def test_networks_on_digits_are_small_and_on_cifar_are_not() -> None:
    assert 128 * precision.macs_of(zoo.load("resnet20", image_size=8), images(8)) < precision.SMALL
    assert 128 * precision.macs_of(zoo.load("resnet20", image_size=16), images(16)) > precision.SMALL


def images(size: int) -> Dataset:
    split = Split(torch.zeros(2, 3, size, size, dtype=torch.uint8), torch.arange(2))
    return Dataset("none", split, split, tuple("0123456789"), (0.5,) * 3, (0.5,) * 3)


class OnlyFloat32(nn.Module):
    """Refuses what bfloat16 autocast hands on."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        logits_BK = self.inner(x_BCHW)
        if logits_BK.dtype != torch.float32:
            raise TypeError("not in this precision")
        return logits_BK


@pytest.mark.usefixtures("has_bf16")
def test_a_model_that_bfloat16_does_not_suit_is_trained_in_float32() -> None:
    assert resolved_precision(OnlyFloat32(), stripes(), CONFIG) == "32-true"
    assert len(list(train(OnlyFloat32(), stripes(), CONFIG))) == CONFIG.epochs


def test_the_model_and_the_random_state_stay(has_bf16: pytest.MonkeyPatch) -> None:
    has_bf16.setattr(precision, "_SECONDS", 0.0)
    model, before = small(), torch.get_rng_state()
    assert resolved_precision(model, stripes(), CONFIG) in ("32-true", "bf16-mixed")
    assert_same(model, small())
    assert model.training
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.usefixtures("has_bf16")
def test_what_cannot_be_trained_is_an_error() -> None:
    with pytest.raises(ModelError, match="no parameters to train"):
        resolved_precision(small().requires_grad_(False), stripes(), CONFIG)


@pytest.mark.parametrize("resumed_as", [(1.0, 9.0), (9.0, 1.0)])
def test_a_training_that_is_resumed_keeps_its_precision(
    has_bf16: pytest.MonkeyPatch, resumed_as: tuple[float, float], tmp_path: Path
) -> None:
    whole, resumed, path = small(), small(seed=9), tmp_path / "run"
    clocked(has_bf16, 9.0, 1.0)
    list(train(whole, stripes(), CONFIG))
    epochs = train(small(), stripes(), CONFIG, checkpoint=path)
    next(epochs)
    del epochs
    clock = clocked(has_bf16, *resumed_as)
    assert len(list(train(resumed, stripes(), CONFIG, checkpoint=path))) == CONFIG.epochs
    assert clock.asked == 0
    assert_same(resumed, whole)
    plain = small()
    list(train(plain, stripes(), CONFIG.model_copy(update={"precision": "32-true"})))
    assert not torch.equal(plain.conv1.weight, whole.conv1.weight)  # or the above would say nothing


def test_on_a_cpu_without_bfloat16_it_goes_on_in_float32(has_bf16: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clocked(has_bf16, 9.0, 1.0)
    next(train(small(), stripes(), CONFIG, checkpoint=tmp_path / "run"))
    assert place_of(tmp_path / "run") == ("cpu", "bf16-mixed")
    has_bf16.setattr(precision, "cpu_has_bf16", lambda: False)
    list(train(small(), stripes(), CONFIG, checkpoint=tmp_path / "run"))
    assert place_of(tmp_path / "run") == ("cpu", "32-true")


def test_a_checkpoint_without_a_note_was_made_in_float32(has_bf16: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path, mark = tmp_path / "run", fingerprint(small(), stripes(), CONFIG)
    clock = clocked(has_bf16, 1.0, 9.0)
    next(train(small(), stripes(), CONFIG, checkpoint=path))
    state = load(path, mark)
    assert state is not None
    save(path, replace(state, place=("", "")), mark)
    clock = clocked(has_bf16, 9.0, 1.0)
    list(train(small(), stripes(), CONFIG, checkpoint=path))
    assert clock.asked == 0
    assert place_of(path) == ("cpu", "32-true")


def test_what_auto_came_to_may_be_asked_for(has_bf16: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "run"
    clocked(has_bf16, 9.0, 1.0)
    next(train(small(), stripes(), CONFIG, checkpoint=path))
    with pytest.raises(FileError, match="setting 'precision' is bf16-mixed there and 32-true here"):
        next(train(small(), stripes(), CONFIG.model_copy(update={"precision": "32-true"}), checkpoint=path))
    asked = CONFIG.model_copy(update={"precision": "bf16-mixed"})
    assert len(list(train(small(), stripes(), asked, checkpoint=path))) == CONFIG.epochs


def place_of(path: Path) -> tuple[str, str]:
    state = load(path, fingerprint(small(), stripes(), CONFIG))
    assert state is not None
    return state.place


def test_steps_are_timed_in_the_precision_of_the_training(has_bf16: pytest.MonkeyPatch) -> None:
    clocked(has_bf16, 9.0, 1.0)
    seen, step = set[str](), Run.step

    def noted(self: Run, *args: object) -> Tensor:
        seen.add(self.precision)
        return step(self, *args)  # pyright: ignore[reportArgumentType]

    has_bf16.setattr(Run, "step", noted)
    step_seconds({"small": small()}, stripes(), CONFIG, seconds=0.0)
    assert seen == {"bf16-mixed"}
