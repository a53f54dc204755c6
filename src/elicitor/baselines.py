"""The conditions of the comparison: what stands before a test query, and which labels the demonstrations carry.

All few-shot conditions of a seed put the same examples in the same order before the query; only the labels differ. One
exception: a bootstrap with a confidence filter leaves out the demonstrations it is least sure of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from elicitor.errors import ConfigError
from elicitor.objective import Problem
from elicitor.probes import ProbeKind
from elicitor.search.bootstrap import Bootstrap
from elicitor.search_settings import BootstrapConfig

Condition = Literal[
    "zero_shot",
    "zero_shot_assistant",
    "zero_shot_chat",
    "random",
    "bootstrap",
    "bootstrap_consistent",
    "bootstrap_confident",
    "bootstrap_consistent_confident",
    "found",
    "human",
    "noised_gold",
    "golden",
    "random_probe",
    "pca_probe",
    "ccs_probe",
    "supervised_probe",
]
CONDITIONS: tuple[Condition, ...] = get_args(Condition)
DEFAULT_CONDITIONS: tuple[Condition, ...] = ("zero_shot", "random", "found", "golden")
ZERO_SHOT: frozenset[Condition] = frozenset(("zero_shot", "zero_shot_assistant", "zero_shot_chat"))
"""Conditions without demonstrations: nothing is drawn, so one seed is all there is."""
NEEDS_GOLD: frozenset[Condition] = frozenset(("noised_gold", "golden", "supervised_probe"))
"""Conditions that read gold labels of the labelled examples."""
PROBES: Mapping[Condition, ProbeKind] = {
    "random_probe": "random",
    "pca_probe": "pca",
    "ccs_probe": "ccs",
    "supervised_probe": "supervised",
}
"""Conditions that read hidden states instead of answers; see `elicitor.probes`."""
DRAWN_PROBES: frozenset[Condition] = frozenset(("random_probe", "ccs_probe"))
"""Probes that draw something, so that seeds differ."""
CONFIDENT_SHARE = 0.5
"""Share of the examples that a bootstrap with a confidence filter keeps as demonstrations."""


@dataclass(frozen=True, slots=True)
class BootstrapVariant:
    """One of the bootstrapped baselines.

    Attributes:
        consistent: Whether groups are made consistent after each round.
        keep: Share of the examples, the most confident, that serve as demonstrations.
    """

    consistent: bool
    keep: float


BOOTSTRAPS: Mapping[Condition, BootstrapVariant] = {
    "bootstrap": BootstrapVariant(consistent=False, keep=1.0),
    "bootstrap_consistent": BootstrapVariant(consistent=True, keep=1.0),
    "bootstrap_confident": BootstrapVariant(consistent=False, keep=CONFIDENT_SHARE),
    "bootstrap_consistent_confident": BootstrapVariant(consistent=True, keep=CONFIDENT_SHARE),
}

ASSISTANT_PREAMBLE = (
    "What follows is a talk between a person and an AI assistant. The assistant knows a great deal, reads closely, says "
    "only what it believes to be right, and keeps its answers short.\n\n"
    "Person: Someone told me that a week has eight days. Right or wrong?\n\n"
    "Assistant: Wrong. It has seven.\n\n"
    "Person: And that ice is frozen water?\n\n"
    "Assistant: Right.\n\n"
    "Person: Thank you. Now please complete the last line below. The only words you may add are {labels}.\n\n"
)
"""Before a zero-shot query, it makes a base model answer as an assistant would; own words, after the paper's use of such a
prompt (Wen et al. 2025, section 3.2; Askell et al. 2021)."""
CHAT_REQUEST = "{query}\n\nComplete the last line. Answer with one of these and nothing else: {labels}."
"""What the user of a chat model says."""


def check_conditions(names: Sequence[str]) -> tuple[Condition, ...]:
    """Conditions by name, in the order of the table.

    Raises:
        ConfigError: If a name is unknown or none is given.
    """
    unknown = [name for name in names if name not in CONDITIONS]
    if unknown or not names:
        got = repr(unknown[0]) if unknown else "none"
        raise ConfigError(f"unknown condition {got}", fix=f"choose from {', '.join(CONDITIONS)}")
    return tuple(name for name in CONDITIONS if name in names)


def random_labels(positions: Sequence[int], *, n_labels: int, rng: np.random.Generator) -> dict[int, int]:
    """Every label equally often, dealt by lot.

    Args:
        positions: Demonstrations, in order.
        n_labels: Size of the label set.
        rng: Deals.

    Returns:
        Label by position.
    """
    dealt = rng.permutation(np.arange(len(positions)) % n_labels)
    return {position: int(label) for position, label in zip(positions, dealt, strict=True)}


def noised_gold(
    golden: Mapping[int, int], found: Mapping[int, int], *, n_labels: int, rng: np.random.Generator
) -> dict[int, int]:
    """Gold labels, as many of them wrong, drawn by lot, as found labels are (Wen et al. 2025, figure 8).

    Args:
        golden: Gold label of each demonstration that has one.
        found: Found label of each of them.
        n_labels: Size of the label set.
        rng: Draws the noise.

    Returns:
        Label by position.
    """
    noised = dict(golden)
    wrong = sum(found[position] != label for position, label in golden.items())
    for position in rng.permutation(np.asarray(list(golden), dtype=np.int64))[:wrong].tolist():
        noised[position] = int((golden[position] + rng.integers(1, n_labels)) % n_labels)
    return noised


def one_vote_each(votes: Mapping[int, Sequence[int]], *, rng: np.random.Generator) -> dict[int, int]:
    """One annotator's vote for each demonstration: what a single person's labels would have been.

    Args:
        votes: Votes by position, at least one each.
        rng: Draws one of them.

    Returns:
        Label by position.
    """
    return {position: int(cast[int(rng.integers(len(cast)))]) for position, cast in votes.items()}


def bootstrapped_labels(
    problem: Problem, variant: BootstrapVariant, *, rounds: int, rng: np.random.Generator
) -> dict[int, int]:
    """Labels that few-shot relabelling from zero-shot ends in, without any search (Shrivastava et al. 2026).

    Args:
        problem: The examples that may serve as demonstrations; its constraints are used if the variant is consistent.
        variant: With or without consistency and confidence filter.
        rounds: Rounds of relabelling, at most.
        rng: Orders the demonstrations.

    Returns:
        Label by position in the problem; with a filter only the most confident ones.
    """
    if not variant.consistent:
        problem = problem.without_constraints()
    search = Bootstrap(BootstrapConfig(rounds=rounds, keep=variant.keep))
    state, _ = search.start(problem, rng=rng)
    while state.finished is None:
        state, _ = search.step(problem, state, rng=rng)
    return {i: label for i, label in enumerate(state.assignment.labels) if label is not None}


def check_votes(votes: Mapping[int, Sequence[int]], positions: Sequence[int]) -> dict[int, Sequence[int]]:
    """Votes of the demonstrations, in their order.

    Raises:
        ConfigError: If one of them has none.
    """
    without = [position for position in positions if not votes.get(position)]
    if without:
        raise ConfigError(
            f"{len(without)} of {len(positions)} demonstrations have no human votes",
            fix="leave out condition human, or give a file whose task names its votes column",
        )
    return {position: votes[position] for position in positions}


def label_words(verbalizers: Sequence[str]) -> str:
    """The verbalizers as a person would list them."""
    words = [verbalizer.strip() for verbalizer in verbalizers]
    return f"{', '.join(words[:-1])} or {words[-1]}"


def assistant_preamble(verbalizers: Sequence[str]) -> str:
    """`ASSISTANT_PREAMBLE` for a set of verbalizers."""
    return ASSISTANT_PREAMBLE.replace("{labels}", label_words(verbalizers))


def chat_request(query: str, verbalizers: Sequence[str]) -> str:
    """`CHAT_REQUEST` for a rendered query; plain substitution, the query's text is never read as a template."""
    before, _, after = CHAT_REQUEST.replace("{labels}", label_words(verbalizers)).partition("{query}")
    return before + query + after
