"""What logic says about the labels of a group, counted and enumerated exactly. Never built from gold.

| kind | two members of a group |
| --- | --- |
| ``at_most_one`` | with different keys are not both positive |
| ``equivalent`` | with equal keys have equal labels |
| ``exactly_one`` | as ``at_most_one``, and not all members negative; an only member is left alone |
| ``asymmetric`` | with different keys (which order a pair is shown in) have opposite labels, with equal keys equal ones |
| ``negation`` | with different keys (asserted or negated) have opposite labels, with equal keys equal ones |
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from elicitor.data import Assignment, Dataset
from elicitor.errors import TaskError
from elicitor.tasks.table import ConstraintKind

MAX_OPTIONS = 100_000
"""Consistent labellings of one group that are enumerated at most."""

Relation = Literal["not_both", "equal", "opposite", "some"]


@dataclass(frozen=True, slots=True)
class Constraint:
    """One thing that must hold.

    Attributes:
        relation: ``not_both`` positive, ``equal`` labels, ``opposite`` labels, or ``some`` member positive.
        members: Positions, ascending.
        positive: Index of the positive label.
        negated: Members that deny what the constraint speaks of: their labels count turned round. Two labels only.
    """

    relation: Relation
    members: tuple[int, ...]
    positive: int
    negated: frozenset[int] = frozenset()

    def violated(self, labels: Sequence[int | None]) -> bool:
        """Whether the labels contradict it; never while a member has none."""
        held = []
        for i in self.members:
            label = labels[i]
            if label is None:
                return False
            held.append(1 - label if i in self.negated else label)
        match self.relation:
            case "not_both":
                return all(label == self.positive for label in held)
            case "equal":
                return len(set(held)) > 1
            case "opposite":
                return held[0] == held[1]
            case "some":
                return all(label != self.positive for label in held)


class Constraints:
    """All constraints of a data set.

    Args:
        constraints: The constraints.
        groups: Positions of each group.
        n_labels: Size of the label set.
    """

    def __init__(self, constraints: Iterable[Constraint], *, groups: Sequence[tuple[int, ...]], n_labels: int) -> None:
        self.all = tuple(constraints)
        self._n_labels = n_labels
        self._groups = [np.asarray(members) for members in groups]
        self._touching: dict[int, list[Constraint]] = {}
        for constraint in self.all:
            for position in constraint.members:
                self._touching.setdefault(position, []).append(constraint)
        self._component_of = self._connected()

    @classmethod
    def from_dataset(cls, dataset: Dataset, kinds: Sequence[ConstraintKind]) -> Constraints:
        """Build the constraints of every group.

        Args:
            dataset: Examples with groups and keys.
            kinds: What holds in a group; none for no constraints.

        Returns:
            The constraints, groups in order.
        """
        groups = dataset.groups()
        positive = dataset.label_space.positive
        constraints = [
            Constraint(relation, members, positive, frozenset(i for i in members if dataset.examples[i].negated))
            for group in groups
            for kind in kinds
            for relation, members in _relations(kind, group, [dataset.examples[i].key for i in group])
        ]
        # Two kinds may say the same of one pair; it counts once.
        return cls(dict.fromkeys(constraints), groups=groups, n_labels=len(dataset.label_space))

    def count(self, assignment: Assignment) -> int:
        """I(D): number of violated constraints (Wen et al. 2025, equation 2)."""
        return sum(constraint.violated(assignment.labels) for constraint in self.all)

    def violated(self, assignment: Assignment) -> list[Constraint]:
        """The violated constraints, in a fixed order."""
        return [constraint for constraint in self.all if constraint.violated(assignment.labels)]

    def component(self, position: int) -> int | None:
        """Number of what constraints bind together with a position, or None if none touches it; a part of its group."""
        return self._component_of.get(position)

    def _connected(self) -> dict[int, int]:
        """Connected parts of the constraints, each called by its first member."""
        part_of: dict[int, int] = {}
        for first in self._touching:
            waiting = [] if first in part_of else [first]
            while waiting:
                position = waiting.pop()
                if position not in part_of:
                    part_of[position] = first
                    waiting.extend(i for constraint in self._touching[position] for i in constraint.members)
        return part_of

    def options(self, members: Sequence[int], assignment: Assignment, *, among_only: bool) -> list[dict[int, int]]:
        """Every labelling of some members under which nothing is violated, by exact enumeration.

        Args:
            members: Positions to label, whatever they hold now.
            assignment: Labels of the others.
            among_only: Look only at constraints whose members are all among ``members``; otherwise at every constraint
                that touches one of them, with the others' labels as they are.

        Returns:
            Labels by position, in lexicographic order; empty if nothing is consistent.

        Raises:
            TaskError: If there are more than `MAX_OPTIONS`.
        """
        inside = set(members)
        watched = {
            position: [c for c in self._touching.get(position, ()) if not among_only or inside.issuperset(c.members)]
            for position in members
        }
        labels = list(assignment.labels)
        for position in members:
            labels[position] = None
        found: list[dict[int, int]] = []
        for option in self._extend(labels, list(members), watched):
            found.append(option)
            if len(found) > MAX_OPTIONS:
                raise TaskError(
                    f"a group of {len(members)} examples has more than {MAX_OPTIONS:,} consistent labellings",
                    fix="split the group, or use a constraint that binds its members closer",
                )
        return found

    def _extend(
        self, labels: list[int | None], rest: list[int], watched: dict[int, list[Constraint]]
    ) -> Iterator[dict[int, int]]:
        """Backtracking: a branch is cut as soon as a constraint whose members are all labelled is violated."""
        chosen: list[int] = []

        def visit(depth: int) -> Iterator[dict[int, int]]:
            if depth == len(rest):
                yield dict(zip(rest, chosen, strict=True))
                return
            position = rest[depth]
            for label in range(self._n_labels):
                labels[position] = label
                if not any(constraint.violated(labels) for constraint in watched[position]):
                    chosen.append(label)
                    yield from visit(depth + 1)
                    chosen.pop()
            labels[position] = None

        return visit(0)

    def proposal_weights(self, assignment: Assignment, *, group_weight: float) -> NDArray[np.float64]:
        """How likely each example is to be proposed next (Wen et al. 2025, section 2.3).

        Args:
            assignment: Labels so far.
            group_weight: Weight of unlabelled members of a group that has labelled ones; everything else weighs 1.

        Returns:
            Shape (examples,), positive, not normalised.
        """
        has_label = np.asarray([label is not None for label in assignment.labels])
        weights = np.ones(len(has_label))
        for members in self._groups:
            if has_label[members].any():
                weights[members[~has_label[members]]] = group_weight
        return weights


def check_enumerable(dataset: Dataset, kinds: Sequence[ConstraintKind]) -> None:
    """Refuse, before any search, a group whose consistent labellings are too many to enumerate.

    Args:
        dataset: Examples with groups and keys.
        kinds: What holds in a group.

    Raises:
        TaskError: If what constraints bind together has more than `MAX_OPTIONS`.
    """
    if not kinds:
        return
    for group in dataset.groups():
        if len(dataset.label_space) ** len(group) <= MAX_OPTIONS:
            continue
        part = dataset.subset(group)
        constraints = Constraints.from_dataset(part, kinds)
        bound = defaultdict(list)
        for i in range(len(part)):
            bound[constraints.component(i)].append(i)
        bound.pop(None, None)
        for members in bound.values():
            try:
                constraints.options(members, Assignment.empty(len(part)), among_only=False)
            except TaskError as error:
                raise TaskError(f"{part.examples[members[0]].location}: {error.problem}", fix=error.fix) from None


def _relations(
    kind: ConstraintKind, group: tuple[int, ...], keys: Sequence[str | None]
) -> Iterator[tuple[Relation, tuple[int, ...]]]:
    keyed = [(position, key) for position, key in zip(group, keys, strict=True) if key is not None]
    for (left, left_key), (right, right_key) in combinations(keyed, 2):
        pair = (left, right)
        if kind in ("at_most_one", "exactly_one"):
            if left_key != right_key:
                yield "not_both", pair
        elif kind == "equivalent":
            if left_key == right_key:
                yield "equal", pair
        else:
            yield ("equal" if left_key == right_key else "opposite"), pair
    # An only answer is what a filter left of a question, or a row without a group: that does not make it the right one.
    if kind == "exactly_one" and len(keyed) > 1:
        yield "some", tuple(position for position, _ in keyed)
