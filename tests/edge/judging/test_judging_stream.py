"""Images stream: however many there are and however slow the engine is, a few batches are held."""

import threading
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunit.edge.judging import stream
from prunit.edge.judging.stream import AHEAD, batches
from prunit.edge.reading import Files, Values
from prunit.edge.reading.photos import Problem, filled
from tests.edge.colours import picture, save

BATCH = 10


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """300 pictures; the label of each is its place."""
    folder = tmp_path_factory.mktemp("many")
    paths = [save(folder / f"{i:03}.png", picture(i % 3, seed=i)) for i in range(300)]
    return Files(tuple(paths), Values(np.arange(300)))


class Counted:
    """Counts the pictures that are decoded, in place of `filled`."""

    def __init__(self) -> None:
        self.decoded, self.lock = 0, threading.Lock()

    def __call__(self, *arguments: Any) -> Any:
        found = filled(*arguments)
        with self.lock:
            self.decoded += 1
        return found

    def settled(self, wanted: int) -> int:
        """How many there are once no more come; waits for `wanted` of them."""
        while self.decoded < wanted:
            time.sleep(0.001)
        before = -1
        while before != self.decoded:
            before = self.decoded
            time.sleep(0.02)
        return self.decoded


def test_no_more_is_decoded_than_a_few_batches_ahead(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted()
    monkeypatch.setattr(stream, "filled", counted)
    used = 0
    for part in batches(files, (3, 16, 16), "crop", batch=BATCH, threads=3):
        used += len(part.index)
        # Whoever uses a batch slowly finds the next ones ready, and none beyond.
        ready = min(used + AHEAD * BATCH, len(files))
        assert counted.settled(ready) == ready
    assert used == len(files)


def test_batches_that_were_used_are_let_go(files: Files) -> None:
    held: list[weakref.ref[Any]] = []
    most = 0
    part = None
    for part in batches(files, (3, 16, 16), "crop", batch=BATCH, threads=2):
        held.append(weakref.ref(part.x_BCHW))
        most = max(most, sum(one() is not None for one in held))
    assert len(held) == len(files) // BATCH
    assert most <= 2  # the one before may live until the loop's variable is set anew
    del part


def test_files_come_once_in_their_order_with_their_targets(files: Files) -> None:
    parts = list(batches(files, (3, 16, 16), "crop", batch=7, threads=4))
    assert [i for part in parts for i in part.index] == list(range(300))
    assert np.concatenate([part.targets for part in parts]).tolist() == list(range(300))
    for part in parts:
        for i, x_CHW in zip(part.index, part.x_BCHW, strict=True):
            assert x_CHW.transpose(1, 2, 0).tolist() == picture(i % 3, seed=i).tolist()


def test_grey_pictures_have_one_channel(files: Files) -> None:
    part = next(batches(files, (1, 16, 16), "crop", batch=2, threads=1))
    assert part.x_BCHW.shape == (2, 1, 16, 16)


def test_what_cannot_be_used_is_left_out_and_named(files: Files, tmp_path: Path) -> None:
    paths = list(files.paths[:20])
    paths[3], paths[12] = tmp_path / "gone.png", tmp_path / "text.png"
    paths[12].write_text("no image")
    first, second = batches(Files(tuple(paths), Values(np.arange(20))), (3, 16, 16), "crop", batch=10, threads=2)
    assert first.index == (0, 1, 2, 4, 5, 6, 7, 8, 9)
    assert first.targets.tolist() == list(first.index)
    assert first.x_BCHW[3].transpose(1, 2, 0).tolist() == picture(1, seed=4).tolist()
    assert isinstance(first.problems[0], Problem)
    assert "gone.png" in first.problems[0].text
    assert "text.png' (not an image of a known format, 8 bytes)" in second.problems[0].text


def test_who_stops_early_leaves_no_thread_behind(files: Files) -> None:
    found = batches(files, (3, 16, 16), "crop", batch=BATCH, threads=3)
    next(found)
    found.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("prunit-decode")]
