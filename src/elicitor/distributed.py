"""Work on a Ray cluster: workers that each hold one model, and a driver that hands out work and is told the results.

Workers write nothing. What a lost worker was doing is given to another one; the driver alone touches the run folder, so a
killed driver goes on like any other run. Ray is imported when a pool is opened.
"""

from __future__ import annotations

import math
import os
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from elicitor.backends.base import Backend, OnStage
from elicitor.batch_search import BatchJob, BatchResult
from elicitor.config import RunConfig
from elicitor.errors import BackendError, ConfigError, ElicitorError, reason_of
from elicitor.inputs import Inputs
from elicitor.labelling import ModelFacts
from elicitor.prompts import Sizes
from elicitor.worker import Worker, measure, own_code, search

A = TypeVar("A")
R = TypeVar("R")

MAX_LOSSES = 3
"""Workers that one piece of work may cost, and workers in a row that may be lost while they load the model."""
CHUNK = 1024
"""Examples that a worker measures at a time."""
_OBJECT_STORE = 256 * 2**20
"""Bytes for what is under way between processes, when Ray is started here."""
_CONNECT_TIMEOUT = 15.0
"""Seconds to wait for an answer of a cluster's address."""
_LOOK_INTERVAL = 10.0
"""Seconds between looks at whether the cluster still has room for a worker, while none is running."""


@dataclass(frozen=True, slots=True)
class RayOptions:
    """Where workers run, and what each takes; nothing here changes a result.

    Attributes:
        address: ``local`` starts Ray on this machine, ``auto`` finds a running cluster, ``HOST:PORT`` names one.
        workers: Workers; if None, as many as there is work and room for.
        cpus: Processors of each.
        gpus: GPUs of each; a share such as 0.5 puts several on one.
    """

    address: str
    workers: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no cluster could give."""
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"--ray-workers got {self.workers}", fix="give 1 or more")
        for flag, value in (("--ray-cpus", self.cpus), ("--ray-gpus", self.gpus)):
            # Ray counts in ten-thousandths, and in whole GPUs above one.
            if not (value == 0 or 0.0001 <= value < math.inf) or (flag == "--ray-gpus" and value > 1 and value % 1):
                raise ConfigError(f"{flag} got {value:g}", fix="give a whole number, or a share such as 0.5")
        if self.cpus + self.gpus == 0:
            raise ConfigError(
                f"a worker would take {self.cpus:g} CPUs and {self.gpus:g} GPUs", fix="give --ray-cpus 1 or more"
            )


class WorkerPool:
    """Workers on a cluster; use it as a context manager, which ends them.

    Args:
        options: Where they run and what each takes.

    Raises:
        ConfigError: If Ray is not installed or there is no such cluster.
    """

    def __init__(self, options: RayOptions) -> None:
        # Ray reads these when it is imported. It would report usage to its makers, and warn of a change to come.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError as error:
            raise ConfigError("--ray needs ray", fix="pip install 'elicitor[ray]'") from error
        self._ray = ray
        self._options = options
        self._model: tuple[str, dict[str, Any]] | None = None
        self._most = options.workers or 0
        self._facts: ModelFacts | None = None
        self._idle: list[Any] = []
        self._starting: dict[Any, Any] = {}
        self._busy: dict[Any, tuple[Any, Any]] = {}
        self._failed_starts = 0
        self._connected_here = not ray.is_initialized()
        if self._connected_here:
            self._connect()

    def __enter__(self) -> WorkerPool:
        """Keep the workers until the block ends."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the workers, and Ray if it was started or joined here."""
        for worker in [*self._idle, *self._starting.values(), *(worker for worker, _ in self._busy.values())]:
            self._ray.kill(worker)
        if self._connected_here:
            self._ray.shutdown()

    def load(self, config: RunConfig, *, pieces: int, on_stage: OnStage | None = None) -> ModelFacts:
        """Have workers load a run's model, and wait for the first.

        Args:
            config: Names the model; a pool holds one model.
            pieces: Of work that is known to come: unless the options name a number, no more workers load the model now.
            on_stage: Called when workers begin to load.

        Returns:
            The facts of the model, on which all workers must agree.

        Raises:
            ElicitorError: If the model cannot be loaded, or the cluster has no room for a worker.
        """
        wanted = (config.model, config.backend.model_dump())
        if self._model is None:
            self._model = wanted
            self._most = self._options.workers or self._room()
            count = self._options.workers or max(1, min(pieces, self._most))
            if on_stage:
                on_stage(f"loading the model on {count} workers")
            for _ in range(count):
                self._start()
        elif self._model != wanted:
            raise ConfigError("runs on one cluster differ in model or backend settings", fix="run them one by one")
        told = False
        while self._facts is None:
            if self._wait() is None and on_stage and not told:
                on_stage("still waiting for a worker: it loads the model, or for room that other work takes")
                told = True
        return self._facts

    def sizes(self, inputs: Inputs) -> Sizes:
        """Lengths of a data set's prompts, measured by the workers, who have the tokenizer.

        Raises:
            ElicitorError: If the verbalizers do not suit the tokenizer, or too many workers are lost.
        """
        n = len(inputs.dataset)
        chunks = ((k, replace(inputs, dataset=_part(inputs, k))) for k in range(0, n, CHUNK))
        measured = dict(self.map(measure, chunks, name=lambda chunk: f"measuring examples from {chunk[0]} on"))
        parts = [measured[k] for k in sorted(measured)]
        return replace(parts[0], queries=np.concatenate([part.queries for part in parts]))

    def search(self, jobs: Iterable[BatchJob]) -> Iterator[BatchResult]:
        """Search batches.

        Args:
            jobs: Read as workers become free.

        Yields:
            Finished batches with all of their events, in the order in which they finish.

        Raises:
            ElicitorError: If a search fails, or a batch is lost too often.
        """
        return self.map(search, jobs, name=_name)

    def map(
        self, function: Callable[[Backend, A], R], arguments: Iterable[A], *, name: Callable[[A], str]
    ) -> Iterator[R]:
        """Apply a function of the model to each argument.

        Args:
            function: Importable by workers; given the model and one argument.
            arguments: Read as workers become free.
            name: What an argument stands for, for errors.

        Yields:
            Results, in the order in which they come.

        Raises:
            ElicitorError: If the function raises one, or an argument has cost `MAX_LOSSES` workers.
        """
        fresh = iter(arguments)
        waiting: deque[A] = deque()
        losses: Counter[str] = Counter()
        exhausted = False
        while True:
            while self._idle and (waiting or not exhausted):
                try:
                    argument = waiting.popleft() if waiting else next(fresh)
                except StopIteration:
                    exhausted = True
                    break
                worker = self._idle.pop()
                self._busy[worker.call.remote(function, argument)] = (worker, argument)
            # There may be more work than workers were loaded for.
            while not exhausted and len(self._starting) + len(self._busy) < self._most:
                try:
                    waiting.append(next(fresh))
                except StopIteration:
                    exhausted = True
                    break
                if len(waiting) > len(self._starting):
                    self._start()
            if exhausted and not waiting and not self._busy:
                return
            for ref in self._wait() or ():
                worker, argument = self._busy.pop(ref)
                try:
                    result = self._ray.get(ref)
                except self._ray.exceptions.RayTaskError:
                    raise  # a defect: the traceback is wanted
                except self._ray.exceptions.RayError as error:
                    losses[name(argument)] += 1
                    if losses[name(argument)] >= MAX_LOSSES:
                        raise BackendError(
                            f"{name(argument)} was lost {MAX_LOSSES} times with its worker: {reason_of(error)}",
                            fix="look at the memory of the cluster's nodes, then go on with --resume",
                        ) from error
                    waiting.append(argument)
                    self._start()
                    self._replace_dead()
                    continue
                self._idle.append(worker)
                if isinstance(result, ElicitorError):
                    raise result
                yield result

    def _connect(self) -> None:
        host, _, port = self._options.address.rpartition(":")
        if port.isdecimal() and "/" not in host:
            # Ray itself would try for minutes, and then begin again.
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT).close()
            except (OSError, OverflowError) as error:
                raise self._unreachable(error) from error
        options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
        if self._options.address == "local":
            here = len(os.sched_getaffinity(0))
            asked = math.ceil((self._options.workers or 0) * self._options.cpus)
            options |= {"num_cpus": max(here, asked), "object_store_memory": _OBJECT_STORE, "include_dashboard": False}
        try:
            self._ray.init(address=self._options.address, **options)
        except (ConnectionError, ValueError, RuntimeError, self._ray.exceptions.RayError) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: BaseException) -> ConfigError:
        return ConfigError(
            f"no Ray cluster can be reached at {self._options.address!r}: {reason_of(error)}",
            fix="start one with 'ray start --head' and give RAY_AUTH_TOKEN if it asks for one, or use --ray local",
        )

    def _room(self) -> int:
        """Workers that the cluster's nodes can hold.

        Raises:
            ConfigError: If that is none.
        """
        needed = [(name, n) for name, n in (("CPU", self._options.cpus), ("GPU", self._options.gpus)) if n]
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        room = sum(min(int(node.get(name, 0) / n + 1e-9) for name, n in needed) for node in nodes)
        if room == 0:
            raise ConfigError(
                f"no node of the cluster has {' and '.join(f'{n:g} {name}' for name, n in needed)} for a worker",
                fix="add a node (then --resume), or ask for less with --ray-cpus and --ray-gpus",
            )
        return room

    def _start(self) -> None:
        """Ask for one more worker; it comes when the cluster has room."""
        assert self._model is not None
        options = {"num_cpus": self._options.cpus, "num_gpus": self._options.gpus, "max_restarts": 0}
        worker = self._ray.remote(**options)(Worker).remote()
        self._starting[worker.load.remote(*self._model, own_code())] = worker

    def _wait(self) -> list[Any] | None:
        """Wait until something happens; greet workers that have loaded.

        Returns:
            References of finished work; None if nothing happens for long.
        """
        timeout = None if self._busy else _LOOK_INTERVAL
        ready, _ = self._ray.wait([*self._busy, *self._starting], timeout=timeout)
        if not ready:
            self._room()
            return None
        for ref in ready:
            if ref in self._starting:
                self._greet(self._starting.pop(ref), ref)
        return [ref for ref in ready if ref in self._busy]

    def _replace_dead(self) -> None:
        """Look whether idle workers were lost as well, before they cost work that has done nothing to them."""
        asked = {worker.alive.remote(): worker for worker in self._idle}
        answered, late = self._ray.wait([*asked], num_returns=len(asked), timeout=_LOOK_INTERVAL) if asked else ([], [])
        self._idle = [asked[ref] for ref in late]
        for ref in answered:
            try:
                self._ray.get(ref)
            except self._ray.exceptions.RayError:
                self._start()
            else:
                self._idle.append(asked[ref])

    def _greet(self, worker: Any, ref: Any) -> None:
        try:
            facts = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError:
            raise
        except self._ray.exceptions.RayError as error:
            if "No module named" in str(error):
                lacks = next(line.strip() for line in str(error).splitlines() if "No module named" in line)
                raise BackendError(
                    f"a worker cannot start: {lacks}", fix=f"install {own_code()} on all nodes"
                ) from error
            self._failed_starts += 1
            if self._failed_starts >= MAX_LOSSES:
                raise BackendError(
                    f"{MAX_LOSSES} workers in a row were lost while they loaded the model: {reason_of(error)}",
                    fix="look at the memory of the cluster's nodes, then go on with --resume",
                ) from error
            self._start()
            return
        if isinstance(facts, ElicitorError):
            raise facts
        self._facts = self._facts or facts
        if facts != self._facts:
            raise BackendError(
                f"workers have loaded {facts.name} with different weights or numeric settings",
                fix="give all nodes the same files and kind of device, or set backend.dtype and backend.device",
            )
        self._failed_starts = 0
        self._idle.append(worker)


def _part(inputs: Inputs, start: int) -> Any:
    return replace(inputs.dataset, examples=inputs.dataset.examples[start : start + CHUNK])


def _name(job: BatchJob) -> str:
    return f"batch {job.batch}" + (f" of run {job.run}" if job.run else "")
