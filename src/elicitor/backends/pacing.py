"""When to send the next request: rate limits, growing pauses after failures, and what a server asks for. Pure, no clock."""

from __future__ import annotations

import email.utils
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

FIRST_PAUSE = 0.5
"""Seconds of the first pause after a failure, before jitter."""
LONGEST_PAUSE = 30.0
"""Seconds of the longest pause that nobody asked for, before jitter."""


@dataclass(slots=True)
class Pace:
    """Spaces out what is limited per minute; there are no bursts, so no window of a minute ever holds more.

    Attributes:
        per_minute: Amount a minute; None for no limit.
        free_at: Time from which the next may be sent, in seconds.
    """

    per_minute: float | None
    free_at: float = 0.0

    def reserve(self, amount: float, *, now: float) -> float:
        """Take a place in the queue.

        Args:
            amount: What is about to be sent.
            now: The time, in seconds.

        Returns:
            Seconds to wait before sending it.
        """
        if self.per_minute is None:
            return 0.0
        start = max(now, self.free_at)
        self.free_at = start + amount * 60 / self.per_minute
        return start - now


def pause(failures: int, *, rng: np.random.Generator) -> float:
    """Seconds to wait after so many failures in a row: doubling, with jitter so that clients do not return together.

    Args:
        failures: At least 1.
        rng: Source of the jitter.

    Returns:
        Between half of and all of the doubled pause.
    """
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 60)) * float(rng.uniform(0.5, 1))


def asked_pause(headers: Mapping[str, str], *, wall_time: float) -> float:
    """Seconds that a server's ``Retry-After`` header asks for; 0 without one or with nonsense in it.

    Args:
        headers: Headers of the answer, by lower-case name.
        wall_time: Seconds since the epoch, for headers that name a date.
    """
    text = headers.get("retry-after", "")
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - wall_time
        except (ValueError, TypeError):
            return 0.0
    return seconds if 0 < seconds < float("inf") else 0.0
