"""A run with found labels, data with gold, and settings that train in seconds."""

import json

import pytest

import elicitor


@pytest.fixture
def review_files(tmp_path):
    """Training and test reviews whose first word decides, with gold."""

    def write(name, numbers):
        rows = [{"id": f"r{i}", "text": f"{'good' if i % 2 else 'bad'} thing {i}", "label": i % 2} for i in numbers]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path / name

    return write("reviews.jsonl", range(24)), write("reviews_test.jsonl", range(100, 120))


@pytest.fixture
def run(review_files, tmp_path):
    """A finished run of the fake model on the training reviews."""
    return elicitor.label(
        review_files[0], task="sentiment", model="fake", output_dir=tmp_path / "run", icm={"iterations": 20}
    )
