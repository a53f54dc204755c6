"""An interval of a share that is right for few observations too, and where all of them agree."""

from __future__ import annotations

import math

_Z = 1.959963984540054
"""Quantile of the normal distribution for 95%."""


def wilson(share: float, *, n: float) -> tuple[float, float]:
    """Wilson's 95% score interval of a share (Wilson 1927).

    Args:
        share: The share found, in [0, 1].
        n: Independent observations, or an effective sample size, positive.

    Returns:
        Its ends, in [0, 1] and never on the wrong side of the share.
    """
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    reach = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + (_Z / (2 * n)) ** 2)
    # At 0 and 1 an end is the share itself, but for rounding.
    return max(0.0, min(share, centre - reach)), min(1.0, max(share, centre + reach))
