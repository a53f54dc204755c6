"""The data set of ``elicitor quickstart``: is a sentence about the past or about the future?

The sentences are original; the gold labels of the unlabelled part are kept aside. ``docs/lab-log.md`` says why this task.
"""

from __future__ import annotations

from pathlib import Path

from elicitor.config import RunConfig, build_config

FOLDER = Path(__file__).parent
TASK = FOLDER / "tense.yaml"
"""What is asked, declared as a user would."""
DATA = FOLDER / "sentences.jsonl"
"""Sentences without labels."""
GOLD = FOLDER / "sentences_gold.jsonl"
"""Their gold labels, for the final table alone."""
TEST = FOLDER / "sentences_test.jsonl"
"""Other sentences with gold labels."""
LIMIT = 40
"""Sentences that are labelled, so that the whole of it takes at most four minutes on two slow cores."""
TEST_LIMIT = 80
"""Test sentences that are asked."""


def settings(*, seed: int = 0) -> RunConfig:
    """Settings of the run.

    Args:
        seed: Seed of every random choice.

    Returns:
        What ``elicitor label`` would be told.
    """
    flags = {
        "data": str(DATA),
        "task": str(TASK),
        "model": "bundled",
        "search": "bootstrap",
        "objective.calibration": "batch",
        "limit": LIMIT,
        "seed": seed,
    }
    return build_config(flags=flags)
