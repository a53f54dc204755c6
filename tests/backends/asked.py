"""Prompts that the tests of scores on disk ask."""

from elicitor.backends.base import Prompt

CANDIDATES = ((48,), (49, 50))


def prompts(n, start=0):
    return [Prompt((tuple(f"text {i}:".encode()),), CANDIDATES) for i in range(start, start + n)]
