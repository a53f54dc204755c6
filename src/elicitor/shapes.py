"""What the files of a run folder hold, as types: somebody may have edited them, and what is read must be what was meant.

Each shape names the entries that are read; a file may hold more. That an entry is missing shows when it is read, see
`elicitor.files.Record`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from elicitor.errors import DataError

T = TypeVar("T")
Count = Annotated[int, Field(ge=0, lt=2**53)]
BatchNumber = Annotated[int, Field(ge=0, lt=10**7)]
# One list for each batch number up to the largest is made of them.


class Supervision(TypedDict, total=False):
    """Labels that went into a run."""

    labels: Count
    file: str
    review_of: str | None


class Manifest(TypedDict, total=False):
    """``manifest.json``."""

    examples: Count
    identity: dict[str, str | int | None]
    resumed_with: list[str]
    gold_used: bool | str
    supervision: Literal["none"] | Supervision
    model: dict[str, Any]
    versions: dict[str, str | None]


class EventRow(TypedDict, total=False):
    """A line of ``events.jsonl``; see `elicitor.search.events`."""

    kind: str
    batch: BatchNumber
    iteration: Count
    message: str
    labels: dict[str, str | None]
    accepted: bool
    n_labelled: Count
    utility: float
    predictability: float
    inconsistency: Count
    tokens_computed: Count
    tokens_reused: Count
    seconds: float
    example: str
    label_before: str | None
    label_proposed: str
    utility_proposed: float | None
    temperature: float
    terms_read: Count | None
    terms: Count | None
    agrees: bool | None
    repeat_difference: float | None
    batch_difference: float | None
    failure: str | None


class LabelRow(TypedDict, total=False):
    """A line of ``labels.jsonl``; see `elicitor.search.FoundLabel`."""

    id: str
    label: str
    confidence: Annotated[float, Field(ge=0, le=1)]
    log_odds: float
    group_id: str
    filled: bool
    batch: BatchNumber


class BatchMetrics(TypedDict, total=False):
    """What ``metrics.json`` says of a batch."""

    utility: float | None
    inconsistency: Count


class Metrics(TypedDict, total=False):
    """``metrics.json``."""

    n_examples: Count
    labels: dict[str, Count]
    filled: Count
    proposals: dict[str, Count]
    warnings: list[str]
    cost: dict[str, Annotated[float, Field(ge=0)]]
    batches: list[BatchMetrics]


class Loss(TypedDict):
    """A loss of a training."""

    step: Count
    loss: float


class TrainingResult(TypedDict, total=False):
    """``training.json``."""

    losses: list[Loss]
    curve: list[dict[str, Any]]
    label_counts: dict[str, Count]
    gain: dict[str, Any] | None


class TrainingProgress(TypedDict, total=False):
    """``progress.json`` of a training."""

    step: Count
    steps: Count
    loss: float | None


_SHAPES: dict[Any, TypeAdapter[Any]] = {}


def check(shape: Any, values: Mapping[str, Any], *, place: str) -> None:
    """Refuse values that are not of a shape; nothing is converted.

    Args:
        shape: One of this module's types.
        values: JSON values.
        place: File, and line where there are several.

    Raises:
        DataError: If an entry has another type than it was written with.
    """
    if shape not in _SHAPES:
        _SHAPES[shape] = TypeAdapter(shape)
    validated(_SHAPES[shape], values, place=place, strict=True)


def validated(adapter: TypeAdapter[T], values: Any, *, place: str, strict: bool = False) -> T:
    """What an adapter makes of JSON values; with ``strict``, it converts none.

    Raises:
        DataError: If they are not what it needs.
    """
    try:
        return adapter.validate_python(values, strict=strict)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise DataError(
            f"{place}: {'.'.join(map(str, first['loc']))}: {first['msg']}",
            fix="it was written by another version of elicitor, or changed; make it again",
        ) from error
