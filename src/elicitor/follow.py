"""Where a run or a training stands, read from its folder by another process, again and again at little cost.

``events.jsonl`` is read on from where the last look ended. A line that is half written waits for its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from elicitor.control import pending, state_of
from elicitor.errors import ConfigError, DataError
from elicitor.files import parse_json, read_json
from elicitor.runs import EVENTS, has_run, read_manifest
from elicitor.search.events import ABOUT_SCORES, apply_changes
from elicitor.shapes import EventRow, TrainingProgress, check
from elicitor.train.folder import MADE_FROM, PROGRESS

_CHUNK = 2**20
_KNOWN = 256
"""Bytes before the place where reading goes on that must be as they were."""


def check_watchable(folder: Path) -> None:
    """Refuse a folder in which neither a run nor a training has begun.

    Raises:
        ConfigError: If it is none.
    """
    if not has_run(folder) and not (folder / MADE_FROM).is_file():
        raise ConfigError(
            f"{folder} holds no run and no training",
            fix="give the --output-dir of 'elicitor label' or 'elicitor train'",
        )


class Tail:
    """The lines of a growing file, each given once.

    Resuming a run may cut its events; what has been given then no longer holds, and everything is given anew.

    Args:
        path: The file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._before = b""

    def read(self) -> tuple[bool, list[bytes]]:
        """Some of the lines that have been completed since the last call.

        Returns:
            Whether these are lines from the beginning, all earlier ones being void; and the lines, none once all are read.
        """
        try:
            stream = self._path.open("rb")
        except FileNotFoundError:
            return self._start_again(), []
        with stream:
            stream.seek(self._at - len(self._before))
            anew = stream.read(len(self._before)) != self._before and self._start_again()
            size = _CHUNK
            while True:
                stream.seek(self._at)
                found = stream.read(size)
                whole = found[: found.rfind(b"\n") + 1]
                if whole or len(found) < size:
                    break
                size *= 2
        self._at += len(whole)
        self._before = (self._before + whole)[-_KNOWN:]
        return anew, whole.split(b"\n")[:-1]

    def _start_again(self) -> bool:
        had = self._at > 0
        self._at, self._before = 0, b""
        return had


class RunFollower:
    """Follows a search by its events; ``held`` has the labels after the last one, by example id.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tail = Tail(folder / EVENTS)
        self._n: int = read_manifest(folder)["examples"]
        self._begin()

    def look(self) -> dict[str, Any]:
        """Read what is new, and say where the search stands.

        Returns:
            ``state``, what has been ``asked`` and is not done yet; ``iteration`` and ``labelled``, summed over the batches;
            ``utility`` of the batch that was last in work; ``n`` examples in all; ``tokens`` computed, and ``seconds`` in
            the model.
        """
        # The state first: the events of a run that has finished are all there.
        state, asked = state_of(self._folder), pending(self._folder)
        for anew, lines in self._news():
            if anew:
                self._begin()
            for line in lines:
                self._count(self._event(line))
        iterations, labelled = (sum(batch[k] for batch in self._batches.values()) for k in (0, 1))
        return {
            "state": state,
            "asked": asked,
            "iteration": iterations,
            "utility": self._utility,
            "labelled": labelled,
            "n": self._n,
            "tokens": self._tokens,
            "seconds": round(self._seconds, 3),
        }

    def _begin(self) -> None:
        self.held: dict[str, str] = {}
        self._batches: dict[int, tuple[int, int]] = {}
        self._utility: float | None = None
        self._tokens = 0
        self._seconds = 0.0

    def _news(self) -> Iterator[tuple[bool, list[bytes]]]:
        while True:
            anew, lines = self._tail.read()
            if not anew and not lines:
                return
            yield anew, lines

    def _event(self, line: bytes) -> dict[str, Any]:
        place = str(self._folder / EVENTS)
        try:
            event = parse_json(line, place=place)
        except ValueError as error:
            raise DataError(f"{place} holds a line that is not JSON", fix="stop the run and resume it") from error
        check(EventRow, event, place=place)
        return event  # type: ignore[no-any-return]

    def _count(self, event: dict[str, Any]) -> None:
        if event["kind"] in ABOUT_SCORES:
            return
        apply_changes(event, self.held)
        self._batches[event["batch"]] = event["iteration"], event["n_labelled"]
        self._utility = event["utility"]
        self._tokens += event["tokens_computed"]
        self._seconds += event["seconds"]


class TrainingFollower:
    """Follows a training by the file in which it keeps where it stands.

    Args:
        folder: Its folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def look(self) -> dict[str, Any]:
        """Say where the training stands: ``state``, what has been ``asked``, ``step`` of ``steps``, newest ``loss``."""
        where = {"step": 0, "steps": 0, "loss": None}
        if (self._folder / PROGRESS).exists():
            where |= read_json(self._folder / PROGRESS, shape=TrainingProgress)
        return {"state": state_of(self._folder), "asked": pending(self._folder), **where}


Follower = RunFollower | TrainingFollower


def follow(folder: Path) -> Follower:
    """Follow what a folder holds.

    Raises:
        ConfigError: If it is neither a run nor a training.
    """
    check_watchable(folder)
    return RunFollower(folder) if has_run(folder) else TrainingFollower(folder)
