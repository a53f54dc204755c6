"""The checks of an audit: pure functions from labels and what the model says of them to a verdict.

Thresholds are rules of thumb, stated in each docstring and in docs/audit.md; every check gives its figures beside its verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from elicitor.agreement import agreement
from elicitor.consistency import Constraints
from elicitor.data import Assignment
from elicitor.objective import Array, log_odds
from elicitor.salience import Predictor

Verdict = Literal["ok", "look", "failed", "not done"]
GRAVITY: tuple[Verdict, ...] = ("not done", "ok", "look", "failed")

FEW = 20
"""Examples below which most figures say little."""
NEAR_TIE = 0.5
"""Log-odds, in nats, within which a label counts as a near-tie: probabilities of 0.38 to 0.62 for two labels."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: Which.
        verdict: ``ok``, ``look`` (a person should), ``failed``, or ``not done``.
        finding: What was seen, with its figures, in one sentence.
        advice: What to do about it; empty if it is ok.
        figures: The figures.
    """

    name: str
    verdict: Verdict
    finding: str
    advice: str
    figures: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the model says about the labels when it is asked once more.

    Attributes:
        log_probs: Shape (orders, examples, labels): distribution of each label given all the others, calibrated as in the
            run, normalised, each time in a fresh order.
        found: P of the found labels, by order.
        constant: P of giving every example one label, by label name.
        exchanged: P with two labels exchanged throughout, by their names.
        zero_shot: Shape (examples, labels): distribution without demonstrations, less its mean over the examples.
    """

    log_probs: Array
    found: list[float]
    constant: dict[str, float]
    exchanged: dict[str, float]
    zero_shot: Array


def check_class_balance(
    labels: NDArray[np.int64], asked: Asked, names: Sequence[str], *, class_prior: Sequence[float] | None
) -> Check:
    """Whether nearly all examples got one label, and whether giving it to all would be more predictable still.

    Args:
        labels: Found label index of each example.
        asked: What the model says now.
        names: Label names.
        class_prior: Assumed share of each label, if the run had one.

    Returns:
        ``failed`` from 95% of one label on (or half of the way from its assumed share to 1, if that is more).
    """
    counts = np.bincount(labels, minlength=len(names))
    largest = int(counts.argmax())
    share = float(counts[largest] / len(labels))
    expected = 1 / len(names) if class_prior is None else class_prior[largest]
    best = max(asked.constant, key=lambda name: asked.constant[name])
    constant_wins = asked.constant[best] > float(np.mean(asked.found))
    figures = {
        "counts": {name: int(count) for name, count in zip(names, counts, strict=True)},
        "largest_share": share,
        "predictability_found": float(np.mean(asked.found)),
        "predictability_constant": asked.constant,
    }
    finding = (
        f"{share:.0%} of {len(labels)} labels are {names[largest]}; P of the found labels {np.mean(asked.found):.3f} nats, "
        f"of {best} for all {asked.constant[best]:.3f}"
    )
    if share >= max(0.95, (1 + expected) / 2):
        advice = "the labels have collapsed: set objective.calibration=batch, or use a larger base model"
        return Check("class balance", "failed", finding, advice, figures)
    if share >= max(0.8, (0.6 + 0.4 * expected)) or constant_wins or len(labels) < FEW:
        few = f"; {len(labels)} examples are few" if len(labels) < FEW else ""
        advice = f"look at the labels: is this balance plausible? If not, set objective.calibration=batch{few}"
        return Check("class balance", "look", finding, advice, figures)
    return Check("class balance", "ok", finding, "", figures)


def check_orientation(labels: NDArray[np.int64], asked: Asked, names: Sequence[str]) -> Check:
    """Whether the labels stand for what their names say, or for the opposite.

    Two labels exchanged throughout are as consistent as before; what the model knows of the words tells them apart.

    Args:
        labels: Found label index of each example.
        asked: What the model says now.
        names: Label names.

    Returns:
        ``failed`` if exchanged labels are clearly more predictable than found ones.
    """
    found, spread = float(np.mean(asked.found)), float(np.std(asked.found))
    best = max(asked.exchanged, key=lambda pair: asked.exchanged[pair])
    ahead = asked.exchanged[best] - found
    zero_shot = float(np.mean(asked.zero_shot.argmax(axis=1) == labels))
    figures = {
        "found": found,
        "exchanged": asked.exchanged,
        "spread_over_orders": spread,
        "agreement_with_zero_shot": zero_shot,
    }
    finding = (
        f"P with {best} exchanged {asked.exchanged[best]:.3f} nats, as found {found:.3f} (sd over orders {spread:.3f}); "
        f"{zero_shot:.0%} of the labels are the model's calibrated zero-shot answers"
    )
    advice = f"the labels may stand for the opposite: read some examples, and exchange {best} if so"
    if ahead > max(2 * spread, 0.05):
        return Check("orientation", "failed", finding, advice, figures)
    if ahead > -max(2 * spread, 0.05):
        return Check("orientation", "look", finding, advice, figures)
    return Check("orientation", "ok", finding, "", figures)


def check_consistency(found: Sequence[int], constraints: Constraints) -> Check:
    """How many constraints the labels still violate.

    Args:
        found: Found label index of each example.
        constraints: What logic says.

    Returns:
        ``failed`` above 5% of them.
    """
    violated, total = constraints.count(Assignment(tuple(found))), len(constraints.all)
    figures = {"violated": violated, "constraints": total}
    if total == 0:
        return Check(
            "consistency", "not done", "the task has no constraint that binds any of the examples", "", figures
        )
    finding = f"{violated} of {total} constraints are violated"
    advice = "raise icm.repair_rounds, or lower objective.alpha so that inconsistency weighs more"
    if violated == 0:
        return Check("consistency", "ok", finding, "", figures)
    return Check("consistency", "failed" if violated > 0.05 * total else "look", finding, advice, figures)


HISTOGRAM = (-np.inf, -4.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0, np.inf)
"""Bounds of the bins of `check_margins`, in nats."""


def check_margins(labels: NDArray[np.int64], asked: Asked) -> Check:
    """How sure the model is of the labels given all the others.

    Args:
        labels: Found label index of each example.
        asked: What the model says now.

    Returns:
        ``failed`` if more than half are near-ties, or more than a quarter are contradicted by the others.
    """
    margins = own_log_odds(labels, asked).mean(axis=0)
    ties, against = float(np.mean(np.abs(margins) < NEAR_TIE)), float(np.mean(margins <= -NEAR_TIE))
    counts = np.histogram(margins, bins=np.asarray(HISTOGRAM))[0]
    bins = [f"{low:g} to {high:g}" for low, high in pairwise(HISTOGRAM)]
    figures = {
        "near_ties": ties,
        "contradicted": against,
        "median": float(np.median(margins)),
        "histogram": dict(zip(bins, counts.tolist(), strict=True)),
    }
    finding = (
        f"median log-odds {np.median(margins):.2f} nats; {ties:.0%} are near-ties (within {NEAR_TIE}), {against:.0%} are "
        "contradicted by the other labels"
    )
    advice = "leave indeterminate examples out with --abstain; if most are, the model may not know the concept"
    if ties > 0.5 or against > 0.25:
        return Check("margins", "failed", finding, advice, figures)
    if ties > 0.25 or against > 0.1:
        return Check("margins", "look", finding, advice, figures)
    return Check("margins", "ok", finding, "", figures)


def check_context(labels: NDArray[np.int64], asked: Asked) -> Check:
    """Whether the same question gets the same answer when the demonstrations stand in another order.

    Args:
        labels: Found label index of each example.
        asked: What the model says now.

    Returns:
        ``failed`` if two orders disagree on 30% of the examples, or 30% of the labels are not given again; ``ok`` within 15%.
    """
    answers = asked.log_probs.argmax(axis=2)
    flips = float(np.mean([np.mean(a != b) for a, b in combinations(answers, 2)]))
    again = float(np.mean(answers == labels))
    spread = float(own_log_odds(labels, asked).std(axis=0).mean())
    figures = {"flips": flips, "found_label_again": again, "sd_of_log_odds": spread, "orders": len(answers)}
    finding = (
        f"two of {len(answers)} orders disagree on {flips:.0%} of the examples, {again:.0%} get their label again; "
        f"sd of log-odds over orders {spread:.2f} nats"
    )
    advice = "labels hang on the order of the demonstrations: average more of them, use a larger model, or --abstain"
    if flips > 0.3 or again < 0.7:
        return Check("context", "failed", finding, advice, figures)
    if flips > 0.15 or again < 0.85:
        return Check("context", "look", finding, advice, figures)
    return Check("context", "ok", finding, "", figures)


def check_salience(predictor: Predictor | None, *, n: int) -> Check:
    """Whether one trivial feature alone predicts the labels.

    Args:
        predictor: The best one, from `elicitor.salience.best_predictor`, or None.
        n: Number of examples.

    Returns:
        ``failed`` if it tells 90% apart (balanced) and chance does not.
    """
    if predictor is None:
        return Check("trivial features", "not done", "all labels are the same, or no feature varies", "", {})
    figures = asdict(predictor)
    finding = (
        f"'{predictor.feature}' alone tells {predictor.label} from the rest with {predictor.balanced_accuracy:.0%} balanced "
        f"accuracy (p = {predictor.p_value:.3f} for the best of all features, n = {n})"
    )
    advice = (
        "is this what you asked for? If not, balance the data on it, or split the data by it and label the parts apart"
    )
    if predictor.p_value < 0.05 and predictor.balanced_accuracy >= 0.9:
        return Check("trivial features", "failed", finding, advice, figures)
    if predictor.p_value < 0.05 and predictor.balanced_accuracy >= 0.7:
        return Check("trivial features", "look", finding, advice, figures)
    return Check("trivial features", "ok", finding, "", figures)


def check_agreement(
    what: Literal["seeds", "models"],
    labels: NDArray[np.int64],
    others: Sequence[Sequence[int]],
    *,
    groups: Sequence[str],
    rng: np.random.Generator,
) -> Check:
    """Whether other seeds, or other models, find the same labels, beyond what their class shares give by chance.

    Args:
        what: What differs between the runs.
        labels: Found label index of each example.
        others: Labels that other runs found.
        groups: Group of each example.
        rng: Draws the resamples of the intervals.

    Returns:
        ``failed`` if Cohen's kappa, averaged over pairs of runs, is below 0.3; ``ok`` from 0.6 on.
    """
    if not others:
        how = "--seeds 1,2" if what == "seeds" else "--against RUN, a run of another model"
        return Check(what, "not done", f"no run with other {what} to compare with", f"add {how}", {})
    runs = np.stack([labels, *map(np.asarray, others)])
    pairs = list(combinations(runs, 2)) if what == "seeds" else [(labels, other) for other in runs[1:]]
    found = agreement(pairs, groups, rng=rng)
    kappa = float(np.mean(found.kappas))
    flips = float(np.mean([len(set(column)) > 1 for column in runs.T.tolist()]))
    figures = {
        "runs": len(runs),
        "agreement": found.share.value,
        "agreement_interval": [found.share.lower, found.share.upper],
        "kappa": kappa,
        "kappa_interval": [found.kappa.lower, found.kappa.upper],
        "kappas": list(found.kappas),
        "groups": found.share.groups,
        "examples_that_differ": flips,
    }
    finding = (
        f"{len(runs)} runs agree on {found.share} of the labels, kappa {found.kappa}; {flips:.0%} of the examples have more "
        "than one label"
    )
    advice = (
        f"{what} find different concepts: read where they differ, use more examples or a larger model, or --abstain"
    )
    if min(found.kappas) < -0.3:
        advice = f"two runs found opposite labels: the concept is coherent both ways round; {advice}"
    if kappa < 0.3 or min(found.kappas) < -0.3:
        return Check(what, "failed", finding, advice, figures)
    return Check(what, "ok" if kappa >= 0.6 else "look", finding, "" if kappa >= 0.6 else advice, figures)


def own_log_odds(labels: NDArray[np.int64], asked: Asked) -> Array:
    """Log-odds of each found label in each order, shape (orders, examples)."""
    odds = log_odds(asked.log_probs)
    return np.asarray(odds[:, np.arange(len(labels)), labels])
