"""Faults that strike a command at an exact place among its file operations, in a forked child of a warm process.

Every opening for writing, renaming, removing, truncating and making of a folder below the place of a trial is counted, by an
audit hook that sees them whatever library does them, and so is every ``fsync``. A fault strikes at one number of that count:
far denser over the moments that matter than instants on a clock.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OUTSIDE = "SIGKILL from outside"
KILLS = ("SIGKILL", "SIGTERM", "Ctrl-C", "torn write", "clock back, SIGKILL", OUTSIDE)
"""Faults after which nothing is said of how the command ends."""
WORKER = "SIGKILL of a worker"
"""Fault that the command must survive: it strikes a process of the Ray cluster that works for it."""
WORKING = 0.25
"""Share of a command's seconds in which it has workers; before, Ray starts them."""
DISK = ("full disk", "largest file cannot grow", "read-only folder")
"""Faults that the command must report in one line, with the way out."""
Workers = Callable[[], list[int]]
_CHANGES = {"os.rename", "os.remove", "os.truncate", "os.mkdir", "os.rmdir"}
_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Fault:
    """What strikes, and when.

    Attributes:
        kind: One of `KILLS` or `DISK`, or `WORKER`.
        at: File operation at which it strikes, from 1; for a signal from outside the share of the unbroken run's seconds, for
            one to a worker the share of those since there are workers.
        size: Bytes that are still written where a write is torn or the disk is nearly full.
    """

    kind: str
    at: float
    size: int = 0


@dataclass(frozen=True, slots=True)
class End:
    """How a command ended.

    Attributes:
        code: Exit code, or minus the signal.
        said: Standard output and error together.
        operations: File operations it came to; 0 if it was killed.
        seconds: How long it took.
        struck: Whether the fault did strike.
    """

    code: int
    said: str
    operations: int
    seconds: float
    struck: bool


class _Hook:
    """Counts file operations below a folder in this process, and strikes."""

    def __init__(self, root: Path, fault: Fault | None, ballast: Path, struck: int) -> None:
        self.root, self.fault, self.ballast, self._struck = f"{root}/", fault, ballast, struck
        self.count = 0
        self.refusing = self.busy = False
        self._fsync, self._time = os.fsync, time.time

    def install(self) -> None:
        sys.addaudithook(self.hear)
        os.fsync = self.fsync  # type: ignore[assignment]

    def fsync(self, descriptor: Any) -> None:
        self.step(None)
        self._fsync(descriptor)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.busy or (event != "open" and event not in _CHANGES):
            return
        path = arguments[0]
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        self.busy = True
        try:
            where = os.path.normpath(Path.cwd() / os.fsdecode(path))
        finally:
            self.busy = False
        if where.startswith(self.root):
            self.step(where)

    def step(self, path: str | None) -> None:
        self.count += 1
        if self.refusing and path is not None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        if self.fault is not None and self.fault.kind not in (OUTSIDE, WORKER) and self.count == self.fault.at:
            self.busy = True
            try:
                os.write(self._struck, b"x")
                self.strike(self.fault)
            finally:
                self.busy = False
            if self.refusing and path is not None:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    def strike(self, fault: Fault) -> None:
        match fault.kind:
            case "SIGKILL":
                os.kill(os.getpid(), signal.SIGKILL)
            case "clock back, SIGKILL":
                # The jump comes first; the kill some operations later, so that what was written in between is tested.
                time.time = lambda: self._time() - _DAY
                self.fault = Fault("SIGKILL", self.count + 1 + fault.size % 8)
            case "SIGTERM":
                os.kill(os.getpid(), signal.SIGTERM)
            case "Ctrl-C":
                os.kill(os.getpid(), signal.SIGINT)
            case "torn write":
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
                self.limit(self.largest() + fault.size if fault.size % 2 else fault.size)
            case "largest file cannot grow":
                self.limit(self.largest() + fault.size)
            case "read-only folder":
                self.refusing = True
            case "full disk":
                fill(self.ballast, spare=fault.size)

    def largest(self) -> int:
        """Size of the largest file that the run itself has written: its events, once there are some."""
        events = [file.stat().st_size for file in Path(self.root).rglob("events.jsonl")]
        return max(events, default=0)

    def limit(self, size: int) -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


def fill(ballast: Path, *, spare: int) -> None:
    """Fill the disk that a file lies on, up to some bytes."""
    block = b"\0" * 65536
    with ballast.open("ab", buffering=0) as stream:
        while block:
            try:
                stream.write(block)
            except OSError:
                block = block[: len(block) // 2]
        stream.truncate(max(0, stream.tell() - spare))


def run_forked(words: str, place: Path, fault: Fault | None, *, seconds: float = 1.0, workers: Workers = list) -> End:
    """Run a command of elicitor in a forked child.

    Args:
        words: What follows ``elicitor``.
        place: Working folder; file operations below it count.
        fault: What strikes, if anything does.
        seconds: How long the unbroken command takes, for signals from outside.
        workers: Finds the processes that work for the command at this instant.

    Returns:
        How it ended.
    """
    said, into = os.pipe()
    struck, strikes = os.pipe()
    counted, counts = os.pipe()
    started = time.perf_counter()
    child = os.fork()
    if child == 0:
        for descriptor in (said, struck, counted):
            os.close(descriptor)
        _be_the_command(words, place, fault, into, strikes, counts)
    for descriptor in (into, strikes, counts):
        os.close(descriptor)
    hit = False
    if fault is not None and fault.kind == OUTSIDE:
        time.sleep(fault.at * seconds)
        os.kill(child, signal.SIGKILL)
    elif fault is not None and fault.kind == WORKER:
        hit = kill_worker(child, workers, after=fault.at * WORKING * seconds, which=fault.size)
    text = _drain(said).decode(errors="replace")
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    hit |= bool(_drain(struck)) or (fault is not None and fault.kind == OUTSIDE and code == -signal.SIGKILL)
    operations = int(_drain(counted) or b"0")
    # "full disk" must not stay full for what comes after.
    ballast(place).unlink(missing_ok=True)
    return End(code, text, operations, time.perf_counter() - started, hit)


def kill_worker(child: int, workers: Workers, *, after: float, which: int) -> bool:
    """Kill one of the processes that work for a command.

    Args:
        child: The command's process.
        workers: Finds them.
        after: Seconds since the first of them is there.
        which: Draws one.

    Returns:
        Whether there was one; a command may have ended before.
    """
    while not workers():
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return False
        time.sleep(0.02)
    time.sleep(after)
    if not (there := workers()):
        return False
    try:
        os.kill(there[which % len(there)], signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def ballast(place: Path) -> Path:
    """File that fills the disk of a trial; it is beside the place, so that no command sees it."""
    return place.with_name(f"{place.name}.ballast")


def _be_the_command(words: str, place: Path, fault: Fault | None, into: int, strikes: int, counts: int) -> None:
    code = 1
    try:
        os.dup2(into, 1)
        os.dup2(into, 2)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        os.chdir(place)
        os.environ["PWD"] = str(place)
        os.environ.setdefault("ELICITOR_CACHE", str(place / "cache"))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # PR_SET_PDEATHSIG: a child of a harness that was itself killed does not live on.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        from elicitor import cli

        hook = _Hook(place, fault, ballast(place), strikes)
        hook.install()
        sys.argv = ["elicitor", *words.split()]
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        hook.busy = True
        os.write(counts, str(hook.count).encode())
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def _drain(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read()


@contextmanager
def small_disk(folder: Path, *, megabytes: int) -> Iterator[bool]:
    """Mount a small disk in memory on a folder.

    Args:
        folder: An empty folder.
        megabytes: Its size.

    Yields:
        Whether that was possible; it takes the rights of root. Without them nothing is mounted.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={megabytes}m".encode()
    mounted = libc.mount(b"none", os.fsencode(folder), b"tmpfs", 0, options) == 0
    try:
        yield mounted
    finally:
        if mounted:
            libc.umount2(os.fsencode(folder), 2)  # MNT_DETACH: a child may still be ending
