"""Making labels agree with logic (Wen et al. 2025, algorithm 2), by utility or by confidence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from elicitor.consistency import Constraints
from elicitor.data import Assignment
from elicitor.objective import Array, Problem, Utility


def repair(
    problem: Problem,
    assignment: Assignment,
    utility: Utility,
    *,
    rounds: int,
    rng: np.random.Generator,
    after: Utility | None = None,
) -> tuple[Assignment, Utility, int]:
    """Resolve violated constraints one at a time, each by the consistent option of highest utility.

    For one violated constraint every consistent labelling of its members is tried (both-false included where the logic
    allows it) and compared with leaving it as it is; the released code never makes that last comparison.

    Args:
        problem: What is being labelled.
        assignment: Labels that may violate constraints.
        utility: U of ``assignment``.
        rounds: Violated constraints looked at, at most.
        rng: Picks the constraint and orders demonstrations.
        after: Evaluation of the labels before the change that is repaired; see `Problem.utility`.

    Returns:
        The repaired assignment, its utility, and the number of evaluations of U(D) spent.
    """
    tried = 0
    left_alone = set()
    for _ in range(rounds):
        violated = [c for c in problem.constraints.violated(assignment) if c not in left_alone]
        if not violated:
            break
        constraint = violated[int(rng.integers(len(violated)))]
        best, best_utility = assignment, utility
        for option in problem.constraints.options(constraint.members, assignment, among_only=True):
            candidate = assignment.with_labels(option)
            candidate_utility = problem.utility(candidate, rng=rng, after=after)
            tried += 1
            if candidate_utility.total > best_utility.total:
                best, best_utility = candidate, candidate_utility
        if best is assignment:
            left_alone.add(constraint)
        assignment, utility = best, best_utility
    return assignment, utility, tried


def most_confident(
    constraints: Constraints, assignment: Assignment, rows: Mapping[int, Array], *, keep_surest: bool = False
) -> Assignment:
    """Label examples so that logic holds and the summed log-probability is highest, group by group.

    Args:
        constraints: What logic says.
        assignment: Labels to build on; those of positions in ``rows`` are replaced.
        rows: Calibrated label log-probabilities by position, each of shape (labels,).
        keep_surest: Bend the members of a group to the most probable label among all of theirs, whatever the sum is (Wen et
            al. 2025, version 2, algorithm 4), as long as logic allows that label.

    Returns:
        ``assignment`` with a label for every position in ``rows``. Where the labels that stay already contradict every
        option, the position takes its most probable label and the contradiction stays visible in I(D).
    """
    cleared = assignment.with_labels(dict.fromkeys(rows))
    chosen: dict[int, int | None] = {}
    members_of: dict[int, list[int]] = defaultdict(list)
    for position in rows:
        component = constraints.component(position)
        if component is None:
            chosen[position] = int(np.argmax(rows[position]))
        else:
            members_of[component].append(position)
    for members in members_of.values():
        options = constraints.options(members, cleared, among_only=False)
        if keep_surest:
            surest = max(members, key=lambda i: float(rows[i].max()))
            options = [o for o in options if o[surest] == int(np.argmax(rows[surest]))] or options
        if options:
            chosen |= _most_probable(options, rows)
        else:
            chosen |= {i: int(np.argmax(rows[i])) for i in members}
    return cleared.with_labels(chosen)


def _most_probable(options: list[dict[int, int]], rows: Mapping[int, Array]) -> dict[int, int]:
    return max(options, key=lambda option: sum(float(rows[i][y]) for i, y in option.items()))
