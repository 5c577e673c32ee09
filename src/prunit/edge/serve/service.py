"""Everything behind the HTTP: the variants, the queue, the steering, the folder that is watched, the figures."""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final

from prunit.edge.install import place_of
from prunit.edge.names import published
from prunit.edge.portfolio import Portfolio, Variant
from prunit.edge.routing import router
from prunit.edge.serve.batching import Batcher, Job, Outcome, Result
from prunit.edge.serve.logs import tell
from prunit.edge.serve.metrics import Figures
from prunit.edge.serve.predicting import task_of
from prunit.edge.serve.settings import Refusal, Settings
from prunit.edge.serve.status import Board, Status, Window, resident_bytes
from prunit.edge.session import Array
from prunit.edge.switching.events import WRONG, Event
from prunit.edge.switching.policy import option_of, options_of, policy
from prunit.edge.switching.reload import ReloadingSwitcher
from prunit.edge.switching.steering import Load, Steering
from prunit.errors import ConfigError, PrunitError

_TOTALS: Final = ("answered", "late", "refused", "expired", "failed")
_EVENTS: Final = 20
_HERE_MS: Final = 1.0
"""A request that waits alone is computed by the event loop itself if that takes no longer: to hand it to a thread and
its answer back costs as much as to read and to write both."""


def check_served(settings: Settings) -> Portfolio:
    """The portfolio that would be served; raises `ConfigError` or `PortfolioError`, before anything is opened."""
    policy(settings.policy)
    portfolio = Portfolio.read(settings.folder)
    if not portfolio.variants:
        raise ConfigError(f"the portfolio in '{settings.folder}' has no variant")
    options_of(router(place_of(settings.folder, settings.cache), settings.engine).overlaid(portfolio))
    return portfolio


class Service:
    """One worker. `open` takes a while and is called off the event loop; until then requests get 503."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.board, self.figures, self.window = settings, Board(settings.shared), Figures(), Window()
        self.state = "starting"
        self.problem = ""
        """Why it will not get ready, for clients."""
        self.error: PrunitError | None = None
        """The same for who started it."""
        self.moved: Mapping[str, str] = {}
        """Addresses with names of the manifest that cannot be served, and those that took their place."""
        self.totals = dict.fromkeys(_TOTALS, 0)
        self.chosen = policy(settings.policy)
        self._over, self._asking = threading.Event(), False
        self._listeners: set[Callable[[], None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watching = threading.Thread(target=self._watch, name="prunit-watcher", daemon=True)

    # ── beginning and end ──

    def open(self, loop: asyncio.AbstractEventLoop, clock: int | None = None) -> None:
        """Open the most accurate variant, and answer from then on, on the loop whose thread has that `clock`.

        Raises what `Switcher` does, and `ConfigError`.
        """
        settings, self._loop, self._clock = self.settings, loop, clock
        here = router(place_of(settings.folder, settings.cache), settings.engine)
        # All must be measured; refused before anything is opened.
        options_of(here.overlaid(self._published(settings.folder)))
        self.switcher = ReloadingSwitcher(
            settings.folder,
            runtime=settings.engine,
            threads=settings.threads,
            memory_bytes=settings.memory_bytes,
            cache=settings.cache,
            on_event=self._on_event,
            read=self._published,
        )
        self.switcher.changed()
        self.batcher = Batcher(
            *(self.switcher, self._deliver),
            target_ms=lambda: self.steering.target_ms,
            one_ms=lambda name: self.steering.times.expected_ms.get(name, 1.0),
            queue=settings.queue,
            max_batch=settings.max_batch,
            observe=lambda name, ms: self.steering.observe(name, ms),
        )
        self.steering = Steering(
            *(self.switcher, self.chosen, options_of(self.portfolio), self._load),
            target_ms=settings.target_ms,
            memory_bytes=settings.memory_bytes,
            on_step=self._on_step,
        )
        self._on_step()
        self.steering.start()
        self._watching.start()
        self.state = "ready"
        tell("ready", {"model": self.portfolio.name, "active": self.switcher.active, "pid": os.getpid()})

    def _published(self, folder: Path) -> Portfolio:
        found, moved = published(Portfolio.read(folder))
        task_of(found)  # what cannot answer is not served
        self.moved = moved
        return found

    def drain(self) -> None:
        """Ready no more; what has come is still answered."""
        if self.state == "ready":
            self.state = "draining"

    def close(self) -> None:
        """Answer what waits, and end all threads."""
        self._over.set()
        if self.state in ("ready", "draining"):
            self.state = "closed"
            self.batcher.close()
            self.steering.close()
            self._watching.join()
            self.switcher.close()
        self.board.close()

    @property
    def portfolio(self) -> Portfolio:
        """What is served: the switcher's, so that nobody who is told of another one meets the old one here."""
        return self.switcher.portfolio

    # ── requests ──

    async def infer(self, x_BCHW: Array, variant: str | None = None, timeout_ms: float | None = None) -> Result:
        """The answer, when its turn has come; a `variant` must have passed `check`. Raises `Refusal`."""
        waiter = asyncio.get_running_loop().create_future()
        self.ask(x_BCHW, variant, timeout_ms, partial(_settle, waiter))
        return await waiter

    def ask(
        self, x_BCHW: Array, variant: str | None, timeout_ms: float | None, tell: Callable[[Outcome], None]
    ) -> None:
        """As `infer`, of the event loop, on which `tell` is called with what came of it."""
        if self.state not in ("ready", "draining"):
            raise Refusal(503, self.problem or "the server is starting", retry_after_s=1)
        job = Job(x_BCHW, variant, waiter=tell)
        if timeout_ms is not None:
            job.deadline = job.came + timeout_ms / 1000
        self.batcher.submit(job, wake=False)
        if not self._asking and self._loop is not None:
            # After all that can be read now has been read: what came together is computed together.
            self._asking = True
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._asking = False
        _tell(self.batcher.begin(_HERE_MS))

    def check(self, variant: str) -> Variant:
        """The variant of that name; `Refusal` (404, or 503 for one that was put aside)."""
        found = next((each for each in self.portfolio.variants if each.name == variant), None)
        if found is None:
            raise Refusal(404, f"the model '{self.portfolio.name}' has no such version")
        if variant in self.switcher.failed:
            raise Refusal(503, f"version '{variant}' was put aside: its file or its self-test is bad")
        return found

    def _deliver(self, found: list[tuple[Job, Outcome]]) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(_tell, found)
        except RuntimeError:  # the loop ended with its clients
            return

    def count(self, result: Result, latency_ms: float) -> None:
        """An answer has been made."""
        in_time = latency_ms <= self.steering.target_ms
        self.totals["answered"] += 1
        self.totals["late"] += not in_time
        self.window.add(latency_ms, in_time)
        self.figures.answered(200, result.variant, latency_ms / 1000, result.queue_ms / 1000, result.batch)

    def count_refused(self, status: int) -> None:
        """A request has got another answer."""
        kind = "expired" if status == 504 else "failed" if status == 500 else "refused"
        self.totals[kind] += 1
        self.figures.refused(status)

    # ── changes ──

    def change(self, *, target_ms: float | None = None, pinned: str | None = None, unpin: bool = False) -> None:
        """Another target, another pin; of all workers."""
        if pinned is not None:
            self.check(pinned)
        told = {"target_ms": self.steering.target_ms, "pinned": self.steering.pinned}
        if target_ms is not None:
            told["target_ms"] = target_ms
        if pinned is not None or unpin:
            told["pinned"] = pinned
        self.board.tell(told)
        self._obey()
        self.steering.step()

    def _obey(self) -> None:
        told = self.board.told()
        if told:
            self.steering.target_ms = told["target_ms"]
            known = {variant.name for variant in self.portfolio.variants}
            self.steering.pinned = told["pinned"] if told["pinned"] in known else None

    def _load(self) -> Load:
        return Load(self.batcher.arrived, self.batcher.waiting, self._around_s())

    def _around_s(self) -> float:
        """Seconds that the event loop's thread has computed, without the answers that it computed itself."""
        return 0.0 if self._clock is None else time.clock_gettime(self._clock) - self.batcher.here_s

    def _on_step(self) -> None:
        self._obey()
        status = self.status()
        self.figures.gauge(status)
        self.board.put(status)

    def _on_event(self, event: Event) -> None:
        if event.kind == "switched":
            self.figures.switched(event.why)
        elif event.kind in ("failed", "refused"):
            self.figures.failed(event.variant)
        elif event.kind == "rerouted" and self.state == "ready":
            self.steering.change_options(options_of(self.portfolio))  # in another engine it takes another time
        level = logging.WARNING if event.kind in WRONG else logging.INFO
        told = {key: value for key, value in asdict(event).items() if key not in ("at", "kind")}
        tell(event.kind, told, level=level)
        if self._loop and self.state == "ready" and event.kind != "loaded":
            self.board.put(self.status())
            for listener in tuple(self._listeners):
                self._loop.call_soon_threadsafe(listener)

    def _watch(self) -> None:
        """Open what there is room for, then look at the folder again and again."""
        self.switcher.preload()
        while not self._over.wait(self.settings.reload_s):
            self.board.remember()
            if self.switcher.changed():
                self.reload()

    def reload(self) -> None:
        """Take the manifest as it is now; what is wrong with it is told, and the old one goes on."""
        try:
            self.switcher.reload(_unusable)
            self.steering.change_options(options_of(self.portfolio))
            self.batcher.times.forget()
        except PrunitError as error:
            tell("the portfolio was not reloaded", {"why": str(error)}, level=logging.WARNING)
        except Exception:  # a folder that is being written may be wrong in any way; serving goes on
            tell("the portfolio was not reloaded", level=logging.ERROR)
            logging.getLogger("prunit.serve").exception("reload")

    # ── what is going on ──

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Have a function called on the event loop at each event; what is returned ends it."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    def overview(self) -> Status:
        """Of all workers, this one as it is now."""
        self.board.put(self.status())
        return self.board.read()

    def status(self) -> Status:
        """Of this worker; see `status.merged`."""
        counts, in_time, seconds = self.window.read()
        readings, events = self.steering.readings, self.switcher.events
        return {
            "pid": os.getpid(),
            "at": time.time(),
            "model": self.portfolio.name,
            "state": self.state,
            "active": self.switcher.active,
            "pinned": self.steering.pinned,
            "policy": self.settings.policy,
            "target_ms": self.steering.target_ms,
            "counts": counts,
            "in_time": in_time,
            "seconds": seconds,
            "waiting": self.batcher.waiting,
            "queue": self.settings.queue,
            "slowdown": round(self.steering.times.slowdown, 2),
            "memory_bytes": resident_bytes(),
            "available_bytes": readings.memory_bytes,
            "celsius": readings.celsius,
            "battery": readings.battery,
            "throttled": readings.throttled,
            "switches": self.steering.switches,
            "totals": dict(self.totals),
            "metric": self.portfolio.task.metric,
            "variants": self._variants(),
            "events": [asdict(event) for event in events if event.kind != "loaded"][-_EVENTS:],
        }

    def _variants(self) -> list[Status]:
        failed, residents, active = self.switcher.failed, self.switcher.residents, self.switcher.active
        options = {option.name: option for option in self.steering.options}
        return [
            {
                "name": variant.name,
                "engine": self.switcher.engine(variant),
                "precision": variant.precision,
                "accuracy": variant.metrics.accuracy,
                "latency_ms": options[variant.name].service_ms if variant.name in options else None,
                "file_bytes": variant.metrics.file_bytes,
                "state": "put aside"
                if variant.name in failed
                else "active"
                if variant.name == active
                else "open"
                if variant.name in residents
                else "closed",
            }
            for variant in self.portfolio.variants
        ]


def _unusable(variant: Variant) -> str:
    """Why a variant cannot be served, '' if it can."""
    try:
        option_of(variant)
    except ConfigError as error:
        return str(error)
    return ""


def _tell(found: list[tuple[Job, Outcome]]) -> None:
    """On the event loop: tell those who wait."""
    for job, outcome in found:
        told = Refusal(503, str(outcome), retry_after_s=1) if isinstance(outcome, PrunitError) else outcome
        try:
            job.waiter(told)
        except Exception:  # those behind it in the batch are to be told all the same
            logging.getLogger("prunit.serve").exception("an answer could not be sent")


def _settle(waiter: "asyncio.Future[Result]", outcome: Outcome) -> None:
    if waiter.done():  # the client has gone
        return
    if isinstance(outcome, Exception):
        waiter.set_exception(outcome)
    else:
        waiter.set_result(outcome)
