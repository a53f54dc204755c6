"""The data set of ``elicitor quickstart``: short original reviews, with the gold labels of the unlabelled part kept aside.

Run `settings` through `elicitor.labelling.run`, then compare with gold by `elicitor.evaluate`; ``docs/quickstart.md`` says
why this task, and what to expect.
"""

from __future__ import annotations

from pathlib import Path

from elicitor.config import RunConfig, build_config

FOLDER = Path(__file__).parent
DATA = FOLDER / "reviews.jsonl"
"""Reviews without labels."""
GOLD = FOLDER / "reviews_gold.jsonl"
"""Their gold labels, for the final table alone."""
TEST = FOLDER / "reviews_test.jsonl"
"""Other reviews with gold labels."""
LIMIT = 40
"""Reviews that are labelled, so that the whole of it takes at most four minutes on two slow cores."""
TEST_LIMIT = 100
"""Test reviews that are asked."""


def settings(*, seed: int = 0) -> RunConfig:
    """Settings of the run.

    Args:
        seed: Seed of every random choice.

    Returns:
        What ``elicitor label`` would be told.
    """
    flags = {
        "data": str(DATA),
        "task": "sentiment",
        "model": "bundled",
        "objective.calibration": "batch",
        "limit": LIMIT,
        "seed": seed,
    }
    return build_config(flags=flags)
