"""What reinforcement learning leaves on disk while it runs: rollouts, curves, the best adapter so far.

All of it can be cut back to a checkpoint's step, and none of it grows without bound.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from elicitor.files import iter_rows, read_json, read_rows, write_json, write_rows
from elicitor.train.folder import BEST, last_checkpoint

ROLLOUTS = "rollouts.jsonl"
CURVE = "curve.jsonl"
STEPS_LOGGED = 200
"""Steps whose rollouts are kept, spread over the training."""


@dataclass(frozen=True, slots=True)
class Point:
    """A policy on the prompts that choose the checkpoint.

    Attributes:
        step: Optimizer steps done.
        reward: Mean reward.
        kl: Mean of log p(response) under the policy less that under its start, over its own responses, in nats.
        tokens: Mean tokens of a response.
        ended: Share of responses that ended by themselves.
        distinct: Share of different pairs of words within a response.
    """

    step: int
    reward: float
    kl: float
    tokens: float
    ended: float
    distinct: float


class RlLog:
    """Files of one training.

    Args:
        folder: Its folder.
        steps: Optimizer steps in all.
        max_kl: Points of the curve that are further from the start are never the best.
    """

    def __init__(self, folder: Path, *, steps: int, max_kl: float) -> None:
        self.folder = folder
        self._every = max(1, math.ceil(steps / STEPS_LOGGED))
        self._max_kl = max_kl

    def cut(self, step: int) -> None:
        """Forget what came after a step; rollouts carry the number of the steps that were done before them."""
        for name, last in ((ROLLOUTS, step - 1), (CURVE, step)):
            path = self.folder / name
            if path.exists():
                # A kill may have left part of a line.
                until = path.read_bytes().rfind(b"\n") + 1
                write_rows(path, [row for row in iter_rows(path, until=until) if row["step"] <= last])
        if (best := self._best_until(step)) is None:
            (self.folder / BEST).unlink(missing_ok=True)
        else:
            self._name_best(best)

    def add_rollouts(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep the rollouts of a step, if it is one of those that are logged."""
        if step % self._every == 0:
            self._append(ROLLOUTS, [{"step": step, **row} for row in rows])

    def add_point(self, point: Point) -> None:
        """Keep a point of the curves."""
        self._append(CURVE, [asdict(point)])

    def points(self) -> list[Point]:
        """The curves so far."""
        path = self.folder / CURVE
        return [Point(**row) for row in read_rows(path)] if path.exists() else []

    def best(self) -> dict[str, Any] | None:
        """Step and reward of the best adapter so far."""
        return read_json(self.folder / BEST) if (self.folder / BEST).exists() else None

    def best_folder(self, step: int) -> Path:
        """Where the adapter of a step is kept while it is the best."""
        return self.folder / f"best-{step}"

    def set_best(self, point: Point) -> None:
        """Name the best adapter, which is in its folder already, and drop the others.

        What was the best at the last checkpoint stays: a kill before the next one goes back to it.
        """
        self._name_best(point)
        checkpoint = last_checkpoint(self.folder)
        before = None if checkpoint is None else self._best_until(int(checkpoint.name.rpartition("-")[2]))
        kept = {self.best_folder(one.step) for one in (point, before) if one is not None}
        for other in self.folder.glob("best-*"):
            if other not in kept:
                shutil.rmtree(other)

    def _best_until(self, step: int) -> Point | None:
        """The best point of the curves up to a step, of those that have not gone too far; of equal ones the first."""
        points = [point for point in self.points() if point.step <= step and point.kl <= self._max_kl]
        return max(points, key=lambda point: point.reward, default=None)

    def _name_best(self, point: Point) -> None:
        write_json(self.folder / BEST, {"step": point.step, "reward": point.reward})

    def _append(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        with (self.folder / name).open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
