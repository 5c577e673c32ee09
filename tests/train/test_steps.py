"""Seconds of a step: of the very step that `train` makes, on copies, in turns."""

import pytest
import torch
from torch import Tensor, nn

from prunit.errors import DataError, ModelError
from prunit.train import TrainConfig, evaluation_seconds, step_seconds, turns
from prunit.train.run import Run
from tests.train.toys import Small, assert_same, small, stripes

CONFIG = TrainConfig(epochs=2, batch_size=16, device="cpu")


class Clock:
    """Time goes on by what a model of so many channels says that it takes; every call of a model is written down."""

    def __init__(self, costs: dict[int, float]) -> None:
        self.now, self.costs, self.calls = 0.0, costs, list[tuple[int, int, bool]]()

    def perf_counter(self) -> float:
        return self.now

    def called(self, model: nn.Module, x_BCHW: Tensor) -> None:
        assert isinstance(model, Small)
        width = model.conv1.out_channels
        self.calls.append((width, len(x_BCHW), model.training))
        self.now += self.costs[width]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock, forward = Clock({4: 1.0, 6: 3.0}), Small.forward

    def counted(self: Small, x_BCHW: Tensor) -> Tensor:
        clock.called(self, x_BCHW)
        return forward(self, x_BCHW)

    monkeypatch.setattr(Small, "forward", counted)
    monkeypatch.setattr(turns.time, "perf_counter", clock.perf_counter)
    return clock


MODELS = {"narrow": 4, "wide": 6}


def models() -> dict[str, nn.Module]:
    return {name: small(width) for name, width in MODELS.items()}


@pytest.mark.parametrize(("seconds", "rounds"), [(0.1, 3), (10.0, 5), (1000.0, 15)])
def test_models_take_turns_for_as_many_rounds_as_fit(clock: Clock, seconds: float, rounds: int) -> None:
    found = step_seconds(models(), stripes(), CONFIG, seconds=seconds)
    assert found == {"narrow": 1.0, "wide": 3.0}
    training = [(width, images) for width, images, training in clock.calls if training]
    assert training == [(4, 16), (6, 16)] * (rounds + 1)


def test_it_is_the_median(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, step = iter([9.0, 0.0, 0.0, 0.0, 9.0, 0.0]), Run.step

    def disturbed(self: Run, *args: object) -> object:
        clock.now += next(slow)
        return step(self, *args)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Run, "step", disturbed)
    assert step_seconds({"narrow": small(4)}, stripes(), CONFIG, seconds=1.0) == {"narrow": 1.0}


def test_models_modes_and_random_state_stay() -> None:
    given, fresh = models(), models()
    given["wide"].norm.eval()  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
    before = torch.get_rng_state()
    assert all(value > 0 for value in step_seconds(given, stripes(), CONFIG, seconds=0.0).values())
    assert all(value > 0 for value in evaluation_seconds(given, stripes(), CONFIG, seconds=0.0).values())
    assert torch.equal(before, torch.get_rng_state())
    for name, model in given.items():
        assert_same(model, fresh[name])
        assert model.training
        assert all(parameter.grad is None for parameter in model.parameters())
    assert not given["wide"].norm.training  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.usefixtures("clock")
def test_of_several_devices_one_is_timed_with_its_share(clock: Clock) -> None:
    step_seconds({"narrow": small(4)}, stripes(), CONFIG.model_copy(update={"devices": 2}), seconds=0.0)
    assert {images for _, images, training in clock.calls if training} == {8}


def test_a_batch_of_all_images_where_they_are_too_few(clock: Clock) -> None:
    step_seconds({"narrow": small(4)}, stripes(10), CONFIG, seconds=0.0)
    assert {images for _, images, training in clock.calls if training} == {10}


def test_an_evaluation_is_as_many_batches_as_there_are_images(clock: Clock) -> None:
    found = evaluation_seconds(models(), stripes(tests=1280), CONFIG)
    assert found == {"narrow": 2.5, "wide": 7.5}
    assert {images for _, images, _ in clock.calls if images > 1} == {512}


def test_no_models() -> None:
    assert step_seconds({}, stripes(), CONFIG) == evaluation_seconds({}, stripes(), CONFIG) == {}


def test_what_cannot_be_trained_is_the_same_error_as_in_training() -> None:
    frozen = small().requires_grad_(False)
    with pytest.raises(ModelError, match="no parameters to train"):
        step_seconds({"a": small(), "b": frozen}, stripes(), CONFIG)
    with pytest.raises(DataError, match="1 training images"):
        step_seconds({"a": small()}, stripes(1), CONFIG)
