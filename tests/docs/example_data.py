"""Made-up files with the names that the pages use."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

from pages import blocks

SUITE = """\
model: fake
seeds: [0, 1]
conditions: [zero_shot, random, found, golden]
label: {ensemble: {rounds: 2}}
tasks:
  - {name: claims, task: truthfulqa, data: claims.jsonl, test: held-out.jsonl}
  - {name: reviews, task: sentiment, data: reviews.jsonl}
"""


def claims(numbers: range) -> list[dict]:
    """Two answers to each of some sums, one right and one wrong."""
    return [
        {"id": f"c{n}-{k}", "question": f"What is {n} and {n}?", "choice": f"It is {2 * n + k}.", "label": k == 0,
         "consistency_id": f"sum {n}"}
        for n in numbers for k in range(2)
    ]  # fmt: skip


def reviews(numbers: range) -> list[dict]:
    """Short reviews of things from two shops."""
    return [
        {"id": f"r{n}", "text": f"{'Good' if n % 2 else 'Bad'} thing number {n}.", "product_id": f"p{n // 2}",
         "stars": 5 if n % 2 else 1, "label": ("negative", "positive")[n % 2], "source": f"shop {n % 3}"}
        for n in numbers
    ]  # fmt: skip


def pairs(numbers: range) -> list[dict]:
    """Two responses to a question, one of them an answer."""
    rows = []
    for n in numbers:
        answers = [f"Number {n} is {'even' if n % 2 == 0 else 'odd'}.", "No idea."]
        side = n // 2 % 2
        rows.append(
            {"id": f"q{n}", "question": f"Is {n} even or odd?", "choice": answers[side], "choice_2": answers[1 - side],
             "label": side == 0, "subset": "small" if n % 3 else "threes"}
        )  # fmt: skip
    return rows


def prompts(numbers: range) -> list[dict]:
    """Questions alone."""
    return [{"id": f"q{n}", "question": f"Is {n} even or odd?"} for n in numbers]


SUITE_FILES = {
    "claims.jsonl": claims(range(12)),
    "held-out.jsonl": claims(range(20, 26)),
    "reviews.jsonl": reviews(range(24)),
}

FILES = {
    "README.md": {
        **SUITE_FILES,
        "pairs.jsonl": pairs(range(12)),
        "unlabelled.jsonl": pairs(range(20, 32)),
        "prompts.jsonl": prompts(range(80)),
        "reviews.csv": reviews(range(24)),
    },
    "audit.md": {"reviews.jsonl": reviews(range(24))},
    "api.md": SUITE_FILES,
    "baselines.md": SUITE_FILES,
    "evaluation.md": SUITE_FILES,
    "index.md": {"reviews.jsonl": reviews(range(24)), "held-out.jsonl": reviews(range(60, 72))},
    "measurements.md": SUITE_FILES,
    "models.md": {"claims.jsonl": claims(range(4))},
    "probes.md": {"reviews.jsonl": reviews(range(400))},
    "reward.md": {
        "pairs.jsonl": pairs(range(12)),
        "more.jsonl": pairs(range(20, 32)),
        "held-out.jsonl": pairs(range(40, 52)),
        "bench.jsonl": pairs(range(60, 72)),
        "prompts.jsonl": prompts(range(80)),
        "test.jsonl": prompts(range(90, 94)),
    },
    "report.md": SUITE_FILES,
    "review.md": {"claims.jsonl": claims(range(12))},
    "scaling.md": {"claims.jsonl": claims(range(12))},
    "tasks.md": {"questions.jsonl": prompts(range(3))},
    "training.md": {
        "reviews.jsonl": reviews(range(24)),
        "more.jsonl": reviews(range(40, 52)),
        "held-out.jsonl": reviews(range(60, 72)),
        "claims.jsonl": claims(range(12)),
        "pairs.jsonl": pairs(range(12)),
    },
}
"""Files that a page takes for granted, by page."""


def write(page: Path, folder: Path, *, model: str) -> None:
    """Write the files of a page, those that it shows under their name, and each task as the file of its name.

    The second suite asks the given model.
    """
    (folder / "suite.yaml").write_text(SUITE)
    (folder / "suite-large.yaml").write_text(SUITE.replace("model: fake", f"model: {model}"))
    for name, rows in FILES.get(page.name, {}).items():
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            if name.endswith(".csv"):
                table = csv.DictWriter(file, rows[0].keys())
                table.writeheader()
                table.writerows(rows)
            else:
                file.writelines(json.dumps(row) + "\n" for row in rows)
    for block in blocks(page, "yaml", "jsonl", "csv"):
        task = re.match(r"name: (\w+)\n", block.text)
        name = block.title or (f"{task[1]}.yaml" if task else None)
        if name:
            (folder / name).write_text(block.text, encoding="utf-8")
