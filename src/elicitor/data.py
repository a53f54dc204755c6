"""Examples, labels and gold: what a data set is once it has been read and checked.

An `Example` holds only the fields its task's template names, so the gold column is not even in memory while labels are
searched. Gold lives in `GoldLabels`, which `load_gold` makes and only evaluation uses.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from elicitor.errors import DataError, TaskError
from elicitor.groups import GroupNames
from elicitor.readers import Row, iter_rows
from elicitor.spool import Spool

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


class SpooledExamples(Sequence[Example]):
    """Examples in a temporary file, for data sets too large for memory; each is read when it is asked for.

    Args:
        examples: Read once, in order.
    """

    def __init__(self, examples: Iterable[Example]) -> None:
        self._spool = Spool()
        for example in examples:
            self._spool.append(astuple(example))

    def __len__(self) -> int:
        return len(self._spool)

    @overload
    def __getitem__(self, position: int) -> Example: ...

    @overload
    def __getitem__(self, position: slice) -> tuple[Example, ...]: ...

    def __getitem__(self, position: int | slice) -> Example | tuple[Example, ...]:
        if isinstance(position, slice):
            return tuple(self[i] for i in range(*position.indices(len(self))))
        return Example(*self._spool[position + len(self) if position < 0 else position])


@dataclass(frozen=True, slots=True)
class Dataset:
    """Unlabelled examples of one task.

    Attributes:
        examples: In the order of the file; a tuple, or `SpooledExamples`.
        label_space: Labels they may get.
        source: File or hub name.
        fingerprint: SHA-256 over the content that labelling can see.
    """

    examples: Sequence[Example]
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

    def group_numbers(self) -> NDArray[np.int64]:
        """Number of each example's group, shape (examples,); groups are numbered in the order of their first example."""
        numbers: dict[str, int] = {}
        return np.fromiter((numbers.setdefault(e.group_id, len(numbers)) for e in self.examples), np.int64)

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


class MissingColumnError(DataError):
    """A column that is needed is not in the data."""


def load_dataset(source: str, task: Task, *, limit: int | None = None, in_memory: bool = True) -> Dataset:
    """Read unlabelled examples.

    Args:
        source: File or ``hf:NAME@SPLIT``; see `elicitor.readers.read_rows`.
        task: Names the columns.
        limit: Use only the first rows.
        in_memory: Whether all examples are held in memory, rather than in a temporary file.

    Returns:
        The data set; the gold column has not been looked at.

    Raises:
        DataError: If the source cannot be read, a column is missing, a field is not text, or an id repeats.
    """
    read = iter_examples(source, task, limit=limit)
    examples: Sequence[Example] = tuple(read) if in_memory else SpooledExamples(read)
    return Dataset(examples, task.label_space, source, fingerprint(examples, task.label_space))


def iter_examples(source: str, task: Task, *, limit: int | None = None) -> Iterator[Example]:
    """Read unlabelled examples one at a time; see `load_dataset`."""
    absent = _binding_columns(task)
    columns: list[str] = []
    groups = GroupNames()
    for row, example_id in identified_rows(source, task, limit=limit):
        columns = columns or list(row.values)
        absent = [name for name in absent if name not in row.values]
        fields = {name: cell_text(row, name, needed_by=task.name) for name in task.fields}
        group = None if task.group_column is None else _optional_text(row, task.group_column, needed_by=task.name)
        if group is None:
            group = task.default_group(fields)
        key = task.constraint_key({name: _optional_text(row, name, needed_by=task.name) for name in task.key_columns})
        negated = _truth(row, task.negated_column, needed_by=task.name)
        example = Example(example_id, fields, groups.of(group, example_id), key, row.location, negated)
        if task.mirror is None:
            yield example
        else:
            yield from _both_orders(example, task.mirror, has_key=bool(task.constraint))
    # A misspelt column would quietly leave the task without its constraint. Single rows may lack it.
    if absent:
        raise MissingColumnError(
            f"{source}: column {absent[0]!r} is missing, by which task {task.name!r} groups or constrains; the columns are "
            f"{', '.join(columns)}",
            fix="rename the column, or name yours in the task",
        )


def fingerprint(examples: Iterable[Example], label_space: LabelSpace) -> str:
    """SHA-256 over ids, fields, groups, keys, negations and the label set."""
    digest = hashlib.sha256(json.dumps([label_space.labels, label_space.verbalizers, label_space.positive]).encode())
    for example in examples:
        content = [example.id, sorted(example.fields.items()), example.group_id, example.key, example.negated]
        digest.update(json.dumps(content).encode())
    return digest.hexdigest()


def task_rows(source: str, task: Task, *, limit: int | None = None) -> list[Row]:
    """Rows of a source in the task's own format.

    Rows of a format that the task knows from the hub become one or more rows of its own; see `Task.adapt`.

    Args:
        source: File or ``hf:NAME@SPLIT``.
        task: Knows its formats.
        limit: Use only the first rows of the source.

    Returns:
        The rows, at least one; those that one row became end their ids in ``/0``, ``/1``, ...

    Raises:
        DataError: If the source cannot be read or holds something the task cannot use.
    """
    return list(iter_task_rows(source, task, limit=limit))


def iter_task_rows(source: str, task: Task, *, limit: int | None = None) -> Iterator[Row]:
    """Rows of a source in the task's own format, one at a time; see `task_rows`."""
    empty = True
    for number, row in enumerate(iter_rows(source, limit=limit), start=1):
        try:
            adapted = task.adapt(row.values) if task.adapt else None
        except DataError as error:
            raise DataError(f"{row.location}: {error.problem}", fix=error.fix) from error
        empty = empty and adapted == []
        if adapted is None:
            yield row
            continue
        name = row.values.get(task.id_column, f"row-{number}")
        for k, values in enumerate(adapted):
            example_id = name if len(adapted) == 1 else f"{name}/{k}"
            yield Row(row.location, {task.id_column: example_id, **values})
    if empty:
        raise DataError(f"{source} holds nothing that task {task.name!r} can use", fix="give another file or split")


def identified_rows(source: str, task: Task, *, limit: int | None = None) -> Iterator[tuple[Row, str]]:
    """Rows in the task's own format, each with its id; rows are numbered where the file has no such column.

    Raises:
        DataError: As `task_rows`, and if an id repeats or is no text.
    """
    seen: dict[str, int] = {}
    for number, row in enumerate(iter_task_rows(source, task, limit=limit)):
        named = task.id_column in row.values
        example_id = cell_text(row, task.id_column, needed_by=task.name) if named else f"row-{number + 1}"
        if seen.setdefault(example_id, number) != number:
            # Places are not kept for every row; the first one is looked up where it is needed.
            first = next(islice(iter_task_rows(source, task, limit=limit), seen[example_id], None))
            raise DataError(
                f"{row.location}: id {example_id!r} stands at {first.location} already",
                fix="give every row its own id",
            )
        yield row, example_id


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


def is_empty(value: Any) -> bool:
    """Whether a cell is null: absent, an empty text, or the NaN that stands for it in a column of numbers."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _optional_text(row: Row, column: str, *, needed_by: str) -> str | None:
    """Text of a column that may be absent, empty or null."""
    return None if is_empty(row.values.get(column)) else cell_text(row, column, needed_by=needed_by)


def cell_text(row: Row, column: str, *, needed_by: str) -> str:
    """Text of a column that must be there; numbers and truth values are written out.

    Raises:
        MissingColumnError: If it is not.
        DataError: If it is empty or no text.
    """
    if column not in row.values:
        raise MissingColumnError(
            f"{row.location}: column {column!r} is missing, task {needed_by!r} needs it; the columns are "
            f"{', '.join(row.values) or 'none'}",
            fix="rename the column, or declare a task with your own column names",
        )
    value: Any = row.values[column]
    if isinstance(value, str):
        text = value
    elif isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        text = str(value)
    else:
        got = "null" if is_empty(value) else str(value) if isinstance(value, float) else type(value).__name__
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
