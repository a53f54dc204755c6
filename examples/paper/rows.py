"""Data files made of data files.

python rows.py split gsm8k_claims.jsonl --column category --values easy hard -o FOLDER    (easy, hard, hard-test .jsonl)
python rows.py short alpaca_human_pairs.jsonl --longest 300 -o FOLDER/pairs.jsonl        (rows of few characters)
python rows.py join a.jsonl b.jsonl --label topic --each 100 -o FOLDER/topics.jsonl       (column topic becomes the label)
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from elicitor.errors import DataError
from elicitor.files import read_rows, write_rows
from elicitor.terminal import mistakes_in_a_line

Row = Mapping[str, Any]


def split(rows: Sequence[Row], *, column: str, values: Sequence[str], group: str) -> dict[str, list[Row]]:
    """Rows by their value of a column; every second group of the last value is set aside to test on.

    Raises:
        DataError: If no row has one of the values.
    """
    parts = {value: [row for row in rows if row.get(column) == value] for value in values}
    for value, some in parts.items():
        if not some:
            raise DataError(f"no row has {column} = {value!r}", fix="give another --column or --values")
    last = values[-1]
    tested = set(list(dict.fromkeys(row[group] for row in parts[last]))[1::2])
    test = [row for row in parts[last] if row[group] in tested]
    return parts | {last: [row for row in parts[last] if row[group] not in tested], f"{last}-test": test}


def short(
    rows: Sequence[Row], *, longest: int, columns: Sequence[str] = ("question", "choice", "choice_2")
) -> list[Row]:
    """Rows whose columns have at most so many characters together.

    Raises:
        DataError: If none is so short.
    """
    some = [row for row in rows if sum(len(row[column]) for column in columns) <= longest]
    if not some:
        raise DataError(f"no row has at most {longest} characters", fix="give a larger --longest")
    return some


def join(files: Sequence[Sequence[Row]], *, label: str, each: int) -> list[dict[str, Any]]:
    """The first rows of several files by turns, with id, text and what the column says as the label."""
    cut = [rows[:each] for rows in files]
    order = [rows[k] for k in range(max(map(len, cut))) for rows in cut if k < len(rows)]
    return [{"id": row["id"], "text": row["text"], "label": str(row[label])} for row in order]


def main() -> None:
    """Split one file, keep its short rows, or join several."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("split", "short", "join"))
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--column")
    parser.add_argument("--values", nargs="+", help="the last one is tested on")
    parser.add_argument("--group", default="consistency_id", help="column of what stays together")
    parser.add_argument("--longest", type=int, default=300, help="characters of a row")
    parser.add_argument("--label")
    parser.add_argument("--each", type=int, default=100, help="rows of each file")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    files = [read_rows(file) for file in options.files]
    if options.what == "short":
        write_rows(options.output, short(files[0], longest=options.longest))
        return
    if options.what == "join":
        write_rows(options.output, join(files, label=options.label, each=options.each))
        return
    for name, some in split(files[0], column=options.column, values=options.values, group=options.group).items():
        write_rows(options.output / f"{name}.jsonl", some)


if __name__ == "__main__":
    with mistakes_in_a_line():
        main()
