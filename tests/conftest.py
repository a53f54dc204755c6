"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

from elicitor.backends.fake import FakeBackend
from elicitor.config import ObjectiveConfig, PlanConfig
from elicitor.consistency import Constraints
from elicitor.data import Dataset, Example
from elicitor.objective import Meter, Problem
from elicitor.prompts import PromptEncoder
from elicitor.tasks import load_task

# Tiny models run faster on one thread, and two processes that both spin on all cores wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    """Folder with the real data sets, which are never part of the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real data not found: {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture
def problem():
    """Makes a labelling problem in the fake world: ``n`` texts in groups, the hidden concept unknown to it."""

    def make(*, n=16, group_size=1, constraint="none", plan="tree", reusable=10_000_000, fake=None, **objective):
        examples = tuple(
            Example(f"e{i}", {"text": f"text {i}"}, f"g{i // group_size}", str(i % group_size), "here")
            for i in range(n)
        )
        declared = {"template": "{text}:", "labels": ["no", "yes"], "constraint": constraint}
        if constraint != "none":
            declared |= {"group": "group", "key": "key"}
        task = load_task(declared)
        dataset = Dataset(examples, task.label_space, "here", "print")
        backend = fake or FakeBackend(reusable=reusable)
        return Problem(
            dataset=dataset,
            encoder=PromptEncoder(backend.tokenizer, task, dataset),
            constraints=Constraints.from_dataset(dataset, task.constraint),
            backend=backend,
            objective=ObjectiveConfig(**objective),
            plan=PlanConfig(kind=plan),
            meter=Meter(),
        )

    return make
