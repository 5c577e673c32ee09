"""Evaluation and training mode: how a model is put into one, for models that do something of their own then too."""

import ast
import inspect
import textwrap
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from types import FunctionType

from torch import nn


def sets_mode(module: nn.Module) -> bool:
    """Whether its class, or it itself, has a `train` or `eval` of its own."""
    kind = type(module)
    return kind.train is not nn.Module.train or kind.eval is not nn.Module.eval or "train" in module.__dict__


def any_sets_mode(modules: Iterable[nn.Module]) -> bool:
    """Whether some of these do."""
    modules = list(modules)
    kinds = {type(m) for m in modules}
    own = any([k.train is not nn.Module.train or k.eval is not nn.Module.eval for k in kinds])
    return own or any(["train" in m.__dict__ for m in modules])


def set_mode(model: nn.Module, modules: Iterable[nn.Module], training: bool) -> None:
    """Put a model and all its `modules` into a mode, by its own `train` or `eval` where there is one.

    Those may keep some layers in evaluation mode, or note elsewhere what to return. Called without need they would only
    take time, as nn.Module is slow to set an attribute.
    """
    modules = list(modules)
    if any_sets_mode(modules):
        with suppress(NotImplementedError):  # of an exported model, whose modules have flags but one graph for both
            model.train() if training else model.eval()
            return
    set_flags(modules, training)


def set_flags(modules: Iterable[nn.Module], training: bool) -> None:
    """As `set_mode`, and nothing that belongs to the model runs."""
    for module in modules:
        if module.training != training:
            module.training = training


@lru_cache(1 << 10)
def only_hands_on(function: FunctionType, words: frozenset[str], takers: frozenset[str]) -> bool:
    """Whether the code of a function uses these words only to tell `takers`: `F.dropout(x, p, self.training)`.

    False where its source is not at hand.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function.__code__)))  # itself, not what it wraps
    except (OSError, TypeError, SyntaxError):
        return False
    handed_on = {
        id(value)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and _word(call.func) in takers
        for value in (*call.args, *(k.value for k in call.keywords))
    }
    return all(id(node) in handed_on for node in ast.walk(tree) if _word(node) in words)


def _word(node: ast.AST) -> object:
    """The name at the end of a dotted one, or a text."""
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name) | ast.Constant(value=str(name)):
            return name
    return None
