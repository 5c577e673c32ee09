"""Several devices: one process each, together the same training as one process does."""

from pathlib import Path

import pytest
import torch
from torch import nn

from prunit.errors import ModelError, TrainingError
from prunit.train import TrainConfig, evaluate, train
from prunit.train.config import final_accuracy
from tests.train.toys import small, stripes, tensors

CONFIG = TrainConfig(epochs=2, batch_size=16, device="cpu", devices=2, augment=False)


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path: Path) -> None:
    model, steps = small(), list[tuple[int, int]]()
    path = tmp_path / "run"
    epochs = list(train(model, stripes(), CONFIG, checkpoint=path, on_step=lambda *step: steps.append(step)))
    assert [epoch.index for epoch in epochs] == [1, 2]
    assert steps == [(i, 6) for i in range(1, 7)]
    assert not model.training
    assert model.calls == 6
    assert evaluate(model, stripes(), device="cpu") == pytest.approx(final_accuracy(epochs))
    alone = list(train(small(), stripes(), CONFIG.model_copy(update={"devices": 1}), checkpoint=path))
    assert alone == epochs


def test_a_model_that_cannot_be_sent_is_an_error() -> None:
    model = small()
    model.drop = nn.Identity()
    model.drop.forward = lambda x: x
    with pytest.raises(ModelError, match=r"cannot be sent to them .*lambda.*or use devices=1"):
        next(train(model, stripes(), CONFIG))


@pytest.mark.slow
def test_shares_of_a_batch_add_up_to_the_batch() -> None:
    together, alone = (small() for _ in range(2))
    for model in (together, alone):
        model.drop.p = 0.0
        model.norm = nn.GroupNorm(1, 6)  # batch norm would see other statistics
    list(train(together, stripes(), CONFIG))
    list(train(alone, stripes(), CONFIG.model_copy(update={"devices": 1})))
    for name, tensor in tensors(alone).items():
        torch.testing.assert_close(tensors(together)[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.slow
def test_an_error_in_a_process_is_the_caller_s() -> None:
    with pytest.raises(TrainingError, match="no longer finite in epoch 1"):
        list(train(small(), stripes(), CONFIG.model_copy(update={"lr": 1e30})))
