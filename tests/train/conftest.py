"""Tiny models, pairs that a rule tells apart, and a run of the fake model on reviews whose first word decides."""

import json

import pytest
from tiny_models import write_tiny

import elicitor


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folder of a tiny Llama with a tokenizer that has a chat template."""
    for name in ("torch", "transformers", "tokenizers", "trl", "peft", "datasets"):
        pytest.importorskip(name)
    path = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny(path)
    return path


@pytest.fixture
def plain(tiny, tmp_path):
    """The tiny model without a chat template."""
    import shutil

    path = tmp_path / "plain"
    shutil.copytree(tiny, path)
    (path / "chat_template.jinja").unlink()
    return path


@pytest.fixture
def opinionated(tiny, tmp_path):
    """The tiny model with a folder that says how to sample from it."""
    import shutil

    path = tmp_path / "opinionated"
    shutil.copytree(tiny, path)
    own = json.loads((path / "generation_config.json").read_text())
    (path / "generation_config.json").write_text(
        json.dumps(own | {"repetition_penalty": 5.0, "min_p": 0.5, "top_k": 1})
    )
    return path


def make_pair_rows(n, *, start=0):
    """Pairs in which the response with z is the better one."""
    rows = []
    for i in range(start, start + n):
        good, bad = f"zz{'z' * (i % 3)} {i}", f"xy {i}"
        first = i % 2
        rows.append(
            {
                "id": f"p{i}",
                "question": f"what {i}",
                "choice": good if first else bad,
                "choice_2": bad if first else good,
                "label": first,
                "human_votes": [first, first, 1 - first],
                "subset": "even" if i % 4 < 2 else "odd",
            }
        )
    return rows


@pytest.fixture(scope="session")
def pair_rows():
    """Makes rows of pairs in which the response with z is the better one."""
    return make_pair_rows


@pytest.fixture
def pairs_file(tmp_path):
    """Makes a file of pairs."""

    def make(n, *, start=0, name="pairs.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in make_pair_rows(n, start=start)))
        return path

    return make


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
