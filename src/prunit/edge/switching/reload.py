"""A `Switcher` whose folder may change while it answers: new variants are verified, then used; a bad one is refused."""

import time
from collections.abc import Callable

from prunit.edge.portfolio import MANIFEST, Portfolio, Variant, file_problem
from prunit.edge.session import Held
from prunit.edge.switching.switch import Switcher
from prunit.edge.switching.wishes import Wish
from prunit.errors import PortfolioError, PrunitError


def _held_in(held: Held | None, engine: str) -> bool:
    """Whether a variant that is open is so in this engine; one that is not will be."""
    return held is None or held.engine == engine


class ReloadingSwitcher(Switcher):
    """As `Switcher`; `reload` takes the manifest as it is now."""

    _seen: tuple[int, int, int] | None = None

    def changed(self) -> bool:
        """Whether the manifest is another file than at the last look; the first look sees no change."""
        try:
            status = (self.folder / MANIFEST).stat()
        except OSError:  # it is being exchanged
            return False
        now = (status.st_mtime_ns, status.st_size, status.st_ino)
        before, self._seen = self._seen, now
        return before is not None and before != now

    def reload(self, usable: Callable[[Variant], str] = lambda variant: "") -> Portfolio:
        """The portfolio from now on. What is new or changed is opened and self-tested before any request meets it.

        A variant that is refused is left out with an event; where it replaces one that is open, the old one goes on.
        `usable` may give a reason against a variant. Requests go on meanwhile, and end on the variant on which they
        began. Raises `PortfolioError`, and changes nothing, if the manifest cannot be read or not one of its variants
        can be used.
        """
        wanted = self._read(self.folder)
        router, old_router = self._opener.look(wanted), self._opener.router
        wanted = router.overlaid(wanted)
        before = {variant.name: variant for variant in self.portfolio.variants}
        own = self.portfolio.variant(self.active).artifact
        kept: list[Variant] = []
        fresh: list[Variant] = []
        for variant in wanted.variants:
            old = before.get(variant.name)
            with self._lock:
                held = self._held.get(variant.name)
            if old is not None and old.artifact == variant.artifact and _held_in(held, router.engine(variant)):
                kept.append(variant)
                continue
            wrong = usable(variant) or file_problem(self.folder, variant.artifact.path, None, variant.artifact.sha256)
            if wrong := wrong or own.unlike(variant.artifact):
                self._refuse(variant, wrong)
                kept += [old] if old is not None and old.name in self.residents else []
            else:
                fresh.append(variant)
        self._opener.router = router
        self._opener.install(wanted.model_copy(update={"variants": (*kept, *fresh)}))
        opened = self._tried(fresh, kept, before)
        accepted = wanted.model_copy(update={"variants": tuple(kept)})
        if not any(variant.name not in self.failed or variant.name in opened for variant in kept):
            for held in opened.values():
                held.session.close()
            self._opener.router = old_router
            raise PortfolioError(f"of the new manifest in '{self.folder}' no variant can be used; the old one goes on")
        self._adopt(accepted, opened)
        self._note("reloaded", "", f"{len(kept)} variants, {len(opened)} of them new")
        with self._work:
            self._work.notify()
        return accepted

    def _tried(self, fresh: list[Variant], kept: list[Variant], before: dict[str, Variant]) -> dict[str, Held]:
        """Sessions of the fresh variants that pass their self-test, which join what is kept."""
        opened: dict[str, Held] = {}
        for variant in fresh:
            try:
                opened[variant.name] = self._opener.open(variant, test=True)
            except PrunitError as error:
                self._refuse(variant, str(error))
                kept += [before[variant.name]] if variant.name in self.residents else []
                continue
            kept.append(variant)
        return opened

    def _refuse(self, variant: Variant, reason: str) -> None:
        self._note("refused", variant.name, reason)

    def _adopt(self, accepted: Portfolio, opened: dict[str, Held]) -> None:
        """Under the lock: another portfolio, with these sessions beside those that stay."""
        with self._lock:
            names = {variant.name for variant in accepted.variants}
            self.portfolio = accepted
            for name in [name for name in self._held if name in opened or name not in names]:
                self._retired.append(self._held.pop(name))
            self._held.update(opened)
            self._opener.keep(names)
            self._failed = {name: why for name, why in self._failed.items() if name in names and name not in opened}
            active = self._active.variant.name
            if self._held.get(active) is not self._active:
                held = self._held.get(active) or next(
                    (self._held[v.name] for v in self._by_accuracy() if v.name in self._held), None
                )
                if held is None:  # the active one is gone, and no other is open: it goes on until one is
                    self._retired.remove(self._active)
                    self._held[active] = self._active
                else:
                    self._activate(held, Wish(held.variant.name, time.perf_counter_ns(), "the portfolio was exchanged"))
        for name in opened:
            self._journal.forget(name)
