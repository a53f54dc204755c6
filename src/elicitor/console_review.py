"""What ``elicitor review`` prints."""

from __future__ import annotations

import json
from pathlib import Path

from elicitor.data import load_dataset
from elicitor.inputs import task_of
from elicitor.review import Review
from elicitor.runs import check_same_data, load_run_config
from elicitor.terminal import print_json, say

_SHOWN = 5
_WIDTH = 100


def show_review(run: Path, review: Review, *, as_json: bool) -> None:
    """Print the estimate of a review, and what to look at next.

    Args:
        run: The run folder.
        review: Where the review stands.
        as_json: Print JSON, for which the data need not be there.

    Raises:
        ElicitorError: If the data of the run, whose texts are shown, cannot be read.
    """
    if as_json:
        print_json({**review.to_json(), "examples": len(review.labels), "waiting": review.waiting})
        return
    say(f"{len(review.marks)} marks; {len(review.labels)} examples have labels")
    found = review.estimate
    if found:
        say(
            f"label accuracy {found.value:.3f} [{found.lower:.3f}, {found.upper:.3f}], from {found.n} marks "
            "(stratified by margin; 95%, Wilson at the effective sample size)"
        )
    if review.waiting:
        say(
            f"{review.waiting} marks do not count: they were set on examples of choice, or a proposed example "
            "before them has no mark"
        )
    if not review.proposed:
        say(
            "nothing is proposed: all labels are marked" if found else "nothing is proposed before the run has finished"
        )
        return
    if not found:
        say("no estimate yet: each of the strata needs a mark")
    wanted = review.proposed[:_SHOWN]
    config = load_run_config(run)
    task = task_of(config)
    dataset = load_dataset(config.data, task, limit=config.limit, in_memory=False)
    check_same_data(run, dataset.fingerprint, dataset.source)
    texts = {example.id: task.render(example) for example in dataset.examples if example.id in wanted}
    say(f"\nto look at next, of {len(review.proposed)} proposed:")
    for name in wanted:
        # As JSON, so that nothing in a text can move the cursor.
        text = json.dumps(texts.get(name, "(not in the data any more)"), ensure_ascii=False)
        say(f"  {name}: {review.labels[name]}\n    {text[:_WIDTH]}{'...' if len(text) > _WIDTH else ''}")
    say(f"mark one with: elicitor review {run} --mark {wanted[0]}=right")
