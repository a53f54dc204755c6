"""What a search says as it goes: one frozen record for each thing that happened, written to ``events.jsonl``.

Events are enough to rebuild every assignment the search has held, so label accuracy over iterations is computed
afterwards, beside gold, and never in here. Two runs of one seed differ in ``seconds`` alone; a resumed run also computes
again, once, what the killed one had kept in memory, which shows in the token counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Event:
    """What every event carries.

    Attributes:
        batch: Number of the batch, from 0.
        iteration: Iteration (or round) of the search, 0 before the first.
        labels: Changes to the assignment by example id; None takes a label away. Applied only if ``accepted``.
        accepted: Whether the changes hold from here on.
        n_labelled: Labelled examples afterwards.
        utility: U(D) afterwards; after ``resampled`` put together from each example's last reading, under `ensemble` until
            ``evaluated`` from the average of all its readings.
        predictability: P(D) afterwards, in nats.
        inconsistency: I(D) afterwards.
        tokens_computed: Prompt tokens computed for this event.
        tokens_reused: Prompt tokens reused for this event.
        seconds: Wall time inside the backend.
        kind: Which event this is.
    """

    batch: int
    iteration: int
    labels: Mapping[str, str | None]
    accepted: bool
    n_labelled: int
    utility: float
    predictability: float
    inconsistency: int
    tokens_computed: int
    tokens_reused: int
    seconds: float
    kind: Literal["started", "proposed", "relabelled", "resampled", "voted", "evaluated", "filled"]

    def to_json(self) -> dict[str, Any]:
        """The event as JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Proposal(Event):
    """One iteration of `icm`: a label was proposed for one example, its inconsistencies repaired, and judged.

    Attributes:
        example: Id of the example picked.
        label_before: Its label before, None if it had none.
        label_proposed: The label that the others predict for it.
        utility_proposed: U(D) with the proposal and its repairs; None when the proposal is the label it already had.
        temperature: Temperature of the acceptance.
        options_tried: Evaluations of U(D) spent on repairs.
        terms_read: Terms of U that the decision was made by, where not all were read.
        terms: Terms of U there were.
        agrees: Whether all terms confirm a decision by some of them; None where that was not looked at.
    """

    example: str
    label_before: str | None
    label_proposed: str
    utility_proposed: float | None
    temperature: float
    options_tried: int
    terms_read: int | None = None
    terms: int | None = None
    agrees: bool | None = None


@dataclass(frozen=True, slots=True)
class Warned:
    """Something a user should know while the search goes on.

    Attributes:
        batch: Number of the batch, from 0.
        iteration: Iteration at which it was seen.
        message: What is wrong and what to change.
        kind: Always ``warned``.
    """

    batch: int
    iteration: int
    message: str
    kind: Literal["warned"] = "warned"

    def to_json(self) -> dict[str, Any]:
        """The event as JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Checked:
    """What asking the model the same questions twice said about its scores, once at the start of a run.

    Attributes:
        batch: Number of the batch, from 0.
        iteration: Always 0.
        repeat_difference: Largest difference between two scorings of one prompt, in nats; None if it was not measured.
        batch_difference: Largest difference between a prompt scored alone and among others, in nats; None likewise.
        tokens_computed: Prompt tokens that the check took; no part of the search's cost.
        failure: Why it was not measured.
        kind: Always ``checked``.
    """

    batch: int
    iteration: int
    repeat_difference: float | None
    batch_difference: float | None
    tokens_computed: int
    failure: str | None = None
    kind: Literal["checked"] = "checked"

    def to_json(self) -> dict[str, Any]:
        """The event as JSON values."""
        return asdict(self)


AnyEvent = Event | Warned | Checked
ABOUT_SCORES = ("warned", "checked")
"""Kinds of events that change no label."""


def replay(events: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], dict[str, str]]]:
    """Rebuild the assignment after each event.

    Args:
        events: Events as JSON values, in the order they were written.

    Yields:
        Each event that can change labels, with the labels held after it by example id (one dict, updated in place).
    """
    held: dict[str, str] = {}
    for event in events:
        if event["kind"] in ABOUT_SCORES:
            continue
        apply_changes(event, held)
        yield event, held


def apply_changes(event: Mapping[str, Any], held: dict[str, str]) -> None:
    """Bring the labels held before an event, by example id, to what they are after it.

    Args:
        event: An event that can change labels, as JSON values.
        held: Changed in place.
    """
    if not event["accepted"]:
        return
    for example_id, label in event["labels"].items():
        if label is None:
            held.pop(example_id, None)
        else:
            held[example_id] = label
