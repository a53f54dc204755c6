"""What is wrong with scores that look right: a model that answers differently when asked again, or thinks of no label.

Both are measured on the run's own prompts. Neither stops a run; each is an event, and a warning beyond its bound.
"""

from __future__ import annotations

import numpy as np

from elicitor.backends.base import Prompt
from elicitor.backends.score_cache import uncached
from elicitor.errors import BackendError, LabelTokenError
from elicitor.objective import Meter, Problem
from elicitor.search.events import Checked, Warned

REPEAT_NATS = 0.01
"""Difference of two scorings of one prompt beyond which a seed no longer decides the labels."""
BATCH_NATS = 0.5
"""Difference of a prompt alone and among others that rounding in 16 bits explains."""
LEAST_MASS = 0.1
"""Share of the probability that the labels should have together: below it the model means to say something else."""
_PROMPTS = 3
_ENOUGH = 64
"""Prompts after which the labels' mass is judged."""


def check_scoring(problem: Problem, *, batch: int) -> list[Checked | Warned]:
    """Ask the model a few short questions twice, alone and together, in the first batch of a run: it is about the model.

    What is kept in memory or on disk takes no part: the model itself must answer.

    Args:
        problem: The examples, of which the shortest are asked about, and the model.
        batch: Number of the batch.

    Returns:
        What was measured, and a warning for each bound that was passed.

    Raises:
        BackendError: If a server does not answer; what else it refuses is left to the search to raise.
    """
    if batch:
        return []
    prompts = _questions(problem)
    backend = uncached(problem.backend)
    try:
        first, *others = (backend.score([prompt]) for prompt in prompts)
        again, together = backend.score(prompts[:1]), backend.score(prompts)
    except (BackendError, LabelTokenError) as error:
        if isinstance(error, BackendError) and error.retryable:
            raise
        return [Checked(batch, 0, None, None, 0, failure=error.problem)]
    alone = np.concatenate([answer.log_probs for answer in (first, *others)])
    repeat = float(np.abs(first.log_probs - again.log_probs).max())
    batched = float(np.abs(alone - together.log_probs).max())
    tokens = sum(answer.cost.tokens_computed for answer in (first, *others, again, together))
    return [Checked(batch, 0, repeat, batched, tokens), *_beyond(repeat, batched, batch=batch)]


def _questions(problem: Problem) -> list[Prompt]:
    """The shortest examples, each behind the same demonstration where there is another example to be one."""
    encoder = problem.encoder
    lengths = [len(encoder.query(position)) for position in range(len(problem.dataset))]
    shown, *rest = np.argsort(lengths, kind="stable")[: _PROMPTS + 1].tolist()
    if not rest:
        return [encoder.prompt_with([], shown)]
    return [encoder.prompt_with([encoder.demonstration(shown, 0)], position) for position in rest]


def _beyond(repeat: float, batched: float, *, batch: int) -> list[Warned]:
    messages = []
    if repeat > REPEAT_NATS:
        messages.append(
            f"the model is not deterministic: one prompt scored twice differs by {repeat:.2g} nats, so this seed need not give "
            "these labels again; use backend.dtype=float32, or a server with batch-invariant kernels"
        )
    if batched > BATCH_NATS:
        messages.append(
            f"a prompt's scores depend on the prompts beside it: alone and among {_PROMPTS} they differ by {batched:.2g} nats, "
            "more than rounding explains; set backend.pack_tokens=0, or use backend.dtype=float32"
        )
    return [Warned(batch, 0, message) for message in messages]


def check_mass(meter: Meter, *, since: int, batch: int, iteration: int, at_end: bool = False) -> list[Warned]:
    """Warn once, in the first batch, when enough prompts have been scored, if the model hardly thinks of the labels.

    Args:
        meter: Sums of the search so far.
        since: Prompts that had been scored before the last step.
        batch: Number of the batch.
        iteration: Where the search stands.
        at_end: Whether the search has ended, however few its prompts were.

    Returns:
        The warning, if it is due.
    """
    prompts = meter.cost.prompts
    due = since < _ENOUGH <= prompts or (at_end and prompts < _ENOUGH)
    mass = label_mass(meter)
    if batch or not due or mass is None or mass >= LEAST_MASS:
        return []
    message = (
        f"the labels have {mass:.2g} of the model's probability together, over {prompts} prompts: it expects other words in "
        "their place; look at the prompts with --dry-run, and choose the words it would write there with verbalizers"
    )
    return [Warned(batch, iteration, message)]


def label_mass(meter: Meter) -> float | None:
    """Mean probability of all labels together over the scored prompts; None before any."""
    return meter.label_mass / meter.cost.prompts if meter.cost.prompts else None
