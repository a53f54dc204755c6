"""Small made-up files under the names that the scripts beside this one read: python smoke_data.py FOLDER.

They show that everything runs. What is measured on them says nothing about a model or a method.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from elicitor.files import write_rows

Row = dict[str, Any]
_NAMES = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def claims(numbers: Iterable[int]) -> list[Row]:
    """Two answers to each of some sums, one right and one wrong."""
    return [
        {"id": f"sum{n}-{k}", "question": f"What is {n} and {n}?", "choice": f"It is {2 * n + k}.", "label": int(k == 0),
         "consistency_id": n}
        for n in numbers for k in range(2)
    ]  # fmt: skip


def solutions(numbers: Iterable[int]) -> list[Row]:
    """Two solutions of each sum; the larger half of the numbers is called hard."""
    return [
        {**row, "id": f"sol{row['id']}", "choice": f"We add. {row['choice'][:-1].replace('It is', 'The answer is')}.",
         "category": "hard" if row["consistency_id"] >= 24 else "easy"}
        for row in claims(numbers)
    ]  # fmt: skip


def pairs(numbers: Iterable[int]) -> list[Row]:
    """Two responses to a question, one of them an answer, and what three annotators said."""
    rows = []
    for n in numbers:
        answers = (f"{n} is {'odd' if n % 2 else 'even'}.", "No idea.")
        first = int(n % 4 < 2)
        votes = [first, first, 1 - first if n % 3 == 0 else first]
        rows.append(
            {"id": f"pair{n}", "question": f"Is {n} even or odd?", "choice": answers[1 - first], "choice_2": answers[first],
             "label": first, "consistency_id": n, "human_votes": votes}
        )  # fmt: skip
    return rows


def posts(numbers: Iterable[int]) -> list[Row]:
    """Two posts, the first of which is gold in half of the rows."""
    return [
        {"id": f"post{n}", "question": "Who wrote it?", "choice": f"I counted {_NAMES[n % 9]} birds on day {n}.",
         "choice_2": f"On day {n} I baked {_NAMES[(n + 4) % 9]} loaves.", "label": n % 2, "consistency_id": n,
         "human_votes": [n % 2, 1 - n % 2, n % 2]}
        for n in numbers
    ]  # fmt: skip


def statements(topic: str, numbers: Iterable[int]) -> list[Row]:
    """Statements about one topic."""
    return [
        {"id": f"{topic}{n}", "text": f"{topic.title()} number {n} is well known.", "topic": topic} for n in numbers
    ]


FILES: dict[str, Callable[[], list[Row]]] = {
    "truthfulqa_pilot_train.jsonl": lambda: claims(range(16)),
    "truthfulqa_pilot_test.jsonl": lambda: claims(range(30, 42)),
    "gsm8k_claims.jsonl": lambda: solutions(range(48)),
    "alpaca_human_pairs.jsonl": lambda: pairs(range(24)),
    "hh_helpful_pairs.jsonl": lambda: pairs(range(100, 148)),
    "blog_gender_pairs.jsonl": lambda: posts(range(24)),
    "statements_cities.jsonl": lambda: statements("cities", range(8)),
    "statements_animals.jsonl": lambda: statements("animals", range(8)),
    "statements_companies.jsonl": lambda: statements("companies", range(8)),
    "statements_elements.jsonl": lambda: statements("elements", range(8)),
}


def main(folder: Path) -> None:
    """Write all files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in FILES.items():
        write_rows(folder / name, make())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
