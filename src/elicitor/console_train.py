"""What the training commands print: results on standard output."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from elicitor.console import duration, print_json
from elicitor.train.compare import RESULT, TrainComparison
from elicitor.train.cost import TrainingCost
from elicitor.train.sft import Trained

_HEADINGS = ("trained on", "examples", "label acc.", "raw", "calibrated", "gap recovered", "tokens", "seconds")


def show_trained(done: Trained, *, as_json: bool) -> None:
    """Print what a training made and cost."""
    if as_json:
        print_json({"output_dir": str(done.folder), **done.result})
        return
    result = done.result
    counts = ", ".join(f"{label} {count}" for label, count in result["label_counts"].items())
    print(f"{result['rows']} labels ({counts}); {result['left_out']} indeterminate ones left out")
    losses = result["losses"]
    if losses:
        print(
            f"loss of the label: {losses[0]['loss']:.3f} at step {losses[0]['step']}, {losses[-1]['loss']:.3f} at the end"
        )
    rate = result["tokens"] / max(result["seconds"], 1e-3)
    print(f"{result['steps']} steps, {result['tokens']:,} tokens in {duration(result['seconds'])}", end="")
    print(
        f" ({rate:,.0f} tokens/s)"
        if not result["resumed_at_step"]
        else f", resumed at step {result['resumed_at_step']}"
    )
    print(f"model: {result['model']}")


def show_training_cost(cost: TrainingCost, *, as_json: bool) -> None:
    """Print what a training would cost."""
    if as_json:
        print_json(cost.to_json())
        return
    print(f"{cost.rows} examples, {cost.steps} steps, {cost.tokens:,} tokens ({cost.padding:.0%} more with padding)")
    print(f"parameters: {cost.trained_parameters:,} of {cost.parameters:,} trained")
    print(f"time at {cost.tokens_per_second:,.0f} tokens/s: {duration(cost.seconds)}")
    print(f"\n--- first example ---\n{cost.example}")


def show_comparison(result: TrainComparison, *, folder: str, as_json: bool) -> None:
    """Print the table of a comparison."""
    if as_json:
        print_json(result.to_json())
        return
    table = Table(title="zero-shot accuracy on the test set, 95% intervals by bootstrap over groups and seeds")
    for heading in _HEADINGS:
        table.add_column(heading, justify="left" if heading == _HEADINGS[0] else "right", no_wrap=True)
    for row in result.rows:
        table.add_row(
            "nothing (untrained)" if row.condition == "zero_shot" else row.condition,
            str(row.demonstrations),
            "" if row.label_accuracy is None else f"{row.label_accuracy:.3f}",
            str(row.raw),
            str(row.calibrated),
            "" if row.gap_recovered is None else str(row.gap_recovered),
            f"{row.cost.tokens_computed:,}",
            f"{row.cost.seconds:.0f}",
        )
    Console(highlight=False, width=max(130, Console().width)).print(table)
    first = result.rows[0].raw
    print(
        f"{result.task}, {result.model}, {result.method}: n = {first.n} in {first.groups} groups; seeds "
        f"{', '.join(map(str, result.seeds))}; calibration of the run: {result.calibration}; table: {folder}/{RESULT}"
    )
    for note in result.notes:
        print(f"note: {note}")
