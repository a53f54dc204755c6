"""What the training commands print: results on standard output."""

from __future__ import annotations

from rich.table import Table

from elicitor.console import duration
from elicitor.terminal import print_json, say, terminal
from elicitor.train.compare import RESULT, TrainComparison
from elicitor.train.cost import TrainingCost
from elicitor.train.iterate import IterateCost, Iterated
from elicitor.train.sft import Trained

_HEADINGS = ("trained on", "examples", "label acc.", "raw", "calibrated", "gap recovered", "tokens", "seconds")


def show_trained(done: Trained, *, as_json: bool) -> None:
    """Print what a training made and cost."""
    if as_json:
        print_json({"output_dir": str(done.folder), **done.result})
        return
    result = done.result
    counts = ", ".join(f"{label} {count}" for label, count in result["label_counts"].items())
    say(f"{result['rows']} labels ({counts}); {result['left_out']} indeterminate ones left out")
    losses = result["losses"]
    if losses:
        say(
            f"loss of the label: {losses[0]['loss']:.3f} at step {losses[0]['step']}, {losses[-1]['loss']:.3f} at the end"
        )
    rate = result["tokens"] / max(result["seconds"], 1e-3)
    say(f"{result['steps']} steps, {result['tokens']:,} tokens in {duration(result['seconds'])}", end="")
    say(
        f" ({rate:,.0f} tokens/s)"
        if not result["resumed_at_step"]
        else f", resumed at step {result['resumed_at_step']}"
    )
    say(f"model: {result['model']}")


def show_training_cost(cost: TrainingCost, *, as_json: bool) -> None:
    """Print what a training would cost."""
    if as_json:
        print_json(cost.to_json())
        return
    say(f"{cost.rows} examples, {cost.steps} steps, {cost.tokens:,} tokens ({cost.padding:.0%} more with padding)")
    say(f"parameters: {cost.trained_parameters:,} of {cost.parameters:,} trained")
    say(f"time at {cost.tokens_per_second:,.0f} tokens/s: {duration(cost.seconds)}")
    say(f"\n--- first example ---\n{cost.example}")


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
    terminal(least_width=130).print(table)
    first = result.rows[0].raw
    say(
        f"{result.task}, {result.model}, {result.method}: n = {first.n} in {first.groups} groups; seeds "
        f"{', '.join(map(str, result.seeds))}; calibration of the run: {result.calibration}; table: {folder}/{RESULT}"
    )
    for note in result.notes:
        say(f"note: {note}")


def show_iterated(done: Iterated, *, as_json: bool) -> None:
    """Print what the loop made."""
    if as_json:
        metrics = {"run": str(done.run.path), "metrics": done.run.metrics, "training": done.trained.result}
        print_json({"output_dir": str(done.folder), "batches": done.batches, **metrics})
        return
    shares = ", ".join(f"{name} {count}" for name, count in done.run.metrics["labels"].items())
    say(f"{sum(done.batches)} labels ({shares}) in {len(done.batches)} batches: {done.run.path}")
    show_trained(done.trained, as_json=False)


def show_iterate_cost(cost: IterateCost, *, as_json: bool) -> None:
    """Print what the loop would cost."""
    if as_json:
        print_json(cost.to_json())
        return
    say(f"{sum(cost.batches)} examples in {len(cost.batches)} batches; {len(cost.batches)} trainings")
    least, most = cost.label_tokens
    say(
        f"labelling: {least:,} to {most:,} tokens, {duration(cost.label_seconds[0])} to {duration(cost.label_seconds[1])}"
    )
    say(f"training: {cost.train_tokens:,} tokens, {duration(cost.train_seconds)} at {cost.train_rate:,.0f} tokens/s")
