"""Rows out of files: JSON Lines, CSV, TSV, Parquet and Hugging Face data sets. Knows nothing of tasks or labels.

Every row comes with its place (``claims.jsonl line 3``), so that whatever is wrong with it can be named.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any

from elicitor.errors import DataError, reason_of

LONGEST_LINE = 2**26
"""Bytes of a line at most, so that a few kilobytes of gzip cannot fill the memory."""
LONGEST_CELL = 2**24
"""Characters of a CSV cell at most, beyond any model's window; Python's own limit of 131,072 would refuse long documents."""

FORMATS = ".jsonl, .json, .jsonl.gz, .csv, .tsv, .parquet"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file.

    Attributes:
        location: File and line (or row), for error messages.
        values: Value by column.
    """

    location: str
    values: dict[str, Any]


def read_rows(source: str, *, limit: int | None = None) -> list[Row]:
    """Read the rows of a file or a Hugging Face data set.

    Args:
        source: Path of a file, or ``hf:NAME@SPLIT`` with an optional ``:CONFIG`` before the ``@``.
        limit: Stop after this many rows.

    Returns:
        The rows, at least one.

    Raises:
        DataError: If the source does not exist, has an unknown format, is broken, or has no rows.
        ValueError: If the limit is not positive.
    """
    return list(iter_rows(source, limit=limit))


def iter_rows(source: str, *, limit: int | None = None) -> Iterator[Row]:
    """Like `read_rows`, but one row at a time, so that a source need not fit into memory."""
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    empty = True
    for row in islice(_rows(source), limit):
        empty = False
        yield row
    if empty:
        raise DataError(f"{source} has no rows", fix="give a file with at least one example")


def _rows(source: str) -> Iterator[Row]:
    if source.startswith("hf:"):
        return _hub_rows(source)
    path = Path(source)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"data {source!r} {what}", fix="give a file, or hf:NAME@SPLIT for the Hugging Face hub")
    name = path.name.lower().removesuffix(".gz")
    if name.endswith((".jsonl", ".ndjson", ".json")):
        return _json_rows(path)
    if name.endswith((".csv", ".tsv")):
        return _csv_rows(path, delimiter="\t" if name.endswith(".tsv") else ",")
    if name.endswith(".parquet"):
        return _parquet_rows(path)
    raise DataError(f"{path} has an unknown format", fix=f"use one of {FORMATS}")


def _open_bytes(path: Path) -> IO[bytes]:
    return gzip.GzipFile(path) if path.name.lower().endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines of a UTF-8 text file, with their line ends."""
    try:
        with _open_bytes(path) as stream:
            for number, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE + 1), b""), start=1):
                if len(line) > LONGEST_LINE:
                    raise DataError(
                        f"{path} line {number} is longer than {LONGEST_LINE:,} bytes",
                        fix="check that it is a file of rows, one a line",
                    )
                raw = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                try:
                    text = raw.decode()
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{path} line {number} is not UTF-8: byte 0x{raw[error.start]:02x} at column {error.start + 1}",
                        fix="save the file as UTF-8, for instance with: iconv -f latin1 -t utf-8",
                    ) from error
                yield number, text
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}", fix="check that the file is whole and readable") from error


def _json_rows(path: Path) -> Iterator[Row]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        location = f"{path} line {number}"
        try:
            values = json.loads(
                line.rstrip("\r\n"),
                object_pairs_hook=partial(_without_repeats, location),
                parse_constant=partial(_refuse_constant, location),
            )
        except json.JSONDecodeError as error:
            fix = "write one JSON object a line (JSON Lines), not one array over many lines"
            raise DataError(f"{location} column {error.colno} is not JSON: {error.msg}", fix=fix) from error
        except RecursionError as error:
            raise DataError(f"{location} is nested too deeply", fix="write flat JSON objects") from error
        except DataError:
            raise
        except ValueError as error:
            raise DataError(f"{location} holds a number that is too long: {error}", fix="write it as text") from error
        if not isinstance(values, dict):
            raise DataError(
                f"{location} holds {type(values).__name__}, not an object", fix="write one JSON object a line"
            )
        yield Row(location, values)


def _without_repeats(location: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{location} has the key {twice!r} twice", fix="keep one of them")
    return values


def _refuse_constant(location: str, name: str) -> Any:
    raise DataError(f"{location} holds {name}, which is not JSON", fix="write null, or a text")


def _csv_rows(path: Path, *, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_CELL)
    # csv.reader wants lines; numbering by its own count keeps quoted line breaks right.
    reader = csv.reader((line for _, line in _lines(path)), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        _refuse_twice(f"{path} line 1", header)
        while True:
            begins = reader.line_num + 1
            cells = next(reader, None)
            if cells is None:
                return
            if not cells:
                continue
            location = f"{path} line {begins}"
            if len(cells) != len(header):
                raise DataError(
                    f"{location} has {len(cells)} cells, the header has {len(header)}",
                    fix="quote cells that hold the separator or a line break",
                )
            yield Row(location, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise DataError(
            f"{path} line {reader.line_num} is not valid CSV: {error}", fix="check the quotes there"
        ) from error


def _refuse_twice(location: str, columns: Sequence[str]) -> None:
    if len(set(columns)) < len(columns):
        twice = next(name for name in columns if columns.count(name) > 1)
        raise DataError(f"{location} has the column {twice!r} twice", fix="rename one of them")


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"{path}: reading Parquet needs pyarrow", fix="pip install 'elicitor[data]'") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _refuse_twice(f"{path}", file.schema_arrow.names)
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(f"{path} row {number}", values)
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        # Names and texts that are not UTF-8, and times that Python does not know, come as ValueErrors of many kinds.
        raise DataError(
            f"{path} is not a readable Parquet file: {reason_of(error)}", fix="write it again, or use JSONL"
        ) from error


def _hub_rows(source: str) -> Iterator[Row]:
    name, at, split = source.removeprefix("hf:").partition("@")
    name, _, config = name.partition(":")
    if not name or not at or not split:
        raise DataError(f"data {source!r} names no split", fix="write hf:NAME@SPLIT, such as hf:google/boolq@train")
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"{source}: the hub needs datasets", fix="pip install 'elicitor[data]'") from error
    try:
        loaded = datasets.load_dataset(name, config or None, split=split)
        for number, values in enumerate(loaded, start=1):
            yield Row(f"{source} row {number}", dict(values))
    except Exception as error:  # datasets raises whatever its readers raise
        raise DataError(
            f"{source} could not be loaded: {reason_of(error)}", fix="check name, config and split, and the network"
        ) from error
