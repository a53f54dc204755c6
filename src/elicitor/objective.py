"""The objective of Internal Coherence Maximization: U(D) = alpha * P(D) - I(D) (Wen et al. 2025, section 2).

Pure functions of label log-probabilities come first; `Problem` then puts a data set, its prompts, its constraints and a
backend together and evaluates them. Gold labels have no way in: no type here can hold them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from elicitor.backends.base import Backend, Cost, Progress, Prompt
from elicitor.backends.trie import token_cost, unshared_tokens
from elicitor.config import ObjectiveConfig, PlanConfig
from elicitor.consistency import Constraints
from elicitor.data import Assignment, Dataset
from elicitor.plan import Context, TreeOrder, in_order, make_plan, tree_order
from elicitor.prompts import PromptEncoder

Array = NDArray[np.float64]

MIN_TAIL = 4
"""Examples that may join the end of every context, at least, before all are put in a new order; else half of the others.
What stands last weighs most with a model, so the end must not hold most of the newest labels for long."""


def normalize(log_probs: Array) -> Array:
    """Log-probabilities over the label set alone.

    Args:
        log_probs: Shape (..., labels), in nats, over the whole vocabulary.

    Returns:
        Same shape; the exponentials of the last axis sum to 1.
    """
    total = np.logaddexp.reduce(log_probs, axis=-1, keepdims=True)
    return np.asarray(log_probs - total, dtype=np.float64)


def batch_offset(
    log_probs: Array, class_prior: Sequence[float] | None = None, *, weights: Sequence[float] | None = None
) -> Array:
    """What calibration subtracts: the labels' mean log-probability over the batch, less the log of the prior.

    For two labels this subtracts the mean log-odds of the batch and adds the prior's log-odds (batch calibration, Zhou
    et al. 2023, in log space).

    Args:
        log_probs: Shape (examples, labels), normalised, at least one example.
        class_prior: Assumed share of each label; equal shares when None.
        weights: How many examples each row stands for; 1 when None.

    Returns:
        Shape (labels,).
    """
    prior = np.zeros(log_probs.shape[1]) if class_prior is None else np.log(np.asarray(class_prior, dtype=np.float64))
    return np.asarray(np.average(log_probs, axis=0, weights=weights) - prior, dtype=np.float64)


def log_odds(log_probs: Array) -> Array:
    """Log-odds of each label against all others together: log p(y) - log sum of the others' p.

    Args:
        log_probs: Shape (..., labels), normalised or not.

    Returns:
        Same shape, in nats.
    """
    others = np.stack(
        [np.logaddexp.reduce(np.delete(log_probs, y, axis=-1), axis=-1) for y in range(log_probs.shape[-1])], axis=-1
    )
    return np.asarray(log_probs - others, dtype=np.float64)


def predictability(
    log_probs: Array, labels: Sequence[int], config: ObjectiveConfig, *, weights: Sequence[float] | None = None
) -> float:
    """Mutual predictability P(D): how well the other labels predict each label (Wen et al. 2025, equation 1).

    Args:
        log_probs: Shape (labelled examples, labels), normalised, after calibration.
        labels: Label of each example.
        config: Chooses log-odds or log-probability, mean or sum.
        weights: How many examples each row stands for; 1 when None.

    Returns:
        P(D) in nats; 0 for no examples.
    """
    if len(labels) == 0:
        return 0.0
    terms = log_odds(log_probs) if config.score == "log_odds" else log_probs
    chosen = terms[np.arange(len(labels)), np.asarray(labels)]
    average = float(np.average(chosen, weights=weights))
    return average if config.reduce == "mean" else average * (len(labels) if weights is None else sum(weights))


def offset_of(log_probs: Array, config: ObjectiveConfig, *, weights: Sequence[float] | None = None) -> Array:
    """What calibration subtracts for a batch of label distributions.

    Args:
        log_probs: Shape (examples, labels), normalised.
        config: Chooses the calibration and its prior.
        weights: How many examples each row stands for; 1 when None.

    Returns:
        Shape (labels,); zeros without calibration or examples.
    """
    if config.calibration == "none" or len(log_probs) == 0:
        return np.zeros(log_probs.shape[1])
    return batch_offset(log_probs, config.class_prior, weights=weights)


@dataclass(frozen=True, slots=True)
class Utility:
    """U(D) of one assignment, with what it was read from.

    Attributes:
        total: alpha * predictability - inconsistency.
        predictability: P(D), in nats.
        inconsistency: I(D), the number of violated constraints.
        positions: Labelled positions, ascending.
        log_probs: Shape (positions, labels): distribution over the labels of each labelled example given all the other
            labelled ones, normalised, before calibration.
        offset: Shape (labels,): what calibration subtracts, zeros without calibration.
        labels: Label of each position.
        order: How the demonstrations were ordered, under plan ``tree``.
    """

    total: float
    predictability: float
    inconsistency: int
    positions: tuple[int, ...]
    log_probs: Array
    offset: Array
    labels: tuple[int, ...]
    order: TreeOrder | None = None

    def calibrated(self) -> Array:
        """Shape (positions, labels): `log_probs` after calibration, normalised."""
        return normalize(self.log_probs - self.offset)


@dataclass(slots=True)
class Meter:
    """Adds up what a run has cost.

    Attributes:
        cost: Prompts, tokens and seconds of the backend.
        in_order_tokens: Prompt tokens that plan ``in_order`` would have computed for the same assignments, each once: its
            order never changes, so it has no need of `Problem.comparable`.
        naive_tokens: The same without sharing any prefix.
        evaluations: Evaluations of U(D).
        label_mass: Probability of all labels together, summed over the prompts.
    """

    cost: Cost = field(default_factory=Cost)
    in_order_tokens: int = 0
    naive_tokens: int = 0
    evaluations: int = 0
    label_mass: float = 0.0

    def __add__(self, other: Meter) -> Meter:
        """Sum two meters field by field."""
        return Meter(
            self.cost + other.cost,
            self.in_order_tokens + other.in_order_tokens,
            self.naive_tokens + other.naive_tokens,
            self.evaluations + other.evaluations,
            self.label_mass + other.label_mass,
        )


@dataclass(frozen=True, slots=True)
class Problem:
    """A data set to label with a model: everything a search may know.

    Attributes:
        dataset: Unlabelled examples.
        encoder: Renders and tokenises them.
        constraints: What logic says about them.
        backend: The model.
        objective: Settings of U(D).
        plan: Settings of the contexts.
        meter: Sums up the cost of every call.
        on_progress: Told of every forward pass.
        start_labels: Labels by position that a user gave a search to start with.
    """

    dataset: Dataset
    encoder: PromptEncoder
    constraints: Constraints
    backend: Backend
    objective: ObjectiveConfig
    plan: PlanConfig
    meter: Meter
    on_progress: Progress | None = None
    start_labels: Mapping[int, int] = field(default_factory=dict)

    def without_constraints(self) -> Problem:
        """The same problem as if logic said nothing; it shares the meter."""
        return replace(self, constraints=Constraints.from_dataset(self.dataset, ()))

    def utility(self, assignment: Assignment, *, rng: np.random.Generator, after: Utility | None = None) -> Utility:
        """Evaluate U(D) with every labelled example predicted from all the others.

        Args:
            assignment: Labels so far; examples without one are left out.
            rng: Orders the demonstrations.
            after: An evaluation that this one follows. Where labels were added to it, or changed among the last of every
                context, plan ``tree`` keeps its order, so that what was computed for it is reused; see `comparable`.

        Returns:
            The utility with both of its terms and the conditional label distributions.

        Raises:
            ContextOverflowError: If the demonstrations do not fit the model's window.
            BackendError: If the model fails.
        """
        order = None
        if self.plan.kind == "tree":
            order = self._grown_order(assignment, after) or tree_order(assignment.labelled, rng)
        return self._evaluate(assignment, order, rng=rng, is_new=True)

    def _evaluate(
        self, assignment: Assignment, order: TreeOrder | None, *, rng: np.random.Generator, is_new: bool
    ) -> Utility:
        labelled = assignment.labelled
        log_probs = np.zeros((len(labelled), len(self.dataset.label_space)))
        if labelled:
            options = {"n_folds": self.plan.folds, "max_demonstrations": self.plan.max_demonstrations}
            contexts = order.contexts() if order else make_plan(self.plan.kind, labelled, rng, **options)
            prompts = self._prompts(contexts, assignment)
            row = {position: k for k, position in enumerate(labelled)}
            keep = order is not None and self._can_be_kept(prompts)
            log_probs[[row[context.target] for context in contexts]] = normalize(self._score(prompts, keep=keep))
            if is_new:
                self._count_alternatives(prompts, self._prompts(in_order(labelled), assignment))
        self.meter.evaluations += 1
        return self._utility(assignment, log_probs, order)

    def _utility(self, assignment: Assignment, log_probs: Array, order: TreeOrder | None) -> Utility:
        """U of an assignment from the distributions of its labelled examples, shape (labelled, labels)."""
        labels = tuple(y for y in assignment.labels if y is not None)
        offset = self.offset(log_probs)
        predictable = predictability(normalize(log_probs - offset), labels, self.objective)
        violated = self.constraints.count(assignment)
        return Utility(
            total=self.objective.alpha * predictable - violated,
            predictability=predictable,
            inconsistency=violated,
            positions=assignment.labelled,
            log_probs=log_probs,
            offset=offset,
            labels=labels,
            order=order,
        )

    def last_read(
        self, assignment: Assignment, rows: Mapping[int, Array], *, order: TreeOrder | None = None
    ) -> Utility:
        """U as far as it is known without asking: each example's distribution as it was last read.

        The contexts of those readings held the labels of their time, so this is no evaluation of U(D), which costs a tree.

        Args:
            assignment: Labels so far.
            rows: Normalised label log-probabilities by position, each of shape (labels,), for every labelled example.
            order: Order of the demonstrations to build on, if there is one.

        Returns:
            The utility.
        """
        return self._utility(assignment, np.stack([rows[i] for i in assignment.labelled]), order)

    def ask(self, contexts: Sequence[Context], assignment: Assignment, *, keep: bool = True) -> Array:
        """Label distributions of examples behind demonstrations in a given order.

        Args:
            contexts: One for each example.
            assignment: Labels of the demonstrations.
            keep: Whether later calls begin with these demonstrations, so that they are worth keeping.

        Returns:
            Shape (contexts, labels), normalised over the labels, before calibration.

        Raises:
            ContextOverflowError: If the demonstrations do not fit the model's window.
            BackendError: If the model fails.
        """
        prompts = self._prompts(contexts, assignment)
        log_probs = normalize(self._score(prompts, keep=keep))
        self._count_alternatives(prompts, prompts)
        return log_probs

    def predict(
        self,
        targets: Sequence[int],
        assignment: Assignment,
        *,
        rng: np.random.Generator,
        after: Utility | None = None,
    ) -> Array:
        """Label distribution of unlabelled examples given every labelled one.

        Args:
            targets: Positions without a label.
            assignment: Labels so far.
            rng: Orders (and under plan ``sampled`` draws) the demonstrations; all targets share them.
            after: The evaluation of ``assignment``, whose order is then reused under plan ``tree``.

        Returns:
            Shape (targets, labels), normalised over the labels, before calibration.

        Raises:
            ContextOverflowError: If the demonstrations do not fit the model's window.
            BackendError: If the model fails.
        """
        order = self._grown_order(assignment, after)
        if order is not None:
            demonstrations = list(order.spine)
        else:
            demonstrations = rng.permutation(np.asarray(assignment.labelled, dtype=np.int64)).tolist()
        if self.plan.kind == "sampled":
            demonstrations = demonstrations[: self.plan.max_demonstrations]
        contexts = [Context(target, tuple(demonstrations)) for target in targets]
        return self.ask(contexts, assignment, keep=order is not None)

    def comparable(
        self, utility: Utility, assignment: Assignment, *, last: Sequence[int], rng: np.random.Generator
    ) -> Utility:
        """U of the same labels under an order in which other labels of a few examples are cheap and fair to compare.

        Under plan ``tree`` the examples in question stand last in every context. So evaluations that differ only there
        share all that comes before, and differ in U by their labels alone, not by the order of the demonstrations.

        Args:
            utility: Evaluation of ``assignment``.
            assignment: Labels so far.
            last: Positions whose labels are about to be added or changed.
            rng: Orders the demonstrations anew, if that is needed.

        Returns:
            ``utility`` itself if its order will do, else a new evaluation.
        """
        order = utility.order
        if order is None:
            return utility
        settled = [i for i in last if assignment[i] is not None]
        if set(settled) <= set(order.tail):
            room = max(MIN_TAIL, len(order.base) // 2)
            if len({*order.tail, *last}) <= room or len(order.tail) == len(settled):
                return utility
        rest = tuple(i for i in assignment.labelled if i not in settled)
        fresh = TreeOrder(tree_order(rest, rng).base, tuple(settled))
        if not rest or not self._can_be_kept(self._prompts(fresh.contexts(), assignment)):
            return utility
        return self._evaluate(assignment, fresh, rng=rng, is_new=False)

    def _grown_order(self, assignment: Assignment, after: Utility | None) -> TreeOrder | None:
        """The order of ``after`` with what was added since; None if labels changed that all its contexts build on.

        It depends on the search's state alone, never on what a backend happens to hold, so that a resumed run decides alike.
        """
        if after is None or after.order is None:
            return None
        changed = {i for i, y in zip(after.positions, after.labels, strict=True) if assignment[i] != y}
        if not changed <= set(after.order.tail):
            return None
        known = set(after.positions)
        added = tuple(i for i in assignment.labelled if i not in known)
        order = TreeOrder(after.order.base, after.order.tail + added)
        return order if self._can_be_kept(self._prompts(order.contexts(), assignment)) else None

    def _can_be_kept(self, prompts: Sequence[Prompt]) -> bool:
        return token_cost(prompts).tokens_computed <= self.backend.reusable_tokens

    def _prompts(self, contexts: Sequence[Context], assignment: Assignment) -> list[Prompt]:
        return [self.encoder.prompt(context, assignment) for context in contexts]

    def offset(self, log_probs: Array) -> Array:
        """What calibration subtracts for a batch of label distributions; see `offset_of`."""
        return offset_of(log_probs, self.objective)

    def _count_alternatives(self, prompts: Sequence[Prompt], in_order_prompts: Sequence[Prompt]) -> None:
        """Count what other plans would have cost for the same assignment, so that savings are measured, not claimed."""
        self.meter.in_order_tokens += token_cost(in_order_prompts).tokens_computed
        self.meter.naive_tokens += unshared_tokens(prompts)

    def _score(self, prompts: Sequence[Prompt], *, keep: bool) -> Array:
        scores = self.backend.score(prompts, keep=keep, on_progress=self.on_progress)
        self.meter.cost += scores.cost
        # Bounds of a server's list may add up to more than there is.
        self.meter.label_mass += float(np.minimum(np.exp(scores.log_probs).sum(axis=-1), 1.0).sum())
        return scores.log_probs
