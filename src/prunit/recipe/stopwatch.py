"""How fast the variants of a model will be, before any of them is trained: their files are timed beside the dense one.

Weights do not change the time, so an untrained file runs as fast as the trained one will. The dense model takes part in
every round: `times_faster` is the median of the ratios within rounds, which hold where the machine is not always
equally fast.
"""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from torch import Tensor, nn

from prunit.cut.plans import Plan
from prunit.edge import runtimes
from prunit.edge.measuring.probe import ProbeSettings, Shape, turns
from prunit.edge.session import Runtime, Session
from prunit.errors import ConfigError, MissingExtraError, ModelError, PrunitError
from prunit.export.onnx import image_shape
from prunit.export.translation import Translation
from prunit.export.untrained import Untrained
from prunit.graph import ChannelGraph
from prunit.prices.costs import Cost, cost_of

TURNS: Final = 20
"""How many rounds there are at batch 1, at the least; a fifth of that at larger batches."""
PATIENCE: Final = 5
"""So many times `seconds` are waited for those rounds, if the model is slow."""
MEMORY_BYTES: Final = 2 << 30
"""What the sessions that are open together may take, by `_bytes_of`; beyond it the plans are timed in parts."""

_DENSE: Final = "dense"
_WARM_UP: Final = 1
"""A plan's session has run once before: to see that it does."""


@dataclass(frozen=True)
class Timing:
    """What a plan's file takes for a batch, beside the dense model's, both in `n` rounds of one run each.

    `times_faster` is the median over the rounds of dense / this: below 1 it is slower.
    """

    batch: int
    threads: int
    n: int
    p50_ms: float
    p90_ms: float
    dense_p50_ms: float
    times_faster: float


class Stopwatch:
    """Times untrained plans of one dense model beside it. To be used in a `with` block, at whose end all files go.

    seconds      for each plan and batch size: with k plans the rounds go on for k times that, and until there are 20 of
                 them (4 for batches over 1), but no longer than five times that
    memory_bytes how much the engine may hold, as estimated; more plans than fit are timed in parts, each with the dense
                 model. One plan beside the dense model is always held
    translation  what `export_onnx` gave of the same model (`on_translated`): it need not be translated again

    Raises `MissingExtraError` if the engine is not installed and `ModelError` if the dense model cannot be exported.
    """

    def __init__(
        self,
        dense: nn.Module,
        graph: ChannelGraph,
        example: Tensor,
        *,
        engine: str | Runtime = runtimes.DEFAULT,
        threads: int = 1,
        batches: tuple[int, ...] = (1,),
        seconds: float = 1.0,
        memory_bytes: int = MEMORY_BYTES,
        translation: Translation | None = None,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        if threads < 1 or not batches or min(batches) < 1:
            raise ConfigError(f"cannot time batches {batches} on {threads} threads: each must be at least 1")
        if not seconds > 0:
            raise ConfigError(f"cannot time plans for {seconds} seconds each: give more than 0")
        self.graph, self.batches, self.threads, self.seconds = graph, batches, threads, seconds
        self._shape: Shape = image_shape(example)
        self._runtime = runtimes.runtime(engine)
        self._runtime.version()  # imports the engine: better known to be missing before anything is exported
        self._memory_bytes, self._clock_ns = memory_bytes, clock_ns
        self._untrained = Untrained(dense, graph, example, translation=translation)
        self._closing = contextlib.ExitStack()
        self._dense: Session | None = None
        self.translated = 0
        """How many plans had to be translated for themselves, which takes seconds."""

    def __enter__(self) -> "Stopwatch":
        return self

    def __exit__(self, *of_error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Free what the engine holds and remove the files; the stopwatch may be used again."""
        self._dense = None
        self._closing.close()

    def __call__(self, plans: Mapping[str, Plan]) -> dict[str, tuple[Timing, ...]]:
        """The timings of each plan by name, one for each batch size: plans and dense model take turns in one run.

        Raises `ModelError` with the plan's name where its model cannot be exported or the engine cannot run it.
        """
        found: dict[str, tuple[Timing, ...]] = {}
        if plans and self._dense is None:
            self._dense = self._opened_dense()
        left = dict(plans)
        while left:
            with contextlib.ExitStack() as closing:
                sessions = {name: session for name, session in self._part(left, closing)}
                found |= self._timed(sessions)
            left = {name: plan for name, plan in left.items() if name not in sessions}
        return found

    def _opened_dense(self) -> Session:
        folder = Path(self._closing.enter_context(tempfile.TemporaryDirectory(prefix="prunit-")))
        self._untrained.write_dense(folder / "dense.onnx")
        return self._opened(folder / "dense.onnx", self._closing)

    def _part(self, plans: Mapping[str, Plan], closing: contextlib.ExitStack) -> Iterator[tuple[str, Session]]:
        """Sessions of as many plans as may be open together, one at the least."""
        folder = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="prunit-")))
        free = self._memory_bytes - self._bytes_of(cost_of(self.graph))
        for number, (name, plan) in enumerate(plans.items()):
            free -= self._bytes_of(cost_of(self.graph, plan))
            if number and free < 0:
                return
            path = folder / f"{number}.onnx"
            with _named(name):
                self.translated += not self._untrained.write(plan, path)
                session = self._opened(path, closing)
                session.run(np.zeros((1, *self._shape), np.float32))
            yield name, session

    def _opened(self, path: Path, closing: contextlib.ExitStack) -> Session:
        session = self._runtime.open(path, threads=self.threads)
        closing.callback(session.close)
        return session

    def _bytes_of(self, cost: Cost) -> int:
        """About what an engine holds of a model: weights, once more in its own layout, and room for activations."""
        return 2 * (cost.weight_bytes + max(self.batches) * cost.activation_bytes)

    def _timed(self, plans: Mapping[str, Session]) -> dict[str, tuple[Timing, ...]]:
        assert self._dense is not None
        sessions = {str(number): session for number, session in enumerate(plans.values())}
        settings = ProbeSettings(
            batches=self.batches,
            threads=self.threads,
            min_runs=TURNS,
            seconds=self.seconds * len(plans),
            limit_seconds=PATIENCE * self.seconds * len(plans),
            warm_up=_WARM_UP,
        )
        sessions[_DENSE] = self._dense
        times = turns(sessions, dict.fromkeys(sessions, self._shape), settings, clock_ns=self._clock_ns)
        return {
            name: tuple(self._timing(batch, of_batch[str(i)], of_batch[_DENSE]) for batch, of_batch in times.items())
            for i, name in enumerate(plans)
        }

    def _timing(self, batch: int, times_ns: list[int], dense_ns: list[int]) -> Timing:
        own, dense = np.array(times_ns, np.float64) / 1e6, np.array(dense_ns, np.float64) / 1e6
        p50_ms, p90_ms = map(float, np.percentile(own, [50, 90]))
        return Timing(
            batch=batch,
            threads=self.threads,
            n=len(own),
            p50_ms=p50_ms,
            p90_ms=p90_ms,
            dense_p50_ms=float(np.median(dense)),
            times_faster=float(np.median(dense / own)),
        )


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Says of which plan an error is."""
    try:
        yield
    except MissingExtraError:
        raise
    except PrunitError as error:
        raise ModelError(f"cannot time plan '{name}': {error}") from error
    except Exception as error:  # an engine's exceptions share no base class
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"cannot time plan '{name}': {type(error).__name__}: {reason}") from error
