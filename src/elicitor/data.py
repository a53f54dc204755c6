"""Examples, labels and gold: what a data set is once it has been read and checked.

An `Example` holds only the fields its task's template names, so the gold column is not even in memory while labels are
searched. Gold lives in `GoldLabels`, which `load_gold` makes and only evaluation uses.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from elicitor.errors import DataError, TaskError
from elicitor.readers import Row, read_rows

if TYPE_CHECKING:
    from elicitor.tasks import Task


@dataclass(frozen=True, slots=True)
class LabelSpace:
    """The labels a task knows.

    Attributes:
        labels: Names, at least two, unique, such as ``("False", "True")``.
        verbalizers: Text that stands for each label after a prompt, such as ``(" False", " True")``.
        positive: Index of the label that constraints call positive.
    """

    labels: tuple[str, ...]
    verbalizers: tuple[str, ...]
    positive: int

    def __post_init__(self) -> None:
        """Refuse label sets that cannot be told apart."""
        if len(self.labels) < 2:
            raise TaskError(f"a task needs at least two labels, got {list(self.labels)}", fix="add the other labels")
        for what, values in (("label", self.labels), ("verbalizer", self.verbalizers)):
            if len(set(values)) < len(values):
                raise TaskError(f"a {what} appears twice in {list(values)}", fix="make them different")
        if len(self.verbalizers) != len(self.labels):
            raise TaskError(
                f"{len(self.labels)} labels have {len(self.verbalizers)} verbalizers", fix="give each label one"
            )
        if not 0 <= self.positive < len(self.labels):
            raise TaskError(
                f"the positive label is number {self.positive} of {len(self.labels)}", fix="count labels from 0"
            )

    def __len__(self) -> int:
        """Number of labels."""
        return len(self.labels)

    @property
    def kind(self) -> str:
        """``binary`` or ``multiclass``."""
        return "binary" if len(self) == 2 else "multiclass"

    def index(self, name: str) -> int:
        """Index of a label name.

        Raises:
            DataError: If there is no such label.
        """
        if name not in self.labels:
            raise DataError(f"{name!r} is not one of the labels {list(self.labels)}", fix="use one of them")
        return self.labels.index(name)


@dataclass(frozen=True, slots=True)
class Example:
    """One input without its label.

    Attributes:
        id: Unique within the data set.
        fields: Text by field, only those that the template names.
        group_id: Examples of one group are bound by logic.
        key: What the task's constraint compares, normalised; None takes no part.
        location: Where it was read, for error messages.
        negated: Whether it denies what its key says.
    """

    id: str
    fields: Mapping[str, str]
    group_id: str
    key: str | None
    location: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Dataset:
    """Unlabelled examples of one task.

    Attributes:
        examples: In the order of the file.
        label_space: Labels they may get.
        source: File or hub name.
        fingerprint: SHA-256 over the content that labelling can see.
    """

    examples: tuple[Example, ...]
    label_space: LabelSpace
    source: str
    fingerprint: str

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.examples)

    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Positions of each group, groups in the order of their first example."""
        members: dict[str, list[int]] = {}
        for position, example in enumerate(self.examples):
            members.setdefault(example.group_id, []).append(position)
        return tuple(tuple(positions) for positions in members.values())

    def subset(self, positions: Sequence[int]) -> Dataset:
        """The examples at these positions, in this order."""
        examples = tuple(self.examples[i] for i in positions)
        return Dataset(examples, self.label_space, self.source, fingerprint(examples, self.label_space))


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which label each example holds; immutable, so a rejected proposal cannot leave a trace.

    Attributes:
        labels: Label index by position, None for no label.
    """

    labels: tuple[int | None, ...]

    @classmethod
    def empty(cls, n: int) -> Assignment:
        """No labels for n examples."""
        return cls((None,) * n)

    def __getitem__(self, position: int) -> int | None:
        """Label of a position."""
        return self.labels[position]

    def with_labels(self, changes: Mapping[int, int | None]) -> Assignment:
        """A copy with some labels changed; None takes a label away."""
        labels = list(self.labels)
        for position, label in changes.items():
            labels[position] = label
        return Assignment(tuple(labels))

    @property
    def labelled(self) -> tuple[int, ...]:
        """Positions with a label, ascending."""
        return tuple(i for i, label in enumerate(self.labels) if label is not None)

    @property
    def unlabelled(self) -> tuple[int, ...]:
        """Positions without a label, ascending."""
        return tuple(i for i, label in enumerate(self.labels) if label is None)


@dataclass(frozen=True, slots=True)
class GoldLabels:
    """True labels, for evaluation alone; no search accepts this type.

    Attributes:
        labels: Label index by example id; examples whose gold is empty are absent.
        missing: Number of examples whose gold is empty.
        source: File or hub name.
    """

    labels: Mapping[str, int]
    missing: int
    source: str


class MissingColumnError(DataError):
    """A column that is needed is not in the data."""


def load_dataset(source: str, task: Task, *, limit: int | None = None) -> Dataset:
    """Read unlabelled examples.

    Args:
        source: File or ``hf:NAME@SPLIT``; see `elicitor.readers.read_rows`.
        task: Names the columns.
        limit: Use only the first rows.

    Returns:
        The data set; the gold column has not been looked at.

    Raises:
        DataError: If the source cannot be read, a column is missing, a field is not text, or an id repeats.
    """
    rows = read_rows(source, limit=limit)
    # A misspelt column would quietly leave the task without its constraint. Single rows may lack it.
    for name in _binding_columns(task):
        if not any(name in row.values for row in rows):
            raise MissingColumnError(
                f"{source}: column {name!r} is missing, by which task {task.name!r} groups or constrains; the columns are "
                f"{', '.join(rows[0].values)}",
                fix="rename the column, or name yours in the task",
            )
    examples = []
    for row, example_id in zip(rows, row_ids(rows, task), strict=True):
        fields = {name: _text(row, name, needed_by=task.name) for name in task.fields}
        group = None if task.group_column is None else _optional_text(row, task.group_column, needed_by=task.name)
        if group is None:
            group = task.default_group(fields) or example_id
        key = task.constraint_key({name: _optional_text(row, name, needed_by=task.name) for name in task.key_columns})
        negated = _truth(row, task.negated_column, needed_by=task.name)
        example = Example(example_id, fields, group, key, row.location, negated)
        examples += (
            [example] if task.mirror is None else _both_orders(example, task.mirror, has_key=bool(task.constraint))
        )
    return Dataset(tuple(examples), task.label_space, source, fingerprint(examples, task.label_space))


def load_gold(source: str, task: Task, *, limit: int | None = None) -> GoldLabels:
    """Read gold labels. Evaluation alone may keep what this returns.

    Args:
        source: File or ``hf:NAME@SPLIT``.
        task: Names the gold column and what its values mean.
        limit: Use only the first rows.

    Returns:
        The labels by example id.

    Raises:
        MissingColumnError: If no row has the gold column.
        DataError: If a value is outside the label set, or the source cannot be read.
    """
    rows = read_rows(source, limit=limit)
    if not any(task.gold_column in row.values for row in rows):
        raise MissingColumnError(
            f"{source} has no gold column {task.gold_column!r}; its columns are {', '.join(rows[0].values)}",
            fix="name the right one with --gold-column",
        )
    labels: dict[str, int] = {}
    missing = 0
    for row, example_id in zip(rows, row_ids(rows, task), strict=True):
        value = row.values.get(task.gold_column)
        if _is_empty(value):
            missing += 1 if task.mirror is None else 2
            continue
        label = task.gold_label(value)
        if label is None:
            allowed = [*task.gold_values] or list(task.label_space.labels)
            raise DataError(
                f"{row.location} column {task.gold_column!r}: {value!r} is outside the label set, allowed are "
                f"{', '.join(allowed)}",
                fix="correct it, map it with the task's gold_values, or use another column (eval: --gold-column; label: "
                "remove it, labelling needs no gold)",
            )
        if task.mirror is None:
            labels[example_id] = label
        else:
            labels |= {in_order_id(example_id, 0): label, in_order_id(example_id, 1): 1 - label}
    return GoldLabels(labels, missing=missing, source=source)


def check_gold(source: str, task: Task, *, limit: int | None = None) -> None:
    """Refuse gold outside the label set before hours go into labelling; nothing of it is kept.

    Args:
        source: File or ``hf:NAME@SPLIT``.
        task: Names the gold column, which need not be there.
        limit: Look only at the first rows.

    Raises:
        DataError: If a value is outside the label set, or the source cannot be read.
    """
    with contextlib.suppress(MissingColumnError):
        load_gold(source, task, limit=limit)


def fingerprint(examples: Sequence[Example], label_space: LabelSpace) -> str:
    """SHA-256 over ids, fields, groups, keys, negations and the label set."""
    digest = hashlib.sha256(json.dumps([label_space.labels, label_space.verbalizers, label_space.positive]).encode())
    for example in examples:
        content = [example.id, sorted(example.fields.items()), example.group_id, example.key, example.negated]
        digest.update(json.dumps(content).encode())
    return digest.hexdigest()


def row_ids(rows: Sequence[Row], task: Task) -> list[str]:
    """Id of each row; rows are numbered where the file has no such column.

    Raises:
        DataError: If an id repeats or is no text.
    """
    seen: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        named = task.id_column in row.values
        example_id = _text(row, task.id_column, needed_by=task.name) if named else f"row-{number}"
        if example_id in seen:
            raise DataError(
                f"{row.location}: id {example_id!r} stands at {seen[example_id]} already",
                fix="give every row its own id",
            )
        seen[example_id] = row.location
    return list(seen)


ORDERS = ("ab", "ba")
"""The two orders in which a mirrored pair is shown; the order ends the example's id."""


def in_order_id(row_id: str, order: int) -> str:
    """Id of the example that shows a mirrored row's pair in one of the `ORDERS`."""
    return f"{row_id}/{ORDERS[order]}"


def _both_orders(example: Example, mirror: tuple[str, str], *, has_key: bool) -> list[Example]:
    """A pair as it stands and turned round; a constraint compares the order."""
    first, second = mirror
    turned = {**example.fields, first: example.fields[second], second: example.fields[first]}
    return [
        replace(example, id=in_order_id(example.id, k), fields=fields, key=ORDERS[k] if has_key else None)
        for k, fields in enumerate((example.fields, turned))
    ]


def _truth(row: Row, column: str | None, *, needed_by: str) -> bool:
    """Truth value of a column that may be absent or empty, which is no."""
    text = None if column is None else _optional_text(row, column, needed_by=needed_by)
    if text is None or text.casefold() in ("0", "false", "no"):
        return False
    if text.casefold() in ("1", "true", "yes"):
        return True
    raise DataError(f"{row.location} column {column!r}: {text!r} is neither yes nor no", fix="write 1 or 0")


def _binding_columns(task: Task) -> list[str]:
    """Columns that say which examples belong together and that nothing else can stand in for."""
    group = [] if task.group_column is None or task.group_field is not None else [task.group_column]
    keys = task.key_columns if task.constraint else ()
    negated = [] if task.negated_column is None else [task.negated_column]
    return [name for name in (*group, *keys, *negated) if name not in task.optional_columns]


def _is_empty(value: Any) -> bool:
    """Whether a cell is null: absent, an empty text, or the NaN that stands for it in a column of numbers."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _optional_text(row: Row, column: str, *, needed_by: str) -> str | None:
    """Text of a column that may be absent, empty or null."""
    return None if _is_empty(row.values.get(column)) else _text(row, column, needed_by=needed_by)


def _text(row: Row, column: str, *, needed_by: str) -> str:
    """Text of a column that must be there; numbers and truth values are written out."""
    if column not in row.values:
        raise MissingColumnError(
            f"{row.location}: column {column!r} is missing, task {needed_by!r} needs it; the columns are "
            f"{', '.join(row.values) or 'none'}",
            fix="rename the column, or declare a task with your own column names",
        )
    value: Any = row.values[column]
    if isinstance(value, str):
        text = value
    elif isinstance(value, (int, float)) and math.isfinite(value):
        text = str(value)
    else:
        got = "null" if _is_empty(value) else str(value) if isinstance(value, float) else type(value).__name__
        raise DataError(f"{row.location}: column {column!r} holds {got}, not text", fix="fill it in or drop the row")
    if not text.strip():
        raise DataError(f"{row.location}: column {column!r} is empty", fix="fill it in or drop the row")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{row.location}: column {column!r} holds half of a surrogate pair, {text[error.start]!r}",
            fix="write the character itself, or both of its \\u escapes",
        ) from error
    return text
