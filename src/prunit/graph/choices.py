"""What a forward pass leaves open, and which reading of it holds when channels go.

The tracer sees `view(B, 2, 32, H, W)` and `split(x, 16, 1)` as plain numbers. Whether the code takes them from a
shape, from an attribute or writes them out shows only when the model is narrower. So each such operator has a few
*readings*, the likeliest first and "pinned" last. The tracer takes the first; `probe.first_difference` then runs the
model on meta tensors with channels missing. Where that run departs from what the reading predicts, the next
reading is taken.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from prunit.graph.code import Numbers

Key = tuple[str, str]
"""A module's path, and what is read there: 'view', 'part', 'fill', 'operator NAME'."""


COMPARED = "compared"
"""Said of a module: `assert x.shape[1] == self.channels`."""


class Site(NamedTuple):
    """An operator that has several readings: which one was taken, of how many, for which channel ids."""

    step: int
    key: Key
    kind: str
    taken: int
    readings: int
    ids: np.ndarray

    @property
    def open(self) -> bool:
        """There is a further reading."""
        return self.taken < self.readings - 1


class Choices:
    """The reading taken at each place; `next_at` moves on to the next one."""

    def __init__(self, taken: Iterable[tuple[str, str, int]] = ()) -> None:
        self._taken: dict[Key, int] = {(module, what): n for module, what, n in taken}
        self._avoided = {module for module, what in self._taken if what.startswith("operator ")}
        self._fallen: Counter[tuple[str, str]] = Counter()
        self.lines: dict[Key, str] = {}
        """The user's line of code that an operator was avoided for, as ' at FILE:LINE `CODE`'."""
        self.settings: Callable[[str], object] = str
        """What the code of the module at a path may depend on, to be compared; as it is, no two modules are alike."""
        self.cautious = False
        """Take the last reading, 'pinned', everywhere: for a model that cannot be run on meta tensors."""

        self.sure: int | None = None
        """Of a model that looks at values: up to this step it runs on meta tensors, if it is told what it saw. From
        there on the last reading is taken. None: all of it does."""
        self.looking: frozenset[str] = frozenset()
        """Modules whose own code looks at values: in those, too."""
        self.decided: frozenset[str] = frozenset()
        """Modules that run after the first look or, where layers do, all of them. What runs may depend on values, and
        there is no mask for a model that computes over all channels and takes another way."""

    def __getitem__(self, key: Key) -> int:
        return self._taken.get(key, 0)

    @property
    def any_taken(self) -> bool:
        """Whether anything is read in another way than the first."""
        return bool(self._taken)

    def as_tuple(self) -> tuple[tuple[str, str, int], ...]:
        """All readings other than the first ones, as plain data."""
        return tuple((*key, n) for key, n in sorted(self._taken.items()) if n)

    def avoided(self, module: str, operator: str) -> str | None:
        """The line for which this operator, or all of them, is avoided in this module; None if it is not."""
        for what in (f"operator {operator}", "operator *") if module in self._avoided else ():
            if self[module, what]:
                return self.lines.get((module, what), "")
        return None

    def drop(self, key: Key) -> bool:
        """Take this attribute for no size any more; False if that is so already."""
        place = (key[0], f"attribute {key[1]}")
        known = self[place] > 0
        self._taken[place] = 1
        return not known

    def compare(self, module: str) -> bool:
        """Let attributes of this module follow the channels of its inputs; False if that is so already."""
        known = self[module, COMPARED] > 0
        self._taken[module, COMPARED] = 1
        return not known

    def avoid(self, step: "Step", operator: str, line: str, steps: list["Step"]) -> bool:
        """Pin what this operator touches in the step's module; False if that is so already.

        If this has come to pass in another instance of the same class, in all of them.
        """
        what = f"operator {operator}"
        if self[step.module, what]:
            return False
        alike = {s.module for s in steps if s.kind == step.kind} if self._again(step.kind, what) else set()
        for module in {step.module, *alike}:
            self._taken[module, what] = 1
            self._avoided.add(module)
            self.lines.setdefault((module, what), line)
        return True

    def next_at(self, site: Site, sites: Iterable[Site], as_wrong: Iterable[Site] = ()) -> bool:
        """Take the next reading at `site`, and at the other places of its module that are read alike.

        Instances of one class share their code, so the others start from the same reading unless they were moved on
        already; from the last one, pinned, if two of them had to come to that. Those of them that are `as_wrong`, and
        stand where this one stood, go on with it. False if there is no further reading.
        """
        if not site.open:
            return False
        at, to = site.taken, site.taken + 1
        self._taken[site.key] = to
        if to < site.readings - 1 or self._again(site.kind, site.key[1]):
            for other in sites:
                if other.kind == site.kind and other.key[1] == site.key[1]:
                    self._taken.setdefault(other.key, to)
        for other in as_wrong:
            if other.kind == site.kind and other.key[1] == site.key[1] and other.taken == at:
                self._taken[other.key] = to
        return True

    def _again(self, kind: str, what: str) -> bool:
        """Whether this has come to pass in modules of that class before."""
        self._fallen[kind, what] += 1
        return self._fallen[kind, what] > 1


class Difference(NamedTuple):
    """The step at which a narrower model departs from the prediction, in which module, on which line of the user's."""

    step: int
    module: str
    line: str


def next_reading(
    choices: Choices, sites: list[Site], steps: list["Step"], attributes: Iterable[Key], found: Difference
) -> bool:
    """Change the choices so that what went wrong is read otherwise; False if nothing is left to try.

    First the operator itself, then what was read before it in the same module, the latest first. Then attributes that
    count the channels of the module's inputs are taken for sizes that follow them, as its code may compare the two; and
    then no `attributes` (module, name) of that module are any more. If that has all been tried, whatever the operator
    touches is pinned, then all that its module does.
    """
    step = steps[min(found.step, len(steps) - 1)]
    at = [s for s in sites if s.step == found.step]
    before = [s for s in reversed(sites) if s.step <= found.step and s.key[0] == found.module]
    twins = _twins(choices, sites, steps, at + before)
    if any(choices.next_at(site, sites, twins) for site in at + before):
        return True
    if found.line and choices.compare(found.module):
        return True
    if any(choices.drop(key) for key in attributes if key[0] == found.module):
        return True
    if step.module != found.module:  # the code between two operators: of what went in, nothing may change
        step = next((s for s in steps if s.module == found.module), step)._replace(module=found.module)
        return choices.avoid(step, "*", found.line, steps)
    return any(choices.avoid(step, operator, found.line, steps) for operator in (step.name, "*"))


def _twins(choices: Choices, sites: list[Site], steps: list["Step"], wrong: list[Site]) -> list[Site]:
    """The places in modules of which the code is set alike and does the same, with the same numbers and shapes.

    What a narrower model departs at in one of them it would depart at in the others, one run after another.
    """
    if not any(site.open for site in wrong):
        return []
    kinds = {site.kind for site in wrong if site.open}
    ran: dict[str, list[Any]] = {}
    for step in steps:
        if step.kind in kinds:
            ran.setdefault(step.module, []).append((step.name, step.numbers, [shape for shape, _ in step.outputs]))
    found: dict[str, tuple[object, Any]] = {module: (choices.settings(module), done) for module, done in ran.items()}
    alike = [found[module] for module in {site.key[0] for site in wrong} if module in found]
    return [site for site in sites if site.key[0] in found and found[site.key[0]] in alike]


class Step(NamedTuple):
    """One operator of the traced forward pass: its numbers, and the shapes that came out with the ids along them."""

    operator: object
    name: str
    module: str
    kind: str
    """The module's class."""
    numbers: Numbers
    outputs: tuple[tuple[tuple[int, ...], tuple[tuple[int, np.ndarray], ...]], ...]
    seen: Any = None
    """Where the operator shows values to the code: the value, or the dtype of a tensor whose shape depends on them."""


def read_otherwise(
    choices: Choices, sites: list[Site], steps: list["Step"], rejected: list[np.ndarray], classes: np.ndarray
) -> bool:
    """Take another reading for channels that were rejected, if there is one: at the first place that they come from.

    `classes` has the class of every id. Of alike places in other modules those go along that come first there; to the
    last reading only those that run alike, since for others it may be a place further on that has to change.
    """
    if not rejected:
        return False
    bad = np.zeros(int(classes.max()) + 1, bool)
    bad[classes[np.concatenate([ids.reshape(-1) for ids in rejected])]] = True
    bad[0] = False
    found = [s for s in sites if s.open and bad[classes[s.ids]].any()]
    if not found:
        return False
    first = list({site.key[0]: site for site in reversed(found)}.values())
    last = found[0].taken + 1 == found[0].readings - 1
    return choices.next_at(found[0], sites, _twins(choices, first, steps, found[:1]) if last else first)
