"""A Ray cluster on this machine, for tests and for `bench/kills.py`: its processes end with whoever started it."""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import running

MARKER = "ELICITOR_TEST_NODE"
SECONDS = 180.0
"""Seconds that a node may take to start."""
_STARTED = "Ray runtime started"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster.

    Attributes:
        address: ``HOST:PORT``.
        nodes: Name of each node.
        environment: Variables of those who may join it.
    """

    address: str
    nodes: list[str]
    environment: dict[str, str]


@contextmanager
def cluster(folder: Path, *, address: str | None = None, nodes: int = 2, cpus: int = 1) -> Iterator[Cluster]:
    """Start nodes, the first of which is the head; all of their processes have ended when the block is left.

    Args:
        folder: Where what they say is written.
        address: Where the head listens, one of `free_address`.
        nodes: How many.
        cpus: Processors that each offers.

    Yields:
        The cluster.
    """
    address = address or free_address()
    names = [uuid.uuid4().hex for _ in range(nodes)]
    # A secret of this cluster's own, so that nothing of the user's is read or written and nobody else can join.
    joining = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with ExitStack() as stack:
        # Paths of Unix sockets must be short: pytest's own folder will not do.
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True))
        for k, name in enumerate(names):
            role = ["--head", f"--port={address.split(':')[1]}", "--include-dashboard=false", f"--temp-dir={place}"]
            where = [f"--address={address}"] if k else role
            log = stack.enter_context((folder / f"node-{k}.log").open("w+"))
            # At Ray's own niceness workers would wait minutes for a busy machine.
            own = {MARKER: name, "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
            options: dict[str, Any] = {"env": joining | own, "preexec_fn": _end_together}
            node = stack.enter_context(running(_start(where, cpus=cpus), stdout=log, stderr=log, **options))
            # Before the node's first process goes: without it and their environment some could not be told from others'.
            stack.callback(kill_node, name)
            end = time.monotonic() + SECONDS
            while _STARTED not in (said := Path(log.name).read_text()):
                assert node.poll() is None, said
                assert time.monotonic() < end, said
                time.sleep(0.1)
        yield Cluster(address, names, joining)


def _start(where: list[str], *, cpus: int) -> list[str]:
    ray = str(Path(sys.executable).with_name("ray"))
    common = [f"--num-cpus={cpus}", "--num-gpus=0", "--object-store-memory=80000000", "--node-ip-address=127.0.0.1"]
    return [ray, "start", "--block", *where, *common, "--disable-usage-stats"]


def _end_together() -> None:
    """Ask for SIGTERM when the parent dies, however it does: Ray then ends all that the node has started."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def processes_of(node: str) -> list[int]:
    """Ids of all processes that were started, however indirectly, for a node."""
    parents, found = {}, set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if f"{MARKER}={node}\0".encode() in (entry / "environ").read_bytes():
                    found.add(int(entry.name))
    # Ray's own processes write their titles over their environment: those are known by who started them.
    while more := {process for process, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


def workers_of(node: str) -> list[int]:
    """Ids of the processes of a node in which an `elicitor.distributed.Worker` lives."""
    found = []
    for process in processes_of(node):
        with suppress(OSError):
            if Path(f"/proc/{process}/cmdline").read_bytes().startswith(b"ray::Worker"):
                found.append(process)
    return found


def kill_node(node: str) -> None:
    """Kill all processes of a node at once, as a power cut does: the raylet first would let workers see its end."""
    for process in processes_of(node):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def free_address() -> str:
    """An address of this machine at which nobody listens.

    The head listens a moment later and on all of the machine's addresses. So the port is below those that Linux by default
    gives to whoever connects to something (32768 up), above those of Ray's workers (10002 to 19999), and free on all addresses.
    """
    while True:
        port = 20000 + secrets.randbelow(32768 - 20000)
        with socket.socket() as server, suppress(OSError):
            server.bind(("", port))
            return f"127.0.0.1:{port}"
