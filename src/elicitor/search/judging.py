"""Whether a proposal of `icm` is taken: by all terms of U(D), or by a random part of them where that is enough.

Read `exactly` first. `on_a_sample` is for proposals that contradict nothing; it asks about examples in the depth-first order of
the leave-one-out tree, whose base is shuffled: those that come first are a random sample, and share most of their contexts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from elicitor.data import Assignment
from elicitor.objective import Array, Problem, Utility
from elicitor.plan import Context, TreeOrder
from elicitor.search.repair import repair
from elicitor.search.schedule import threshold
from elicitor.search.sequential import Change, Terms, change, is_decided
from elicitor.search_settings import IcmConfig


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of a proposal.

    Attributes:
        assignment: The labels proposed, repaired.
        utility: U of them, or its estimate.
        current: U of the labels held, or its estimate.
        accepted: Whether those proposed take their place.
        options_tried: Evaluations of U(D) spent on repairs.
        terms_read: Terms that decided, where not all were read.
        terms: Terms there are.
        agrees: Whether all terms confirm what some decided; None where that was not looked at.
    """

    assignment: Assignment
    utility: Utility
    current: Utility
    accepted: bool
    options_tried: int = 0
    terms_read: int | None = None
    terms: int | None = None
    agrees: bool | None = None


def exactly(
    problem: Problem,
    current: Utility,
    assignment: Assignment,
    candidate: Assignment,
    picked: int,
    *,
    config: IcmConfig,
    heat: float,
    rng: np.random.Generator,
) -> Judged:
    """Repair what a proposal contradicts and compare U(D) before and after (Wen et al. 2025, algorithms 1 and 2).

    Args:
        problem: What is being labelled.
        current: Evaluation of ``assignment``.
        assignment: Labels held.
        candidate: The same with the proposal.
        picked: Position of the example proposed for.
        config: Settings of the search.
        heat: Temperature.
        rng: Source of every draw.

    Returns:
        The outcome.
    """
    in_question = {picked}.union(*(c.members for c in problem.constraints.violated(candidate)))
    current = problem.comparable(current, assignment, last=sorted(in_question), rng=rng)
    utility = problem.utility(candidate, rng=rng, after=current)
    repaired, utility, tried = repair(problem, candidate, utility, rounds=config.repair_rounds, rng=rng, after=current)
    return Judged(repaired, utility, current, utility.total - current.total > threshold(heat, rng), tried)


def on_a_sample(
    problem: Problem,
    current: Utility,
    assignment: Assignment,
    picked: int,
    label: int,
    row: Array,
    *,
    config: IcmConfig,
    heat: float,
    rng: np.random.Generator,
) -> Judged:
    """Judge a proposal that contradicts nothing by as many terms of U as it takes.

    Args:
        problem: What is being labelled.
        current: Last reading of each labelled example, under an order whose base does not hold ``picked``.
        assignment: Labels held.
        picked: Position of the example proposed for.
        label: The label proposed.
        row: Shape (labels,): its distribution given all labels but its own.
        config: Settings of the search.
        heat: Temperature.
        rng: Source of every draw.

    Returns:
        The outcome; utilities are made up of each example's last reading.
    """
    candidate = assignment.with_labels({picked: label})
    order = current.order
    assert order is not None  # the search makes one for every block
    grown = order if picked in order.tail else TreeOrder(order.base, (*order.tail, picked))
    contexts = [context for context in order.contexts() if context.target != picked]
    longer = {context.target: context for context in grown.contexts()}
    violations = problem.constraints.count(candidate) - problem.constraints.count(assignment)
    limit = threshold(heat, rng)
    before: dict[int, Array] = {}
    after: dict[int, Array] = {}

    def read(number: int) -> Change:
        """Read terms until there are so many, and estimate the change of U."""
        more = contexts[len(before) : number]
        before.update(zip([c.target for c in more], problem.ask(more, assignment), strict=True))
        more = [longer[c.target] for c in more]
        after.update(zip([c.target for c in more], problem.ask(more, candidate), strict=True))
        terms = Terms(
            before=np.stack(list(before.values())),
            after=np.stack(list(after.values())),
            labels=tuple(y for i in before if (y := assignment[i]) is not None),
            others=len(contexts),
            proposed=row,
            label_before=assignment[picked],
            label_after=label,
        )
        found = change(terms, problem.objective)
        return Change(found.value - violations, found.error)

    number = min(config.block_size, len(contexts))
    estimate = read(number)
    while number < len(contexts) and not is_decided(estimate, limit, read=number, level=config.test_level):
        number = min(2 * number, len(contexts))
        estimate = read(number)
    accepted, agrees = estimate.value > limit, None
    if number < len(contexts) and config.check and rng.random() < config.check:
        exact = read(len(contexts)).value > limit
        accepted, agrees = exact, exact == accepted
    rows = dict(zip(current.positions, current.log_probs, strict=True))
    return Judged(
        assignment=candidate,
        utility=problem.last_read(candidate, {**rows, **after, picked: row}, order=grown),
        current=problem.last_read(assignment, {**rows, **before, picked: row}, order=order),
        accepted=accepted,
        terms_read=number if number < len(contexts) else None,
        terms=len(contexts),
        agrees=agrees,
    )


def fresh_order(assignment: Assignment, block: tuple[int, ...], *, rng: np.random.Generator) -> TreeOrder:
    """An order in which the labelled members of a block stand last, behind all others by lot.

    Args:
        assignment: Labels held.
        block: Positions about to be proposed for.
        rng: Shuffles.

    Returns:
        The order.
    """
    outside = np.asarray([i for i in assignment.labelled if i not in set(block)], dtype=np.int64)
    return TreeOrder(tuple(rng.permutation(outside).tolist()), tuple(i for i in block if assignment[i] is not None))


def asked_about(order: TreeOrder, picked: int) -> Context:
    """The context that holds every labelled example but the one asked about, which is unlabelled or stands in the tail."""
    return Context(picked, tuple(i for i in order.spine if i != picked))
