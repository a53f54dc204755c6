"""Pause, resume and stop: how another process controls what runs in a folder, between two of its steps.

Whoever asks writes ``control.json``; what runs looks for it after each step, which costs one failed look-up while it is not
there. Nothing is written but a mark while it waits, and no random number is drawn: a pause changes no result. What is left
from an earlier process is dropped when a folder is opened, so a run that was stopped goes on when it is resumed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Literal, get_args

from elicitor.errors import ConfigError
from elicitor.files import is_held, write_json, writing
from elicitor.runs import LOCK

Action = Literal["pause", "resume", "stop"]
State = Literal["running", "paused", "stopping", "finished", "idle"]
OnPause = Callable[[bool], None]
"""Told that a pause begins (True) or ends."""

ACTIONS: tuple[Action, ...] = get_args(Action)
CONTROL = "control.json"
ENDS = ("metrics.json", "training.json")
"""Files whose presence says that a run or a training has finished."""
_PAUSED = ".paused"
_LONGEST = 4096
"""Bytes of a control file that are looked at; a request has about twenty."""
_LOOK_SECONDS = 0.2
"""How often a paused run looks whether it may go on."""

_folders: ContextVar[tuple[Path, ...]] = ContextVar("folders", default=())
_observers: ContextVar[tuple[OnPause, ...]] = ContextVar("observers", default=())


class Stopped(KeyboardInterrupt):
    """Another process asked what runs here to stop; it ends as it does after Ctrl-C, and ``resume`` goes on."""


class _Clock:
    """Seconds that this process has spent on work: stands still while it is paused."""

    def __init__(self) -> None:
        self._waited = 0.0
        self._since: float | None = None

    def now(self) -> float:
        return (time.monotonic() if self._since is None else self._since) - self._waited

    @contextmanager
    def halted(self) -> Iterator[None]:
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._waited += time.monotonic() - self._since
            self._since = None


_clock = _Clock()
working_time = _clock.now
"""A clock like `time.monotonic`, pauses left out: what is measured by it is the cost of the work."""


@contextmanager
def controlled(folder: Path) -> Iterator[None]:
    """Obey what is asked of a folder, whose lock is held; folders may be nested, and each is obeyed.

    Args:
        folder: Folder of a run or training. Requests that an earlier process has left there are dropped.
    """
    with writing(folder):
        _clear(folder)
    token = _folders.set((*_folders.get(), folder))
    try:
        yield
    finally:
        _folders.reset(token)
        # A folder that has become read-only keeps what was asked, until it is opened again.
        with suppress(OSError):
            _clear(folder)


@contextmanager
def on_pause(observer: OnPause) -> Iterator[None]:
    """Tell an observer of pauses, as long as the block lasts."""
    token = _observers.set((*_observers.get(), observer))
    try:
        yield
    finally:
        _observers.reset(token)


def folders() -> tuple[Path, ...]:
    """Folders that are controlled here, the outermost first."""
    return _folders.get()


def between_steps() -> None:
    """Look what is asked: wait while it is a pause.

    Raises:
        Stopped: If it is to stop.
    """
    if stop_asked():
        raise Stopped


def stop_asked(look: Callable[[], Action | None] | None = None) -> bool:
    """Wait while a pause is asked for.

    Args:
        look: Says what is asked, if not the control files alone do.

    Returns:
        Whether to stop.
    """
    look = look or asked
    now = look()
    if now == "pause":
        with _pausing():
            while (now := look()) == "pause":
                time.sleep(_LOOK_SECONDS)
    return now == "stop"


def asked() -> Action | None:
    """What the control files of all folders here ask for; stopping wins."""
    found = {_read(folder) for folder in _folders.get()}
    return "stop" if "stop" in found else "pause" if "pause" in found else None


def pending(folder: Path) -> Action | None:
    """What has been asked of a folder and is not done yet."""
    if not is_held(folder / LOCK):
        return None
    action, waits = _read(folder), (folder / _PAUSED).exists()
    if action == "stop":
        return action
    return None if (action == "pause") == waits else "resume" if waits else "pause"


def request(folder: Path, action: Action) -> State:
    """Ask what runs in a folder to pause, to go on or to stop; it obeys after the step that it is at.

    Args:
        folder: Folder of a run or training.
        action: What to ask; ``resume`` takes back what was asked before.

    Returns:
        The state at this moment, which may still be ``running``.

    Raises:
        ConfigError: If nothing runs there.
    """
    if not is_held(folder / LOCK):
        raise ConfigError(
            f"nothing is running in {folder}", fix="go on with it: the command that made it, and --resume"
        )
    if action == "resume":
        (folder / CONTROL).unlink(missing_ok=True)
    else:
        write_json(folder / CONTROL, {"action": action})
    return state_of(folder)


def state_of(folder: Path) -> State:
    """What goes on in the folder of a run or training.

    Returns:
        ``paused`` once a step has ended and it waits, ``stopping`` from the request on; ``idle`` if no process works there
        and the work is not done.
    """
    if not is_held(folder / LOCK):
        return "finished" if any((folder / name).exists() for name in ENDS) else "idle"
    if _read(folder) == "stop":
        return "stopping"
    return "paused" if (folder / _PAUSED).exists() else "running"


@contextmanager
def _pausing() -> Iterator[None]:
    paused = folders()
    # What an observer saves is there for whoever sees that the run waits.
    for tell in _observers.get():
        tell(True)
    for folder in paused:
        (folder / _PAUSED).touch()
    try:
        with _clock.halted():
            yield
    finally:
        for folder in paused:
            (folder / _PAUSED).unlink(missing_ok=True)
        for tell in _observers.get():
            tell(False)


def _clear(folder: Path) -> None:
    for name in (CONTROL, _PAUSED):
        (folder / name).unlink(missing_ok=True)


def _read(folder: Path) -> Action | None:
    # A file that somebody else has put there must not end a run of hours: what says nothing known asks for nothing.
    try:
        with (folder / CONTROL).open("rb") as stream:
            values = json.loads(stream.read(_LONGEST))
    except (OSError, ValueError, RecursionError):
        return None
    action = values.get("action") if isinstance(values, dict) else None
    return action if action in ("pause", "stop") else None
