"""`Opener`: opens variants, each in the engine of its route; what is let down by it goes on in the default one."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

from prunit.edge import runtimes
from prunit.edge.install import Installed, install, place_of, ready
from prunit.edge.portfolio import Portfolio, Variant
from prunit.edge.routing import Router, router
from prunit.edge.session import Held, Runtime
from prunit.errors import PrunitError

Note = Callable[[str, str, str], None]
"""Called with the kind of an event, the variant ('' for all) and what happened."""


class Opener:
    """The engines of a portfolio folder; for several threads at once.

    `runtime` is one for all variants; None or `auto`: that of each variant's route. With `installed` variants are
    opened in the engine's own form, as far as `install` has made it. A variant that is opened in another engine than
    before, as that one let it down, is told as `rerouted`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        runtime: str | Runtime | None = None,
        threads: int = 1,
        cache: Path | None = None,
        installed: bool = True,
        note: Note = lambda kind, variant, why: None,
    ) -> None:
        self.place = place_of(folder, cache)
        self._folder, self._runtime, self._threads, self._cache, self._note = folder, runtime, threads, cache, note
        self._wanted = installed
        self._installed: Mapping[str, Installed] = {}
        """By the name of the engine."""
        self._tested: set[tuple[str, str]] = set()
        """Variants that passed their self-test, each with the engine."""
        self.router = Router()

    def look(self, portfolio: Portfolio) -> Router:
        """The routes as they are on disk now, for a portfolio; what does not fit is told. Nothing is changed.

        What was let down by its engine stays in the default one, unless it was measured anew.
        """
        now = router(self.place, self._runtime)
        fallen = (key for key in self.router.fallen if now.routes.get(key) == self.router.routes.get(key))
        now = replace(now, fallen=frozenset(fallen))
        for note in (*now.notes, now.unmeasured(portfolio)):
            if note:
                self._note("note", "", note)
        if now.threads not in (None, self._threads) and not now.notes:
            self._note(
                "note",
                "",
                f"routes were measured with {now.threads} thread(s), and {self._threads} are used: measure them so,"
                f" prunit bench DIR --engines all --threads {self._threads} --save",
            )
        return now

    def engine(self, variant: Variant) -> str:
        """The name of the engine in which a variant is to be opened."""
        return self.router.engine(variant)

    def install(self, portfolio: Portfolio) -> None:
        """Bring every variant into the form of its engine; without it, on a full disk say, the files themselves do."""
        if not self._wanted:
            return
        found: dict[str, Installed] = {}
        for name, (engine, variants) in by_engine(self.router, portfolio).items():
            try:
                found[name] = install(portfolio, self._folder, runtime=engine, cache=self._cache, only=variants)
            except PrunitError as error:
                self._note("install", "", str(error))
                continue
            for variant, reason in found[name].failed.items():
                self._note("note", variant, f"not installed: {reason}")
        self._installed = {**self._installed, **found}

    def open(self, variant: Variant, *, test: bool = False) -> Held:
        """A session in the variant's engine, else in the default one; with `test` after a self-test in any case.

        Raises what `ready` does, of the first engine.
        """
        first, *others = self.router.order(variant)
        try:
            return self._opened(variant, first, test=test)
        except PrunitError as error:
            if not others:
                raise
            failed = error
        held = self.otherwise(variant)
        if held is None:
            raise failed
        self.fall(variant, str(failed))
        return held

    def otherwise(self, variant: Variant) -> Held | None:
        """A session of a variant in the default engine, None where that is its own one or cannot run it."""
        _, *others = self.router.order(variant)
        for engine in others:
            try:
                return self._opened(variant, engine, test=False)
            except PrunitError:
                continue
        return None

    def fall(self, variant: Variant, why: str) -> None:
        """From now on the variant is opened in the default engine: its own one let it down."""
        before = self.engine(variant)
        self.router = self.router.falling(variant)
        now = self.engine(variant)
        if now != before:
            self._note("rerouted", variant.name, f"it goes on in {now}; in {before}: {why}")

    def forget(self, variant: Variant) -> None:
        """Test it anew, in the engine of its route: it was repaired, say."""
        self.router = self.router.standing(variant)
        self.keep({name for name, _ in self._tested if name != variant.name})

    def keep(self, names: Collection[str]) -> None:
        """Variants of other names were not tested: they are others now."""
        self._tested = {tested for tested in self._tested if tested[0] in names}

    def _opened(self, variant: Variant, engine: str | Runtime, *, test: bool) -> Held:
        name = engine if isinstance(engine, str) else engine.name
        session, note = ready(
            *(variant, self._folder),
            runtime=engine,
            threads=self._threads,
            place=self.place,
            installed=self._installed.get(name),
            test=test or (variant.name, name) not in self._tested,
        )
        if note:
            self._note("note", variant.name, note)
        self._tested.add((variant.name, name))
        return Held(variant, session, name)


def by_engine(router: Router, portfolio: Portfolio) -> dict[str, tuple[str | Runtime, list[str]]]:
    """The engines that variants of a portfolio run in, each with their names; the default one first, if any does."""
    found: dict[str, tuple[str | Runtime, list[str]]] = {}
    for variant in portfolio.variants:
        engine, name = router.order(variant)[0], router.engine(variant)
        found.setdefault(name, (engine, []))[1].append(variant.name)
    return dict(sorted(found.items(), key=lambda each: each[0] != runtimes.DEFAULT))
