"""What the scripts of this folder share about their command lines: lists, and mistakes told without a traceback."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection


def integers(text: str) -> list[int]:
    """Whole numbers with commas between."""
    return [int(part) for part in text.split(",")]


def numbers(text: str) -> list[float]:
    """Numbers with commas between."""
    return [float(part) for part in text.split(",")]


def names(known: Collection[str]) -> Callable[[str], list[str]]:
    """Some of the names that there are, with commas between."""

    def parse(text: str) -> list[str]:
        found = text.split(",")
        for name in found:
            if name not in known:
                raise argparse.ArgumentTypeError(f"unknown {name!r}: choose from {', '.join(known)}")
        return found

    return parse
