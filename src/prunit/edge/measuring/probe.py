"""What a variant costs on this machine: latency percentiles, peak memory, and what the machine is.

The same code runs in a build and on the device. `python -m prunit.edge.measuring.probe` is the child of peak_memory().
"""

import gc
import json
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from prunit.edge import cpus, runtimes
from prunit.edge.portfolio import Device, Latency
from prunit.edge.session import Array, Session, engine
from prunit.errors import ConfigError, DeviceError, PrunitError

OnRun = Callable[[int, int], None]
"""Called with the runs done and the runs expected in all; the second is an estimate that settles as it goes."""
Shape = tuple[int, int, int]
"""(C, H, W)."""


@dataclass(frozen=True)
class ProbeSettings:
    """How long to measure. A round is one run of each session.

    For each batch size the rounds go on for `seconds`, and beyond until there are `min_runs` (a fifth of that for
    batches over 1), but never past `limit_seconds` or `max_runs`: a `Latency` says how many there were. `threads` is
    what the sessions were opened with. `warm_up` rounds come first and do not count.
    """

    batches: tuple[int, ...] = (1, 32)
    threads: int = 1
    min_runs: int = 50
    max_runs: int = 1000
    seconds: float = 2.0
    limit_seconds: float = 30.0
    warm_up: int = 3

    def least(self, batch: int) -> int:
        """How many rounds of this batch size are wanted at the least."""
        return min(self.max_runs, self.min_runs if batch == 1 else max(1, self.min_runs // 5))

    def enough(self, batch: int, rounds: int, elapsed_s: float) -> bool:
        """Whether to stop after `rounds` rounds that took `elapsed_s`."""
        if rounds >= self.max_runs or elapsed_s >= self.limit_seconds:
            return True
        return rounds >= self.least(batch) and elapsed_s >= self.seconds

    def forecast(self, batch: int, rounds: int, elapsed_s: float) -> int:
        """How many rounds there will be if they go on taking as long as the first `rounds` did."""
        round_s = max(elapsed_s / rounds, 1e-9)
        wanted = max(self.least(batch), int(self.seconds / round_s))
        return max(rounds, min(wanted, int(self.limit_seconds / round_s), self.max_runs))


DEFAULTS: Final = ProbeSettings()


def probe(
    sessions: Mapping[str, Session],
    shapes: Mapping[str, Shape],
    settings: ProbeSettings = DEFAULTS,
    *,
    on_run: OnRun | None = None,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> dict[str, tuple[Latency, ...]]:
    """The latencies of each session by name, one per batch size, on input of its shape from `shapes`.

    The sessions take turns, in an order drawn anew each round: whatever else the machine does meanwhile hits them
    all alike, so their ratios hold even where the absolute figures do not.
    """
    times = turns(sessions, shapes, settings, on_run=on_run, clock_ns=clock_ns)
    return {
        name: tuple(latency_of(of_one[name], batch, settings.threads) for batch, of_one in times.items())
        for name in sessions
    }


def turns(
    sessions: Mapping[str, Session],
    shapes: Mapping[str, Shape],
    settings: ProbeSettings = DEFAULTS,
    *,
    on_run: OnRun | None = None,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> dict[int, dict[str, list[int]]]:
    """The time of each run in ns, for each batch size by session; entry i of all sessions is of round i.

    As `probe`, which sums them up. Two sessions are best compared within a round: the machine was the same for both.
    """
    found: dict[int, dict[str, list[int]]] = {}
    finished = 0
    for position, batch in enumerate(settings.batches):
        to_come = sum(settings.least(later) for later in settings.batches[position + 1 :])
        inputs = _inputs(sessions, shapes, batch)
        times_ns: dict[str, list[int]] = {name: [] for name in sessions}
        rounds = 0
        with _no_collection():
            for rounds, elapsed_s in _rounds(sessions, inputs, times_ns, settings, batch=batch, clock_ns=clock_ns):
                if on_run:
                    expected = settings.forecast(batch, rounds, elapsed_s)
                    on_run((finished + rounds) * len(sessions), (finished + expected + to_come) * len(sessions))
        finished += rounds
        found[batch] = times_ns
    return found


def peak_memory(path: Path, shape: Shape, *, runtime: str = runtimes.DEFAULT, threads: int = 1, batch: int = 1) -> int:
    """How many bytes a process grows by at its peak while it opens the model file and answers three batches.

    Measured in a child process of its own as the peak resident set size (VmHWM on Linux) minus the resident set size
    just before the file is opened, when interpreter, numpy, the engine's package and the input are already there.
    So it counts the weights, what the engine makes of them, its buffers, and the pages of its code touched for the
    first time; it does not count the engine's own footprint (about 40 MB for ONNX Runtime).
    """
    wish = {"path": str(path), "shape": shape, "runtime": runtime, "threads": threads, "batch": batch}
    # -P and this package's own folder first: the child runs this very prunit, whatever lies in the current folder.
    source = str(Path(__file__).parents[2])
    inherited = os.environ.get("PYTHONPATH")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([source, inherited] if inherited else [source])}
    child = subprocess.run(
        [sys.executable, "-P", "-m", "prunit.edge.measuring.probe", json.dumps(wish)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode != 0:
        last_line = child.stderr.strip().rpartition("\n")[2] or f"exit status {child.returncode}"
        raise DeviceError(f"cannot measure the memory of '{path}' in a process of its own: {last_line}")
    return int(child.stdout)


def device(runtime: str = runtimes.DEFAULT) -> Device:
    """This machine, as far as it matters for latencies, and the engine they are measured with."""
    return Device(
        name=_cpu_name(),
        cores=len(cpus.usable()),
        engine=runtime,
        engine_version=runtimes.runtime(runtime).version(),
        os=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )


def _inputs(sessions: Iterable[str], shapes: Mapping[str, Shape], batch: int) -> dict[str, Array]:
    """An input per session; sessions of one shape share it. Seeded noise: the values do not change the time."""
    by_shape: dict[Shape, Array] = {}
    for name in sessions:
        if name not in shapes:
            raise ConfigError(f"cannot probe '{name}': no input shape was given for it, only for {sorted(shapes)}")
        if shapes[name] not in by_shape:
            noise = np.random.default_rng(0).standard_normal((batch, *shapes[name]), dtype=np.float32)
            by_shape[shapes[name]] = noise
    return {name: by_shape[shapes[name]] for name in sessions}


def _rounds(
    sessions: Mapping[str, Session],
    inputs: Mapping[str, Array],
    times_ns: dict[str, list[int]],
    settings: ProbeSettings,
    *,
    batch: int,
    clock_ns: Callable[[], int],
) -> Iterator[tuple[int, float]]:
    """After each round: how many there were and the seconds they took; their times are appended to `times_ns`."""
    for _ in range(settings.warm_up):
        for name, session in sessions.items():
            session.run(inputs[name])
    order = list(sessions)
    shuffle = random.Random(0).shuffle
    start_ns = clock_ns()
    rounds, elapsed_s = 0, 0.0
    while order and not (rounds and settings.enough(batch, rounds, elapsed_s)):
        shuffle(order)
        for name in order:
            before_ns = clock_ns()
            sessions[name].run(inputs[name])
            times_ns[name].append(clock_ns() - before_ns)
        rounds += 1
        elapsed_s = (clock_ns() - start_ns) / 1e9
        yield rounds, elapsed_s


def latency_of(times_ns: Sequence[int], batch: int, threads: int) -> Latency:
    """The percentiles of some times in ns."""
    p50_ms, p90_ms, p99_ms = (float(value) / 1e6 for value in np.percentile(times_ns, [50, 90, 99]))
    return Latency(batch=batch, threads=threads, n=len(times_ns), p50_ms=p50_ms, p90_ms=p90_ms, p99_ms=p99_ms)


@contextmanager
def _no_collection() -> Generator[None, None, None]:
    """No garbage collection meanwhile: in a process full of torch objects one takes longer than many answers."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _cpu_name() -> str:
    """The CPU's model as Linux reports it ('model name' on x86, 'Model' or 'Hardware' on ARM boards)."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    found = facts.get("model name") or facts.get("Model") or facts.get("Hardware")
    return found or platform.processor() or platform.machine() or "unknown"


def _growth_bytes(path: Path, shape: Shape, *, name: str, threads: int, batch: int) -> int:
    """The body of the child process: the growth of this very process, see peak_memory()."""
    engine_runtime = runtimes.runtime(name)
    engine_runtime.version()  # imports the engine, which is not to be counted
    x_BCHW = np.zeros((batch, *shape), np.float32) + np.float32(0.5)
    process = engine("psutil", extra="edge").Process()
    _forget_peak()
    before = int(process.memory_info().rss)
    session = engine_runtime.open(path, threads=threads)
    for _ in range(3):
        session.run(x_BCHW)
    return max(_peak_bytes(process.memory_info().rss) - before, 0)


def _forget_peak() -> None:
    """Lowers Linux's record of the peak to the present size, so that the imports' own peak does not count."""
    with suppress(OSError):  # another system, or a kernel that does not let us: then the figure may be too high
        Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes(now_bytes: int) -> int:
    """The largest resident set size so far.

    On Linux VmHWM, not getrusage: that one survives exec, so it would show the size of the parent.
    """
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return now_bytes
    if sys.platform == "win32":
        return int(engine("psutil", extra="edge").Process().memory_info().peak_wset)
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def _child(argument: str) -> int:
    """The exit status, after the growth in bytes was written to standard output, or one line of error to the other."""
    wish = json.loads(argument)
    try:
        grown = _growth_bytes(
            Path(wish["path"]),
            tuple(wish["shape"]),
            name=wish["runtime"],
            threads=wish["threads"],
            batch=wish["batch"],
        )
    except PrunitError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{grown}\n")
    return 0


if __name__ == "__main__":
    sys.exit(_child(sys.argv[1]))
