"""`Switcher`: answers with the active variant, and makes another one active without losing a request.

The next variant is opened, tested against its stored output and warmed in a thread of its own; then one assignment
makes it the active one. A request is answered by the variant that was active when it came, to the end. A variant that
cannot be opened, fails its self-test or fails on a request that others answer goes on in the default engine if its own
was another one; else it is put aside with its reason, and the last good one goes on.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from prunit.edge.install import place_of
from prunit.edge.portfolio import Portfolio, Variant
from prunit.edge.session import Answer, Array, Held, Runtime, outputs_of
from prunit.edge.switching.events import LOG, Event, Journal
from prunit.edge.switching.holding import Holding
from prunit.edge.switching.opening import Opener
from prunit.edge.switching.wishes import Wish
from prunit.errors import ConfigError, DataError, DeviceError, PrunitError


def _reason(error: Exception) -> str:
    return f"failed on a request: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _overtaken(name: str) -> DeviceError:
    return DeviceError(f"a switch to '{name}' was asked for before this one was over")


class Switcher(Holding):
    """The variants of a portfolio folder behind one `run`.

    `resident` is how many variants stay open at most (None: all that were used; 1: the active one, and the next while
    it is opened); `memory_bytes` limits what they take by the manifest's figures. With `installed` variants are brought
    into the engine's own form first (see `install`). `start` is the first variant, else it is the most accurate one.
    `runtime` is the engine of all variants but those that run in one alone; None or `auto`: each runs in that of its
    route (`prunit.edge.routing`), and `portfolio` has the figures that were measured in it here. `read` gives the
    portfolio in a folder.

    Raises `PortfolioError` or `FileError` if not a single variant can be opened. It is for several threads at once.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        start: str | None = None,
        runtime: str | Runtime | None = None,
        threads: int = 1,
        resident: int | None = None,
        memory_bytes: int | None = None,
        installed: bool = True,
        cache: Path | None = None,
        on_event: Callable[[Event], None] | None = None,
        read: Callable[[Path], Portfolio] = Portfolio.read,
    ) -> None:
        self.folder, self._read = Path(folder), read
        portfolio = read(self.folder)
        if not portfolio.variants:
            raise ConfigError(f"the portfolio in '{folder}' has no variant")
        super().__init__(resident, memory_bytes, Journal(place_of(self.folder, cache) / LOG, on_event))
        self._failed: dict[str, str] = {}
        self._work = threading.Condition()
        self._wish: Wish | None = None
        self._latest: Wish | None = None
        """The last wish of all: an older one that is fulfilled later changes nothing."""
        self._closing = False
        self._opener = Opener(
            *(self.folder,), runtime=runtime, threads=threads, cache=cache, installed=installed, note=self._told
        )
        self._opener.router = self._opener.look(portfolio)
        self.portfolio = self._opener.router.overlaid(portfolio)
        self._check_shapes()
        self._opener.install(self.portfolio)
        self._active = self._first(start)
        self._thread = threading.Thread(target=self._serve_wishes, name="prunit-switcher", daemon=True)
        self._thread.start()

    # ── answering ──

    @property
    def active(self) -> str:
        """The variant that answers what comes now."""
        return self._active.variant.name

    def run(self, x_BCHW: Array, variant: str | None = None, /) -> Answer:
        """The answer of the active variant to a batch, or of the one that is named, which is opened if need be.

        If the active variant fails, another one answers the same batch. Raises `DataError` for a batch that no variant
        takes, `DeviceError` once no variant is left, or if the named one was put aside or fails.
        """
        held = self._taken() if variant is None else self._taken_by_name(variant)
        try:
            return Answer(outputs_of(held.session, x_BCHW), held.variant.name, held.engine)
        except DataError:
            raise
        except Exception as error:  # whatever an engine throws
            failed = error
        finally:
            self._given_back(held)
        answer = self._in_another_engine(held, x_BCHW, failed)
        if answer is not None:
            return answer
        if variant is not None:
            raise DeviceError(f"'{variant}' failed on a request: {type(failed).__name__}") from failed
        return self._by_another(held, x_BCHW, failed)

    def attempt(self, x_BCHW: Array, variant: str | None = None, /) -> Answer | None:
        """As `run`, if that only has to compute; None of a variant that is not open or fails: `run` sees to that."""
        with self._lock:
            held = self._active if variant is None else self._held.get(variant)
            if held is None or self._closing:
                return None
            held.users += 1
        try:
            return Answer(outputs_of(held.session, x_BCHW), held.variant.name, held.engine)
        except Exception:  # whatever an engine throws
            return None
        finally:
            self._given_back(held)

    def _taken(self) -> Held:
        with self._lock:
            if self._closing:
                raise DeviceError("the switcher is closed: it answers no more")
            self._active.users += 1
            return self._active

    def _taken_by_name(self, name: str) -> Held:
        variant = self.portfolio.variant(name)
        with self._lock:
            reason = "the switcher is closed" if self._closing else self._failed.get(name)
            opened = name in self._held
        if reason:
            raise DeviceError(f"'{name}' cannot answer: {reason}")
        held = self._open(variant, users=1)
        if not opened:  # the limits may have been passed
            with self._work:
                self._work.notify()
        return held

    def _given_back(self, held: Held) -> None:
        with self._lock:
            held.users -= 1

    def _in_another_engine(self, failed: Held, x_BCHW: Array, error: Exception) -> Answer | None:
        """The answer of the same variant in the default engine, in which it goes on; None where that gives none."""
        variant = failed.variant
        if self._opener.engine(variant) != failed.engine:  # another request has found it out before
            try:
                held = self._open(variant)
            except PrunitError:
                return None
        else:
            held = self._opener.otherwise(variant)
        if held is None or held is failed:
            return None
        with self._lock:
            held.users += 1
        try:
            outputs = outputs_of(held.session, x_BCHW)
        except Exception:  # then it is not the engine's fault
            outputs = None
        with self._lock:
            held.users -= 1
            if self._held.get(variant.name) is failed and outputs is not None:
                self._held[variant.name] = held
                self._retired.append(failed)
                self._active = held if self._active is failed else self._active
            elif self._held.get(variant.name) is not held:
                self._retired.append(held)
        with self._work:
            self._work.notify()
        if outputs is None:
            return None
        self._opener.fall(variant, _reason(error))
        return Answer(outputs, variant.name, held.engine)

    def _by_another(self, failed: Held, x_BCHW: Array, error: Exception) -> Answer:
        """The answer of the best variant that is left, which becomes the active one; the failed one is put aside."""
        reason = _reason(error)
        others = [v for v in self._by_accuracy() if v.name != failed.variant.name and v.name not in self._failed]
        # Open ones first: the request waits.
        for variant in sorted(others, key=lambda v: v.name not in self._held):
            try:
                held = self._open(variant, users=1)
            except PrunitError as problem:
                self._put_aside(variant.name, str(problem))
                continue
            try:
                outputs = outputs_of(held.session, x_BCHW)
            except Exception:  # if nobody can answer it is the request's fault
                self._given_back(held)
                continue
            with self._lock:
                held.users -= 1
                if self._active is failed:
                    self._active = held
            self._put_aside(failed.variant.name, reason)
            self._note("switched", variant.name, f"'{failed.variant.name}' failed", engine=held.engine)
            return Answer(outputs, variant.name, held.engine)
        if not others:
            raise DeviceError(f"'{failed.variant.name}' {reason}; no other variant is left") from error
        raise DeviceError(f"no variant answers this batch of shape {x_BCHW.shape}; '{failed.variant.name}' {reason}")

    # ── switching ──

    def switch(self, name: str, *, why: str = "") -> Wish:
        """Make a variant the active one: at once if it is open, else as soon as it is; requests go on meanwhile.

        A newer wish takes the place of one that waits. `why` goes into the event; whether it succeeded is in the wish.
        Raises `UnknownNameError` for a variant that does not exist.
        """
        self.portfolio.variant(name)
        wish = Wish(name, time.perf_counter_ns(), why)
        reason = self._failed.get(name)
        if reason:
            wish.end(error=DeviceError(f"'{name}' was put aside: {reason}"))
            return wish
        with self._lock:
            held, self._latest = self._held.get(name), wish
            if held is not None:
                self._activate(held, wish)
        with self._work:
            if self._wish:
                self._wish.end(error=_overtaken(name))
            self._wish = None if held is not None else wish
            self._work.notify()
        return wish

    def _activate(self, held: Held, wish: Wish) -> None:
        """Under the lock: the swap itself is one assignment."""
        before, self._active = self._active, held
        if held.variant.name in self._held:
            self._held.move_to_end(held.variant.name)
        ms = (time.perf_counter_ns() - wish.asked_ns) / 1e6
        wish.end(ms=ms)
        if before is not held:
            self._note("switched", held.variant.name, wish.why or f"from '{before.variant.name}'", ms, held.engine)

    def _serve_wishes(self) -> None:
        while True:
            with self._work:
                if self._wish is None and not self._closing:
                    self._work.wait(0.02 if self._retired else None)
                wish, self._wish = self._wish, None
                if self._closing:
                    if wish:
                        wish.end(error=DeviceError("the switcher was closed"))
                    return
            if wish is not None:
                self._fulfil(wish)
            self._evict()

    def _fulfil(self, wish: Wish) -> None:
        variant = self.portfolio.variant(wish.variant)
        started = time.perf_counter_ns()
        try:
            held = self._open(variant)
        except PrunitError as error:
            self._put_aside(variant.name, str(error))
            wish.end(error=error)
            return
        self._note("loaded", variant.name, ms=(time.perf_counter_ns() - started) / 1e6, engine=held.engine)
        with self._lock:
            latest = self._latest
            if latest is wish:
                self._activate(held, wish)
        if latest is not wish and latest is not None:
            wish.end(error=_overtaken(latest.variant))

    def _open(self, variant: Variant, *, users: int = 0) -> Held:
        """The held session of a variant, or a new one, tested and warm, that is held from now on.

        `users` are counted as if they were answered already: a session that has some is not closed.
        """
        with self._lock:
            if variant.name in self._held:
                held = self._held[variant.name]
                held.users += users
                return held
        new = self._opener.open(variant)
        with self._lock:
            held = self._held.setdefault(variant.name, new)
            held.users += users
        if held is not new:  # another thread was faster
            new.session.close()
        return held

    # ── what stays open ──

    def engine(self, variant: Variant) -> str:
        """The name of the engine in which a variant is open, or would be opened."""
        with self._lock:
            held = self._held.get(variant.name)
        return held.engine if held is not None else self._opener.engine(variant)

    def preload(self, *names: str) -> None:
        """Open variants now, all without names, as far as the limits allow: later switches to them open nothing."""
        for variant in [self.portfolio.variant(n) for n in names] or self._by_accuracy():
            if variant.name in self._failed or not self._room_for(variant):
                continue
            try:
                self._open(variant)
            except PrunitError as error:
                self._put_aside(variant.name, str(error))
        with self._work:
            self._work.notify()

    # ── what went wrong, and what happened ──

    @property
    def failed(self) -> dict[str, str]:
        """Variants that were put aside, with the reason."""
        with self._lock:
            return dict(self._failed)

    def retry(self, name: str) -> None:
        """Let a variant that was put aside be tried again: its file was copied anew, say."""
        variant = self.portfolio.variant(name)
        with self._lock:
            self._failed.pop(name, None)
            self._opener.forget(variant)
        self._journal.forget(name)

    def _put_aside(self, name: str, reason: str) -> None:
        with self._lock:
            self._failed.setdefault(name, reason)
            held = self._held.pop(name, None)
            if held is not None:
                self._retired.append(held)
        self._note("failed", name, reason)
        with self._work:
            self._work.notify()

    def _told(self, kind: str, variant: str, why: str) -> None:
        """Of the opener; in another engine a variant takes another time, which policies have to know."""
        if kind == "rerouted":
            with self._lock:
                self.portfolio = self._opener.router.overlaid(self.portfolio)
        self._note(kind, variant, why)

    # ── beginning and end ──

    def _by_accuracy(self) -> list[Variant]:
        return sorted(self.portfolio.variants, key=lambda v: -(v.metrics.accuracy or 0.0))

    def _check_shapes(self) -> None:
        """Variants of another input shape or other outputs than the most accurate one cannot stand in for it."""
        best = self._by_accuracy()[0].artifact
        for variant in self.portfolio.variants:
            if why := best.unlike(variant.artifact):
                self._put_aside(variant.name, why)

    def _first(self, start: str | None) -> Held:
        if start is not None:
            self.portfolio.variant(start)
        wanted = sorted(self._by_accuracy(), key=lambda v: v.name != start)
        problem: PrunitError | None = None
        for variant in wanted:
            if variant.name in self._failed:
                continue
            try:
                return self._open(variant)
            except PrunitError as error:
                problem = error
                self._put_aside(variant.name, str(error))
        assert problem is not None  # the most accurate variant has the shape that counts
        raise problem

    def close(self) -> None:
        """End the thread and close all sessions; requests that are being answered are waited for."""
        with self._work:
            self._closing = True
            self._work.notify()
        self._thread.join()
        while True:
            with self._lock:
                busy = [h for h in (*self._held.values(), *self._retired) if h.users]
                if not busy:
                    every = [*self._held.values(), *self._retired]
                    self._held.clear()
                    self._retired.clear()
                    break
            time.sleep(0.001)
        for held in every:
            held.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
