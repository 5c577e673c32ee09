"""A checkpoint of the same network for other classes: its head is drawn anew, anything else still has to fit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import prunit
from prunit.errors import ConfigError, FileError
from tests.test_checkpoints import FORMS, LOSS, REFUSED, Net, net, under

THERE = net(1, classes=5).state_dict()
HEAD = ("fc.weight", "fc.bias")
BODY = {n: t for n, t in THERE.items() if n not in HEAD}
ALSO = {n: t + 1 for n, t in THERE.items()}


def read(tmp_path: Path, held: Any, model: nn.Module, **options: Any) -> Any:
    torch.save(held, tmp_path / "c.pt")
    return prunit.read_weights(tmp_path / "c.pt", model, other_classes=True, **options)


def assert_all_but_the_head(tensors: dict[str, Tensor], model: nn.Module, there: dict[str, Tensor] = THERE) -> None:
    own = model.state_dict()
    assert tensors.keys() == own.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, own[name] if name in HEAD else there[name]), name
    model.load_state_dict(tensors)


TAKEN: dict[str, tuple[Any, str]] = {
    "another head": (THERE, "the head 'fc' is drawn anew: the file has 5 classes, the model 3"),
    "no head": (BODY, "the head 'fc' is drawn anew: the file has none"),
    "below a key": ({"model": THERE, "epoch": 3}, "weights from 'model'; the head 'fc' is drawn anew: the file has 5"),
    "behind a prefix": (
        under("module.", BODY),
        "weights from 'module'; the head 'fc' is drawn anew: the file has none",
    ),
    "beside a loss": (THERE | LOSS, "the head 'fc' is drawn anew: the file has 5 classes"),
    "the same twice": ({"a": THERE, "b": {n: t.clone() for n, t in THERE.items()}}, "the head 'fc' is drawn anew"),
}


@pytest.mark.parametrize("form", TAKEN)
def test_all_but_the_head_is_taken(form: str, tmp_path: Path) -> None:
    held, told = TAKEN[form]
    model = net()
    found = read(tmp_path, held, model)
    assert told in found.told
    assert found.redrawn == HEAD
    assert_all_but_the_head(found.tensors, model)


def test_a_head_of_convolution(tmp_path: Path) -> None:
    there, model = (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, n, 1)) for n in (7, 2))
    found = read(tmp_path, there.state_dict(), model)
    assert found.told == "the head '1' is drawn anew: the file has 7 classes, the model 2"
    assert torch.equal(found.tensors["0.weight"], there[0].weight)


@pytest.mark.parametrize("form", FORMS)
def test_where_all_fits_nothing_is_drawn_anew(form: str, tmp_path: Path) -> None:
    found = read(tmp_path, FORMS[form], net())
    without = prunit.read_weights(tmp_path / "c.pt", net())
    assert found.redrawn == ()
    assert found.told == without.told
    assert all(torch.equal(t, without.tensors[n]) for n, t in found.tensors.items())


def test_several_that_differ_are_asked_for(tmp_path: Path) -> None:
    held = {"model": THERE, "ema": ALSO}
    with pytest.raises(ConfigError, match="2 different sets of weights that fit the model: 'ema', 'model'; say which"):
        read(tmp_path, held, net())
    model = net()
    found = read(tmp_path, held, model, key="ema")
    assert "weights from 'ema'" in found.told
    assert_all_but_the_head(found.tensors, model, ALSO)


def test_one_that_fits_is_taken_before_one_with_another_head(tmp_path: Path) -> None:
    held = {"model": THERE, "ema": net(2).state_dict()}
    assert read(tmp_path, held, net()).key == "ema"
    model = net()
    found = read(tmp_path, held, model, key="model")
    assert found.redrawn == HEAD
    assert_all_but_the_head(found.tensors, model)


class Tokens(nn.Module):
    """A table of words has the shape of a head, and is none."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.table, self.fc = nn.Embedding(words, 4), nn.Linear(4, 3)


STILL: dict[str, Any] = {
    "a head under another name": BODY | {"classifier.weight": torch.ones(5, 4), "classifier.bias": torch.ones(5)},
    "a head and its like": THERE | {"fc2.weight": torch.ones(5, 4)},
    "half a head": BODY | {"fc.weight": net().fc.weight.detach()},
    "a bias of other classes than its weight": BODY | {"fc.weight": torch.ones(5, 4), "fc.bias": torch.ones(3)},
    "a head with other inputs": BODY | {"fc.weight": torch.ones(5, 7), "fc.bias": torch.ones(5)},
    "another layer missing": {n: t for n, t in net(1).state_dict().items() if not n.startswith("layer.0")},
    "a layer and the head missing": {n: t for n, t in BODY.items() if not n.startswith("layer.0")},
    "a deeper network of other classes": net(deep=2, classes=5).state_dict(),
    "nothing of it": nn.Linear(2, 2).state_dict(),
}


@pytest.mark.parametrize("form", STILL)
@pytest.mark.parametrize("key", [None, "model"])
def test_anything_else_that_does_not_fit_is_refused(form: str, key: str | None, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not fit Net: "):
        read(tmp_path, {"model": STILL[form]}, net(), key=key)


def test_a_table_of_words_is_no_head(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"'table.weight' has shape \(9, 4\)"):
        read(tmp_path, Tokens(9).state_dict(), Tokens(6))


@pytest.mark.parametrize("form", sorted(REFUSED.keys() - {"another head", "a part alone"}))
def test_what_is_refused_else_is_refused(form: str, tmp_path: Path) -> None:
    held, message = REFUSED[form]
    with pytest.raises(FileError, match=message):
        read(tmp_path, held, net())


def test_the_model_keeps_its_head_apart(tmp_path: Path) -> None:
    model = net()
    assert isinstance(model, Net)
    before = model.fc.weight.detach().clone()
    read(tmp_path, THERE, model).tensors["fc.weight"].zero_()
    assert torch.equal(model.fc.weight, before)
