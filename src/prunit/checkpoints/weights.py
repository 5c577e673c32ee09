"""The tensors of a model out of a checkpoint of any tool: what fits is taken, what is doubtful is asked for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torch import Tensor, nn

from prunit.checkpoints.fitting import Fit, Fitting, dense, through
from prunit.checkpoints.reading import held_in, masked
from prunit.errors import ConfigError, FileError, ModelError, UnknownNameError, unknown
from prunit.graph.finite import not_finite
from prunit.shown import Shown

_NAMED: Final = 3
"""How many tensors a message names."""


@dataclass(frozen=True, eq=False, repr=False)
class Weights(Shown):
    """A state dict for `model.load_state_dict`, and where in the file it was.

    `key` is what stood before the model's names, keys and prefixes alike, '.' where nothing did; `others` are the
    places that hold the same names too, in full or in part.
    """

    tensors: dict[str, Tensor]
    key: str
    others: tuple[str, ...]
    rest: tuple[str, ...] = ()
    """Where what was missing there comes from: parts below another prefix, buffers that an average lacks."""
    redrawn: tuple[str, ...] = ()
    """The tensors of the head, left as the model has them, where the file's is for other classes or missing."""
    classes: int | None = None
    """How many the file's head is for where it was not taken; None where the file has none."""

    @property
    def told(self) -> str:
        """Which weights were taken, in words; '' where there is nothing to say."""
        told: list[str] = []
        if self.key != "." or self.others or self.rest:
            told.append(f"weights from {' and '.join(map(_quoted, (self.key, *self.rest)))}")
        if self.others:
            told.append(f"also there: {', '.join(map(_quoted, self.others))}")
        if self.redrawn:
            mine = len(self.tensors[self.redrawn[0]])
            there = "the file has none" if self.classes is None else f"the file has {self.classes} classes"
            model = "" if self.classes is None else f", the model {mine}"
            told.append(f"the head '{_layer(self.redrawn[0])}' is drawn anew: {there}{model}")
        return "; ".join(told)


def read_weights(path: Path | str, model: nn.Module, *, key: str | None = None, other_classes: bool = False) -> Weights:
    """The weights for `model` in a checkpoint: .safetensors, or what `torch.save` wrote of tensors, dicts and lists.

        model.load_state_dict(prunit.read_weights("last.ckpt", model).tensors)

    They may lie below keys and behind prefixes as trainers leave them (DDP, torch.compile, Lightning, averages): found
    is what fits the model by names and shapes. `key` says which where several different ones fit: a key or prefix as
    the error lists them ("state_dict_ema", "student"). Masks of torch.nn.utils.prune are applied. The model is left as
    it was; what a checkpoint may lack (counters of batch norm) is the model's own. Nothing is unpickled.

    With `other_classes` the file may be of the same network with another head: the one layer with another number of
    outputs, or the last one, which the file lacks. That stays as the model has it, see `Weights.redrawn`.

    Raises `FileError` for a file that is no checkpoint or fits nowhere, `ConfigError` where several fit and `key` does
    not say which, `UnknownNameError` for a key that is not there, and `ModelError` for values that are not finite.
    """
    path = Path(path)
    own = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    held = held_in(path)
    if not any(name.endswith("_orig") for name in own):
        held = masked(held)
    every = Fitting(own, held)
    storage = every.storage
    fit = _chosen(path, every, key)
    redrawn, classes = _other_head(fit, own, model) if other_classes else ((), None)
    if redrawn:
        headless = every.without(redrawn)
        rest_of_it = _chosen(path, headless, key)
        if rest_of_it.whole:
            every, fit = headless, rest_of_it
    if fit.missing or (fit.left and not (fit.beside and key == fit.key)):
        raise FileError(f"'{path}' does not fit {type(model).__name__}: {_misfit(fit, own)}")
    tensors = {name: dense(fit.found[name].tensor) for name in own if name in fit.found}
    bad = not_finite({".".join(fit.found[name].place): tensor for name, tensor in tensors.items()})
    if bad:
        raise ModelError(f"'{path}': {bad}; the training diverged: take an earlier checkpoint")
    by_storage = {storage[name]: tensor for name, tensor in tensors.items()}
    for name, tensor in own.items():
        tensors.setdefault(name, by_storage.get(storage[name], tensor.detach().clone()))
    inside = {".".join(held.place[:i]) or "." for held in fit.found.values() for i in range(len(held.place))}
    rest = tuple(".".join(root) or "." for root in fit.rest)
    others = {other.key for other in every.fits() if other.whole} | {*every.partial()} - inside
    return Weights(tensors, fit.key, tuple(sorted(others - {fit.key, *rest})), rest, redrawn, classes)


def _chosen(path: Path, every: Fitting, key: str | None) -> Fit:
    """The only fit, or the one that the key names; not whole where nothing fits."""
    fits = every.fits()
    if key is not None:
        exact = [fit for fit in fits if fit.key == key]
        asked = tuple(key.split("."))
        within = [held for held in every.held if through(held.place[:-1], asked)]
        if not exact and not within:
            raise _no_key(path, every, key)
        fits = exact or Fitting(every.own, within).fits()
        if not any(fit.whole for fit in fits) and not exact and (lent := every.with_buffers(asked)):
            fits = [lent]
    if not fits:
        missing = tuple(every.own)
        return Fit((), {}, missing, {}, tuple(every.held))
    if len(fits) > 1:
        fits = sorted(fits, key=lambda fit: fit.key)
        keys = ", ".join(_quoted(fit.key) for fit in fits)
        raise ConfigError(
            f"'{path}' holds {len(fits)} different sets of weights that fit the model: {keys}; say which with"
            f" --weights-key {fits[0].key} (in Python key={fits[0].key!r})"
        )
    return fits[0]


def _other_head(fit: Fit, own: Mapping[str, Tensor], model: nn.Module) -> tuple[tuple[str, ...], int | None]:
    """The tensors of the head if nothing else is missing, and how many classes it has in the file; () if it is not so.

    A head that the file holds in another shape is known by that; of one that it lacks, only its place tells.
    """
    layers = {_layer(name) for name in fit.missing}
    head = tuple(name for name in own if _layer(name) in layers)
    if len(layers) != 1 or set(head) != {*fit.missing}:
        return (), None
    (layer,) = layers
    module = dict(model.named_modules()).get(layer)
    if not isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return (), None
    if fit.odd:
        classes = _classes(fit, own) if set(fit.odd) == {*head} else None
        return (head, classes) if classes else ((), None)
    return (head, None) if layer == _layer([*own][-1]) else ((), None)


def _no_key(path: Path, every: Fitting, key: str) -> UnknownNameError:
    there = {fit.key for fit in every.fits()} | {*every.partial()} | {held.place[0] for held in every.held}
    return unknown(f"key in '{path}'", key, sorted(there)[:20])


def _misfit(fit: Fit, own: Mapping[str, Tensor]) -> str:
    """How much of the nearest fit is there, and what stands in the way."""
    where = "" if fit.key == "." else f" below {_quoted(fit.key)}"
    told = [f"{len(fit.found)} of its {len(own)} tensors are there{where} by name and shape"]
    missing = [name for name in fit.missing if name not in fit.odd]
    if fit.odd:
        shapes = [
            f"'{name}' has shape {tuple(held.tensor.shape)} in it and {tuple(own[name].shape)} in the model"
            for name, held in fit.odd.items()
        ]
        told.append(f"{_some(shapes)} (the shapes must be the dense ones, with zeros in them)")
    if missing:
        lacking = (f"'{name}' of shape {tuple(own[name].shape)}" for name in missing)
        told.append(f"it lacks {_some(lacking)}")
    if fit.left:
        left = (f"'{'.'.join(h.place[len(fit.root) :])}' of shape {tuple(h.tensor.shape)}" for h in fit.left)
        told.append(f"it has {_some(left)}, which the model lacks")
    if not fit.missing and fit.beside:
        told[-1] += f" (if that is no part of the network, take the rest with --weights-key {fit.key})"
    classes = None if missing or fit.left else _classes(fit, own)
    if classes:
        told[-1] += f": is it for {classes} classes? Then --classes {classes} (in Python num_classes={classes})"
        return "; ".join(told)
    return f"{'; '.join(told)}: is it of another model?"


def _classes(fit: Fit, own: Mapping[str, Tensor]) -> int | None:
    """How many outputs the one layer has that has another number of them in the file and is like the model's else."""
    layers = {_layer(name) for name in fit.odd}
    tails = {held.tensor.shape[1:] == own[name].shape[1:] for name, held in fit.odd.items()}
    heads = {(held.tensor.shape[:1], own[name].shape[:1]) for name, held in fit.odd.items()}
    if len(layers) != 1 or tails != {True} or len(heads) != 1:
        return None
    ((there, _),) = heads
    return there[0] if there else None


def _some(texts: Iterable[str]) -> str:
    all_of_them = list(texts)
    more = len(all_of_them) - _NAMED
    return ", ".join(all_of_them[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _quoted(key: str) -> str:
    return "the top" if key == "." else f"'{key}'"
