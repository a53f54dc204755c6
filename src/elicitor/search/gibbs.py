"""Gibbs sampling of labels, annealed, in active blocks (Choi et al. 2026, arXiv 2606.19264).

Read `Gibbs.start`, then `Gibbs.step`: one step takes a block of examples, puts everything outside it into one context whose
keys and values are kept, and draws a new label for each member from its distribution given all the others. The first sweep
also labels what has no label yet; late sweeps vote. A label costs one prompt, where `icm` evaluates U(D).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from elicitor.consistency import Constraints
from elicitor.data import Assignment
from elicitor.objective import Array, Problem, normalize
from elicitor.plan import Context
from elicitor.search.events import AnyEvent, Event
from elicitor.search.first_labels import first_labels
from elicitor.search.repair import most_confident
from elicitor.search.state import SearchState, Sweep, changes, event_fields, relabelling_event
from elicitor.search_settings import GibbsConfig

Block = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Gibbs:
    """Sweeps of resampling; `step` is one block.

    Attributes:
        config: First labels, sweeps, cooling, blocks.
        batch: Number of the batch, written into events.
    """

    config: GibbsConfig
    batch: int = 0

    def start(self, problem: Problem, *, rng: np.random.Generator) -> tuple[SearchState, Event]:
        """Give the first examples a label each and read the distribution of each given the others.

        Args:
            problem: What to label.
            rng: Source of every draw.

        Returns:
            The first state and the event that describes it.
        """
        spent = problem.meter.cost
        n, n_labels = len(problem.dataset), len(problem.dataset.label_space)
        empty = Assignment.empty(n)
        assignment = empty.with_labels(first_labels(problem, self.config, rng=rng))
        sweep = Sweep(
            number=1, blocks=deal_blocks(problem, self.config, rng=rng), changed=False, votes=((0,) * n_labels,) * n
        )
        state = SearchState(assignment=assignment, utility=problem.utility(assignment, rng=rng), sweep=sweep)
        return state, relabelling_event(problem, empty, state, kind="started", batch=self.batch, spent_before=spent)

    def budget(self, problem: Problem) -> int:
        """Blocks at most."""
        return self.config.sweeps * math.ceil(len(problem.dataset) / block_size(self.config, len(problem.dataset)))

    def step(
        self, problem: Problem, state: SearchState, *, rng: np.random.Generator
    ) -> tuple[SearchState, list[AnyEvent]]:
        """Resample the labels of one block, and close the sweep if it was the last one.

        Args:
            problem: What to label.
            state: Where the search stands, not finished.
            rng: Source of every draw.

        Returns:
            The next state and what happened.
        """
        spent = problem.meter.cost
        sweep = state.sweep
        assert sweep is not None  # `start` makes one, and every step keeps it
        block, *rest = sweep.blocks
        heat = sweep_temperature(sweep.number, self.config)
        assignment, rows = self._resample(problem, state, block, heat, rng=rng)
        changed = assignment != state.assignment
        after = replace(
            state,
            assignment=assignment,
            utility=problem.last_read(assignment, rows),
            iteration=state.iteration + 1,
            unchanged=0 if changed else state.unchanged + 1,
            sweep=replace(sweep, blocks=tuple(rest), changed=sweep.changed or changed),
        )
        event = relabelling_event(
            problem, state.assignment, after, kind="resampled", batch=self.batch, spent_before=spent
        )
        if rest:
            return after, [event]
        after, events = self._close_sweep(problem, after, rng=rng)
        return after, [event, *events]

    def _resample(
        self, problem: Problem, state: SearchState, block: Block, heat: float, *, rng: np.random.Generator
    ) -> tuple[Assignment, dict[int, Array]]:
        """New labels for a block, one unit after the other; and every example's distribution as it was last read."""
        assignment = state.assignment
        rows = dict(zip(state.utility.positions, state.utility.log_probs, strict=True))
        for unit, contexts in block_contexts(problem, block, assignment.labelled, rng=rng):
            rows |= zip(unit, problem.ask(contexts, assignment), strict=True)
            offset = problem.offset(np.stack(list(rows.values())))
            calibrated = normalize(np.stack([rows[i] for i in unit]) - offset)
            drawn = draw(problem.constraints, unit, calibrated, assignment, heat, rng=rng)
            assignment = assignment.with_labels(drawn)
        return assignment, rows

    def _close_sweep(
        self, problem: Problem, state: SearchState, *, rng: np.random.Generator
    ) -> tuple[SearchState, list[AnyEvent]]:
        """Count votes; begin the next sweep, or end with the labels that won and their exact utility."""
        sweep = state.sweep
        assert sweep is not None  # `start` makes one, and every step keeps it
        votes = sweep.votes
        voting = sweep.number - self.config.burn_in - 1
        if voting >= 0 and voting % self.config.thinning == 0:
            votes = tuple(
                tuple(count + (y == label) for y, count in enumerate(counts))
                for counts, label in zip(votes, state.assignment.labels, strict=True)
            )
        settled = voting >= 0 and not sweep.changed
        if sweep.number < self.config.sweeps and not settled:
            following = Sweep(sweep.number + 1, deal_blocks(problem, self.config, rng=rng), changed=False, votes=votes)
            return replace(state, sweep=following), []
        spent = problem.meter.cost
        # Where votes are equal, the last reading decides: a probability is less than one vote.
        rows = {i: np.asarray(votes[i]) + np.exp(row) for i, row in enumerate(state.utility.calibrated())}
        winner = most_confident(problem.constraints, Assignment.empty(len(problem.dataset)), rows)
        after = replace(
            state,
            assignment=winner,
            utility=problem.utility(winner, rng=rng),
            sweep=replace(sweep, votes=votes),
        ).finish("nothing changed for a full sweep" if settled else "sweep budget spent")
        event = Event(
            kind="voted",
            labels=changes(problem, state.assignment, winner),
            accepted=True,
            **event_fields(problem, after, batch=self.batch, spent_before=spent),
        )
        return after, [event]


def deal_blocks(problem: Problem, config: GibbsConfig, *, rng: np.random.Generator) -> tuple[Block, ...]:
    """Deal all examples into blocks by lot; what constraints bind together stays together.

    Args:
        problem: What to label.
        config: May name the size of a block.
        rng: Deals.

    Returns:
        Positions of each block.
    """
    everything = units(problem.constraints, range(len(problem.dataset)))
    size = block_size(config, len(problem.dataset))
    blocks: list[list[int]] = [[]]
    for k in rng.permutation(len(everything)):
        if len(blocks[-1]) >= size:
            blocks.append([])
        blocks[-1].extend(everything[k])
    return tuple(map(tuple, blocks))


def block_contexts(
    problem: Problem, block: Block, labelled: Collection[int], *, rng: np.random.Generator
) -> Iterator[tuple[Block, list[Context]]]:
    """How a block is read: one unit after the other, each behind everything outside the block and the rest of it.

    Args:
        problem: What to label.
        block: Positions.
        labelled: Positions with a label; members of the block count as labelled once they have been given out.
        rng: Orders what is outside.

    Yields:
        Each unit with the contexts of its members.
    """
    outside = rng.permutation(np.asarray([i for i in labelled if i not in set(block)], dtype=np.int64)).tolist()
    bound = problem.plan.max_demonstrations if problem.plan.kind == "sampled" else len(problem.dataset)
    outside = outside[: max(0, bound - len(block) + 1)]
    known = set(labelled)
    for unit in units(problem.constraints, block):
        # Members with a new label come first, so that what stands before the next one is kept.
        inside = [i for i in block if i not in unit and i in known]
        demonstrations = (*outside, *inside)[:bound]
        yield unit, [Context(i, demonstrations) for i in unit]
        known |= set(unit)


def block_size(config: GibbsConfig, n: int) -> int:
    """Examples of a block: as configured, or where a sweep encodes fewest demonstrations.

    With blocks of b out of n, a sweep encodes about n^2 / b outside of blocks and n b / 2 within them.

    Args:
        config: May name a size.
        n: Examples of the batch.

    Returns:
        At least 1.
    """
    return config.block_size or max(1, round(math.sqrt(2 * n)))


def sweep_temperature(number: int, config: GibbsConfig) -> float:
    """Temperature of a sweep: it falls geometrically over the burn-in and stays at its end.

    Args:
        number: Number of the sweep, from 1.
        config: Temperatures and burn-in.

    Returns:
        The temperature; log-probabilities are divided by it before a label is drawn.
    """
    done = min(1.0, (number - 1) / config.burn_in) if config.burn_in else 1.0
    return float(config.initial_temperature ** (1 - done) * config.min_temperature**done)


def units(constraints: Constraints, positions: Sequence[int]) -> list[Block]:
    """What is resampled at once: all members that one group's constraints bind, or a single example.

    Args:
        constraints: What logic says.
        positions: Whole groups.

    Returns:
        The units, in the order of their first members.
    """
    members: dict[tuple[str, int], list[int]] = defaultdict(list)
    for position in positions:
        component = constraints.component(position)
        members[("single", position) if component is None else ("group", component)].append(position)
    return [tuple(unit) for unit in members.values()]


def draw(
    constraints: Constraints,
    unit: Block,
    log_probs: Array,
    assignment: Assignment,
    heat: float,
    *,
    rng: np.random.Generator,
) -> Mapping[int, int]:
    """Draw labels for a unit: a blocked Gibbs step over the labellings that logic allows.

    A labelling weighs the product of its labels' probabilities, each given everything outside the unit, to the power of
    one over the temperature.

    Args:
        constraints: What logic says.
        unit: Positions.
        log_probs: Shape (unit, labels): calibrated label log-probabilities.
        assignment: Labels of the others.
        heat: Temperature, positive.
        rng: Draws one number.

    Returns:
        Label by position. Where logic allows nothing, each is drawn on its own and the contradiction stays visible in I(D).
    """
    options = constraints.options(unit, assignment, among_only=False) if len(unit) > 1 else []
    if options:
        weights = np.asarray([sum(log_probs[k, option[i]] for k, i in enumerate(unit)) for option in options])
        return options[_pick(weights / heat, rng)]
    return {i: _pick(row / heat, rng) for i, row in zip(unit, log_probs, strict=True)}


def _pick(log_weights: Array, rng: np.random.Generator) -> int:
    """An index, drawn in proportion to the exponentials."""
    return int(rng.choice(len(log_weights), p=np.exp(normalize(log_weights))))
