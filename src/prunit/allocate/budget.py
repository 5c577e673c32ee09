"""What the result may cost: parsed from what a user writes, measured against a graph."""

import copy
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

from prunit.allocate.constraints import Constraints
from prunit.costs import Cost, CostModel, cost_model
from prunit.errors import BudgetError, ConfigError, unknown
from prunit.graph import ChannelGraph

KEYS: Final[Mapping[str, str]] = {
    "params": "params",
    "macs": "macs",
    "weights": "weight_bytes",
    "activations": "activation_bytes",
}
"""What a budget may limit, and the figure of `Cost` that it limits."""

_UNITS: Final = {
    "count": {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9},
    "bytes": {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30},
}
_HOW = "write a share of the dense cost (1/16, 0.25, 25%, 16x) or an amount (macs=20M, weights=500KB)"


@dataclass(frozen=True)
class Limit:
    """The most that one figure may be: a share of the dense cost, or an amount in elements, macs or bytes."""

    key: str
    text: str
    share: float | None = None
    amount: float | None = None

    def of(self, dense: Cost) -> int:
        """The limit as an amount, for a model that costs `dense` unpruned."""
        if self.share is None:
            assert self.amount is not None
            return int(self.amount)
        return math.floor(_simple(self.share) * dense.as_dict()[KEYS[self.key]])

    def share_of(self, dense: Cost) -> float:
        """The share of the dense cost that the limit leaves, at most 1."""
        return min(1.0, self.of(dense) / max(dense.as_dict()[KEYS[self.key]], 1))

    def __str__(self) -> str:
        return f"{self.key}={self.text}"


@dataclass(frozen=True)
class Budget:
    """All limits hold at once."""

    limits: tuple[Limit, ...]

    @staticmethod
    def parse(what: "Budget | str | Mapping[str, float | str] | Iterable[str]") -> "Budget":
        """The budget in `"params=1/16"`, `"params=1/16,macs=20M"`, a list of such, or `{"params": 1/16}`.

        As a number, up to 1 is a share and more than 1 an amount. Raises `ConfigError`, or `UnknownNameError` for a
        key that does not exist.
        """
        if isinstance(what, Budget):
            return what
        if isinstance(what, str):
            what = [what]
        if isinstance(what, Mapping):
            pairs = list(what.items())
        elif isinstance(what, Iterable):
            pairs = [_pair(part) for text in what for part in str(text).split(",")]
        else:
            raise ConfigError(f'a budget says what it limits, {{"params": {what}}} for example; got {what!r} alone')
        if not pairs:
            raise ConfigError(f"the budget is empty: {_HOW}")
        limits = tuple(_limit(key.strip(), value) for key, value in pairs)
        keys = [limit.key for limit in limits]
        for key in keys:
            if keys.count(key) > 1:
                raise ConfigError(f"budget {', '.join(map(str, limits))} limits '{key}' twice")
        return Budget(limits)

    def __str__(self) -> str:
        return ",".join(map(str, self.limits))

    @property
    def as_dict(self) -> dict[str, str]:
        """Limits as the user wrote them, by key."""
        return {limit.key: limit.text for limit in self.limits}

    def tightest_share(self, dense: Cost) -> float:
        """The smallest share of the dense cost that any limit leaves, at most 1."""
        return min((limit.share_of(dense) for limit in self.limits), default=1.0)


class Target:
    """A budget on a graph: which widths meet it, and which each group may have.

    `graph` has those groups pinned that the constraints keep whole; `allowed` is what they leave to the others, `floor`
    and `ceiling` its least and its most widths. Raises `ConfigError` or `UnknownNameError` for constraints that the
    graph cannot fulfil.
    """

    def __init__(self, graph: ChannelGraph, budget: Budget, constraints: Constraints | None = None) -> None:
        self.constraints = constraints or Constraints()
        self.graph, self.budget = self.constraints.pinned(graph), budget
        self.allowed = self.constraints.resolve(self.graph)
        self.model: CostModel = cost_model(graph)
        self.dense = self.model.at(graph.sizes)
        self.most = {KEYS[limit.key]: limit.of(self.dense) for limit in budget.limits}

    @property
    def floor(self) -> np.ndarray:
        """The narrowest widths."""
        return self.allowed.least

    @property
    def ceiling(self) -> np.ndarray:
        """The widest widths: the dense ones, where no constraint asks for less."""
        return self.allowed.most

    def keeping(self, names: Iterable[str], reason: str) -> "Target":
        """The same target with these groups as wide as they may be: pinned for this reason, if that is whole."""
        chosen = set(names)
        target = copy.copy(self)
        kept = np.array([group.name in chosen for group in self.graph.groups], dtype=bool)
        target.allowed = self.allowed.widest(kept)
        whole = kept & (self.ceiling == self.graph.sizes)
        target.graph = self.graph.pin([g.name for g, yes in zip(self.graph.groups, whole, strict=True) if yes], reason)
        return target

    def met_by(self, widths: np.ndarray) -> bool:
        """The cost at these widths is within every limit."""
        cost = self.model.at(widths).as_dict()
        return all(cost[name] <= most for name, most in self.most.items())

    def check_reachable(self) -> None:
        """Raise `BudgetError` if even the narrowest widths cost more."""
        if self.met_by(self.floor):
            return
        cost = self.model.at(self.floor).as_dict()
        dense = self.dense.as_dict()
        worst = [limit for limit in self.budget.limits if cost[KEYS[limit.key]] > self.most[KEYS[limit.key]]]
        parts = [
            f"{limit} asks for at most {self.most[KEYS[limit.key]]:,} of {dense[KEYS[limit.key]]:,}; "
            f"the closest reachable is {cost[KEYS[limit.key]]:,}"
            for limit in worst
        ]
        asked = f" ({self.constraints})" if str(self.constraints) else ""
        pinned = [f"'{g.name}' ({g.pinned})" for g in self.graph.groups if g.pinned]
        why = f"; whole groups: {', '.join(pinned[:4])}{', …' if len(pinned) > 4 else ''}" if pinned else ""
        raise BudgetError(
            f"budget cannot be met: {'; '.join(parts)}, with every free group at its minimum width{asked}{why}",
            closest={k: float(v) for k, v in cost.items()},
        )


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not value.strip():
        raise ConfigError(f"budget '{text}' is not KEY=LIMIT: {_HOW}")
    return key, value


def _limit(key: str, value: float | str) -> Limit:
    if key not in KEYS:
        raise unknown("budget key", key, KEYS)
    text = str(value).strip()
    share, amount = _share_or_amount(key, text, is_number=not isinstance(value, str))
    if share is not None and not 0 < share <= 1:
        raise ConfigError(f"budget {key}={text} is not a share of the dense cost between 0 and 1: {_HOW}")
    if amount is not None and not 1 <= amount < math.inf:
        raise ConfigError(f"budget {key}={text} is not an amount of at least 1: {_HOW}")
    if not isinstance(value, str) and share is not None and _simple(share).denominator <= 4096:
        text = str(_simple(share))
    return Limit(key, text, share, amount)


def _simple(share: float) -> Fraction:
    """The simple fraction that the share was meant to be (1/3 for 0.3333333333333333), else its exact value."""
    near = Fraction(share).limit_denominator(1_000_000)
    return near if math.isclose(near, share, rel_tol=1e-15) else Fraction(share)


def _share_or_amount(key: str, text: str, *, is_number: bool) -> tuple[float | None, float | None]:
    match = re.fullmatch(r"(-?[0-9.]+(?:e[+-]?[0-9]+)?)\s*(?:/\s*([0-9.]+)|(%|x|×|[a-z]*))", text.lower())
    if match is None:
        raise ConfigError(f"budget {key}={text} is not a number: {_HOW}")
    try:
        number, divisor, unit = float(match[1]), match[2], match[3] or ""
        if divisor:
            return number / float(divisor), None
        if unit == "%":
            return number / 100, None
        if unit in ("x", "×"):
            return 1 / number, None
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"budget {key}={text} is not a number: {_HOW}") from error
    if not unit and number <= 1:
        return number, None
    units = _UNITS["bytes" if KEYS[key].endswith("_bytes") else "count"]
    if unit not in units:
        raise ConfigError(f"budget {key}={text}: unknown unit '{unit}', known are {', '.join(u for u in units if u)}")
    return None, number * units[unit]
