"""A build says when a training has learnt nothing."""

from pathlib import Path

import pytest

from prunit.recipe import build
from tests.recipe import building


@pytest.mark.parametrize(("lr", "times"), [(1e-9, 1), (None, 0)])
def test_a_training_that_learns_nothing_is_told_once(
    lr: float | None, times: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train = {**building.CONFIG["train"], "lr": lr, "epochs": 12}
    build(building.model, building.data(), tmp_path, config={**building.CONFIG, "budgets": [], "train": train})
    told = [record.getMessage() for record in caplog.records if "guessing" in record.getMessage()]
    assert len(told) == times
    assert all(text.startswith("dense: after epoch 4 of 12 the training loss of ") for text in told)
