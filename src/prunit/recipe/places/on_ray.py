"""`OnRay`: pieces done as tasks of Ray, on this machine or on a cluster whose nodes all see the build's folder.

The images lie in Ray's object store, once on each node. What a task gets from there is shared with all others, and what
torch does in place would reach them: each process copies it. Pieces say in files of the folder how far they are, so no
actor is needed, and none is left behind. A piece whose process or node was lost is done again, a bounded number of
times: it goes on from its last epoch.
"""

import contextlib
import json
import logging
import math
import os
import platform
import secrets
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import rmtree
from typing import Any, Final
from uuid import uuid4

import torch

from prunit.edge.cpus import usable
from prunit.errors import ConfigError, DeviceError, MissingExtraError, WorkerError
from prunit.recipe.folder import STATE
from prunit.recipe.places import node
from prunit.recipe.places.asked import LOCAL, check_answers
from prunit.recipe.places.handed import images_of
from prunit.recipe.places.pieces import Bench, Piece, Run, next_of
from prunit.recipe.places.processes import error_of
from prunit.version import VERSION

ATTEMPTS: Final = 3
"""How often a piece is done whose process or node is lost."""
_POLL_S: Final = 0.5
_EMPTY_S: Final = 60.0
"""How long a build waits for nodes when none is left that could hold a training."""


class OnRay:
    """Trainings as tasks of Ray at `address`: 'local', 'auto' (the cluster of this machine), or HOST:PORT.

    Each takes `cpus` CPUs, which are its threads, and `gpus` GPUs, which may be a fraction; `jobs` is how many run at
    once at the most, None as many as fit.
    """

    def __init__(self, address: str = LOCAL, *, jobs: int | None = None, cpus: int = 1, gpus: float = 0.0) -> None:
        self.address, self.jobs, self.cpus, self.gpus = address, jobs, cpus, gpus
        self.at_once = jobs or 1
        self._ours = False

    @property
    def threads(self) -> int:
        """Of each training."""
        return self.cpus

    def ready(self, trainings: int, folder: Path) -> None:
        """As `Executor.ready`: connects, and looks at every node."""
        self._connect()
        try:
            self._check_nodes(folder)
            self.at_once = max(1, min(trainings, self.jobs or trainings, self._slots()))
        except BaseException:
            self._leave()
            raise

    @contextmanager
    def open(self, bench: Bench) -> Iterator[Run]:
        """As `Executor.open`."""
        self._connect()
        tasks = _Tasks(self, bench)
        try:
            yield tasks.run
        finally:
            tasks.close()

    def close(self) -> None:
        """As `Executor.close`."""
        self._leave()

    def _connect(self) -> None:
        if self.address == LOCAL:
            lock_out_others()
        ray = _ray()
        if ray.is_initialized():
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told that prunit is used
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if self.address == LOCAL:
                ray.init(address=LOCAL, num_cpus=len(usable()), include_dashboard=False, **quiet)
            else:
                check_answers(self.address)
                ray.init(address=self.address, **quiet)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise DeviceError(f"--ray {self.address}: {_line(error)}{_about_tokens(self.address, error)}") from error
        self._ours = True

    def _leave(self) -> None:
        if self._ours:
            _ray().shutdown()
            self._ours = False

    def _nodes(self) -> list[Mapping[str, Any]]:
        return [one for one in _ray().nodes() if one["Alive"]]

    def _slots(self) -> int:
        """Trainings that fit on the nodes as they are now."""
        return sum(_fit(one["Resources"], self.cpus, self.gpus) for one in self._nodes())

    def _check_nodes(self, folder: Path) -> None:
        """Raise what is wrong with a node: too small, with another prunit, or without the folder in sight."""
        nodes = self._nodes()
        if not any(_fit(one["Resources"], self.cpus, self.gpus) for one in nodes):
            resources = [one["Resources"] for one in nodes]
            largest = max(resources, key=lambda r: (r.get("GPU", 0), r.get("CPU", 0)), default={})
            raise ConfigError(
                f"a training takes {self.cpus} CPUs and {self.gpus:g} GPUs (--cpus-per-trial, --gpus-per-trial), and"
                f" no node of Ray has them: the largest has {largest.get('CPU', 0):g} CPUs and"
                f" {largest.get('GPU', 0):g} GPUs"
            )
        token = _nearest(folder) / f".prunit-{uuid4().hex}"
        token.write_text(token.name)
        try:
            told = self._told_by_nodes(nodes, token)
        finally:
            token.unlink(missing_ok=True)
        check_told(told, _own_facts(), folder)

    def _told_by_nodes(self, nodes: Sequence[Mapping[str, Any]], token: Path) -> dict[str, Mapping[str, Any]]:
        """What each node that may get a training says of itself."""
        ray = _ray()
        from ray import cloudpickle
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as Only

        cloudpickle.register_pickle_by_value(node)  # a node without prunit is to say so
        try:
            ask = ray.remote(node.facts)
            asked = {
                f"{one['NodeManagerAddress']} ({one['NodeID'][:8]})": ask.options(
                    num_cpus=0, max_retries=1, scheduling_strategy=Only(one["NodeID"], soft=False)
                ).remote(str(token))
                for one in nodes
                if _fit(one["Resources"], self.cpus, self.gpus)
            }
            told: dict[str, Mapping[str, Any]] = {}
            for name, answer in asked.items():
                try:
                    told[name] = ray.get(answer, timeout=_EMPTY_S)
                except ray.exceptions.RayError as error:
                    raise WorkerError(f"node {name} of Ray does nothing for this build: {_line(error)}") from error
            return told
        finally:
            cloudpickle.unregister_pickle_by_value(node)


@dataclass
class _Task:
    """A piece that was given to Ray."""

    piece: Piece
    place: int
    attempt: int = 1
    said: Path = field(default_factory=Path)
    read_at: int = 0
    logs: int = 0


class _Tasks:
    """The pieces of one bench that Ray works on."""

    def __init__(self, place: OnRay, bench: Bench) -> None:
        self.place, self.bench = place, bench
        self.said = bench.folder / STATE / "told"
        self.running: dict[Any, _Task] = {}
        self.handed: tuple[Any, ...] = ()
        self.empty_since: float | None = None
        self.looked_at = -math.inf

    def run(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """As `pieces.Run`; the first error ends it, and names the variant."""
        ray = _ray()
        waiting: list[Piece] = []
        for piece in list(pieces):
            if self.bench.has(piece):
                yield piece
            else:
                waiting.append(piece)
        while waiting or self.running:
            self._hand_out(waiting)
            done, _ = ray.wait(list(self.running), timeout=_POLL_S) if self.running else ([], [])
            self._look_around()
            for reference in done:
                task = self.running.pop(reference)
                self._tell_of(task)
                if self._came_of(reference, task):
                    yield task.piece

    def _hand_out(self, waiting: list[Piece]) -> None:
        limit = self.place.jobs or math.inf
        while len(self.running) < limit:
            ready = next_of(waiting, (task.piece for task in self.running.values()))
            if ready is None:
                break
            waiting.remove(ready)
            taken = {task.place for task in self.running.values()}
            free = next(place for place in range(1, len(taken) + 2) if place not in taken)
            self._start(_Task(ready, free, said=self.said / f"{ready.key.replace(' ', '_').replace(':', '-')}.json"))

    def _start(self, task: _Task) -> None:
        ray = _ray()
        if not self.handed:
            handed = self.bench.handed()
            about, arrays = images_of(self.bench, handed)
            references = [ray.put(array) for array in arrays.values()]
            self.handed = (handed.as_dict(), about, list(arrays), references)
        told, about, names, references = self.handed
        piece = task.piece
        # Ray itself would repeat a task that left by sys.exit; who repeats what is for `_came_of` to say.
        remote = ray.remote(node.done).options(
            num_cpus=self.place.cpus, num_gpus=self.place.gpus, max_retries=0, name=f"prunit {piece.key}"
        )
        self.running[remote.remote(told, about, names, piece.as_dict(), str(task.said), *references)] = task

    def _came_of(self, reference: Any, task: _Task) -> bool:
        """Whether the piece is done; an error of its own is raised, a lost process or node is one attempt less."""
        ray = _ray()
        try:
            message = ray.get(reference)
        except ray.exceptions.RayTaskError as error:  # it did not come so far as to catch what went wrong
            raise WorkerError(f"{task.piece.name}: {_line(error.cause or error)}") from error
        except ray.exceptions.RayError as error:
            if task.attempt >= ATTEMPTS:
                raise WorkerError(
                    f"{task.piece.name}: its process on Ray was lost {ATTEMPTS} times ({_line(error)}); finished epochs"
                    " are kept: go on with --resume (resume=True)"
                ) from error
            note = f"{task.piece.name}: its process on Ray was lost; it goes on from its last epoch in another one"
            self.bench.progress("all", "plan", 0, 0, note)
            # What the lost one had told was read: it would be told once more.
            self._start(replace(task, attempt=task.attempt + 1, logs=0))
            return False
        if "error" in message:
            raise error_of(message["error"], task.piece)
        self.bench.progress.waits(task.place)
        return True

    def _look_around(self) -> None:
        """Twice a second, not whenever one is done: of hundreds, each would cost the more, the more they are."""
        if time.monotonic() < self.looked_at + _POLL_S:
            return
        self.looked_at = time.monotonic()
        for task in self.running.values():
            self._tell_of(task)
        self._check_not_empty()

    def _tell_of(self, task: _Task) -> None:
        """Hand on what a piece has written down of how far it is."""
        try:
            changed = task.said.stat().st_mtime_ns
            if changed == task.read_at:
                return
            told = json.loads(task.said.read_text())
        except (OSError, ValueError):  # not there yet; on a network disk, half there
            return
        task.read_at = changed
        if "step" in told:
            self.bench.progress(*told["step"], place=task.place)
        for name, level, text in told["logs"][task.logs :]:
            logging.getLogger(name).log(level, "%s", text)
        task.logs = len(told["logs"])

    def _check_not_empty(self) -> None:
        if self.place._slots():
            self.empty_since = None
            return
        self.empty_since = self.empty_since or time.monotonic()
        if time.monotonic() - self.empty_since > _EMPTY_S:
            raise WorkerError(
                f"no node of Ray is left that could hold a training, for {_EMPTY_S:.0f} s; finished epochs are kept:"
                " go on with --resume (resume=True) when there are some again"
            )

    def close(self) -> None:
        """End what is running."""
        ray = _ray()
        for reference in self.running:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.cancel(reference, force=True)
        if self.running:
            ray.wait(list(self.running), num_returns=len(self.running), timeout=10)
        self.running.clear()
        self.handed = ()
        rmtree(self.said, ignore_errors=True)


def _about_tokens(address: str, error: Exception) -> str:
    """What else may keep a driver out, which Ray's error does not say: a cluster that asks for a token.

    `ray start` turns that on by itself where `~/.ray/auth_token` is (Ray 2.60); `ray.init` reads it only when told to.
    """
    if address == LOCAL or not isinstance(error, ConnectionError) or os.environ.get("RAY_AUTH_MODE") == "token":
        return ""
    return "; if the cluster asks for a token, as `ray start` does where ~/.ray/auth_token is, set RAY_AUTH_MODE=token"


def lock_out_others() -> None:
    """Have Ray on this machine obey this process alone: its ports are open to the network, and run what they are told.

    By a token in the environment, which Ray reads when it is imported; where that has been done, or somebody has set
    how Ray is to check, it stays as it is.
    """
    if "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ and "RAY_AUTH_TOKEN" not in os.environ:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def check_told(told: Mapping[str, Mapping[str, Any]], own: Mapping[str, Any], folder: Path) -> None:
    """Raise `ConfigError` for a node that has other versions than this process, or does not see the folder."""
    for name, facts in told.items():
        for package in ("python", "prunit", "torch"):
            if facts[package] != own[package]:
                there = facts[package] or "none"
                raise ConfigError(
                    f"node {name} of Ray has {package} {there}, this process {own[package]}: install the same on all"
                )
        if not facts["sees"]:
            raise ConfigError(
                f"node {name} of Ray does not see the folder of '{folder}': choose one (--out) on a disk that all nodes"
                " have mounted at the same place"
            )


def _own_facts() -> dict[str, Any]:
    return {"python": platform.python_version(), "prunit": VERSION, "torch": torch.__version__}


def _fit(resources: Mapping[str, float], cpus: int, gpus: float) -> int:
    """So many trainings fit at once on a node with these resources."""
    by_cpu = resources.get("CPU", 0.0) // cpus
    return int(min(by_cpu, resources.get("GPU", 0.0) / gpus + 1e-9) if gpus else by_cpu)


def _nearest(folder: Path) -> Path:
    """The folder itself, or what is there of the way to it."""
    return next(one for one in (folder.resolve(), *folder.resolve().parents) if one.is_dir())


def _line(error: BaseException) -> str:
    """An error of Ray, which is often a page, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


def _ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingExtraError("--ray", str(error.name), "ray") from error
    return ray
