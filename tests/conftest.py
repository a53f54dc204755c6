"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

# Tiny models run faster on one thread, and two processes that both spin on all cores wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    """Folder with the real data sets, which are never part of the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real data not found: {SHARED_DATA}")
    return SHARED_DATA
