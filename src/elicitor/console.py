"""What the command line shows: progress on standard error, results on standard output."""

from __future__ import annotations

import json
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from elicitor.audit import Audit, audit
from elicitor.config import RunConfig
from elicitor.dry_run import DryRun, estimate
from elicitor.evaluation import Evaluation, evaluate
from elicitor.labelling import Run, Step, prepare, run
from elicitor.models import ModelInfo
from elicitor.runs import package_versions
from elicitor.search.events import Proposal, Warned
from elicitor.suite import RESULTS, Suite, SuiteConfig, run_suite
from elicitor.suite_cost import PartCost, suite_cost
from elicitor.tables import ACCURACY_COLUMNS, HEADINGS, OTHER_COLUMNS, caption, overview_rows, row_cells

_PLAIN_INTERVAL = 10.0
"""Seconds between progress lines when standard error is not a terminal."""


def _stderr() -> Console:
    return Console(stderr=True, highlight=False)


class _Display:
    """One progress bar that also works as a log where there is no terminal."""

    def __init__(self, description: str) -> None:
        self._console = _stderr()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(description, total=None, detail="")
        self._description = description
        self._tokens = 0
        self._started = time.monotonic()
        self._last_line = self._started

    def __enter__(self) -> _Display:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def tokens(self, count: int) -> None:
        """Count computed tokens; called after each forward pass."""
        if self._tokens == 0:
            self._started = time.monotonic()
        self._tokens += count
        self._bar.update(self._task, detail=f"{self._rate()} tok/s")

    def warn(self, message: str) -> None:
        """Show a warning above the bar."""
        self._console.print(f"warning: {message}", markup=False, soft_wrap=True)

    def update(self, completed: int, total: int, detail: str) -> None:
        """Show how far the work is."""
        detail = f"{detail} {self._rate()} tok/s"
        self._bar.update(self._task, completed=completed, total=total, detail=detail)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line >= _PLAIN_INTERVAL:
            self._last_line = now
            elapsed = now - self._started
            left = elapsed / max(completed, 1) * (total - completed)
            line = (
                f"{self._description}: {completed}/{total} {detail} elapsed {elapsed:.0f} s, left at most {left:.0f} s"
            )
            self._console.print(line, markup=False, soft_wrap=True)

    def stage(self, name: str) -> None:
        """Show what begins now."""
        self._bar.update(self._task, description=f"{self._description}: {name}")
        if not self._console.is_terminal:
            self._console.print(f"{self._description}: {name}", markup=False)

    def _rate(self) -> str:
        return f"{self._tokens / max(time.monotonic() - self._started, 1e-3):,.0f}"


def label_with_progress(config: RunConfig, folder: Path, *, resume: bool) -> Run:
    """Run a labelling run under a progress bar; see `elicitor.labelling.run`."""
    with _Display(f"label {config.search}") as display:
        judged: list[bool] = []

        def observe(step: Step) -> None:
            heat = ""
            for event in step.events:
                if isinstance(event, Warned):
                    display.warn(event.message)
                if isinstance(event, Proposal):
                    heat = f"T {event.temperature:.2f} "
                    if event.utility_proposed is not None:
                        judged.append(event.accepted)
            accepted = f"accepted {sum(judged[-50:]) / len(judged[-50:]):.0%} " if judged else ""
            batch = f"batch {step.batch + 1}/{step.n_batches} " if step.n_batches > 1 else ""
            labelled = f"labelled {len(step.state.assignment.labelled)}/{step.n_examples}"
            detail = f"{batch}U {step.state.utility.total:.2f} {heat}{accepted}{labelled}"
            display.update(step.state.iteration, step.budget, detail)

        return run(config, folder, resume=resume, observer=observe, on_progress=display.tokens, on_stage=display.stage)


def estimate_with_progress(config: RunConfig) -> DryRun:
    """Estimate what a run would cost, under a progress bar; see `elicitor.dry_run.estimate`."""
    with _Display("dry run") as display:
        return estimate(prepare(config, on_stage=display.stage))


def evaluate_with_progress(
    folder: Path | Sequence[Path], test: str, *, seeds: Sequence[int], **options: Any
) -> Evaluation:
    """Evaluate under a progress bar; see `elicitor.evaluation.evaluate`."""
    with _Display("eval") as display:
        return evaluate(folder, test, seeds=seeds, on_progress=display.tokens, on_stage=display.stage, **options)


def suite_with_progress(config: SuiteConfig, folder: Path, *, resume: bool) -> Suite:
    """Run a suite under a progress bar; see `elicitor.suite.run_suite`."""
    with _Display("suite") as display:
        return run_suite(
            config,
            folder,
            resume=resume,
            command=shlex.join(["elicitor", *sys.argv[1:]]),
            on_progress=display.tokens,
            on_stage=display.stage,
            on_part=lambda done, parts: display.update(done, parts, ""),
        )


def suite_cost_with_progress(config: SuiteConfig) -> list[PartCost]:
    """Count what a suite would cost, under a progress bar; see `elicitor.suite_cost.suite_cost`."""
    with _Display("dry run") as display:
        return suite_cost(config, on_stage=display.stage)


def show_suite(suite: Suite, *, as_json: bool) -> None:
    """Print the overview of a suite."""
    if as_json:
        results = {name: result.to_json() for name, result in zip(suite.names, suite.evaluations, strict=True)}
        print_json({"output_dir": str(suite.folder), "results": results})
        return
    table = Table(title="accuracy under the calibration of each run, 95% intervals by bootstrap over groups and seeds")
    table.add_column("condition", no_wrap=True)
    for name in suite.names:
        table.add_column(name, justify="right", no_wrap=True)
    for cells in overview_rows(suite.evaluations):
        table.add_row(*cells)
    Console(highlight=False, width=max(200, Console().width)).print(table)
    for name, result in zip(suite.names, suite.evaluations, strict=True):
        print(f"{name}: {caption(result)}")
        for note in result.notes:
            print(f"{name}: note: {note}")
    print(f"tables and figure: {suite.folder / RESULTS}.md, .csv, .tex, .json, .png")


def show_suite_cost(costs: Sequence[PartCost], *, as_json: bool) -> None:
    """Print what a suite would cost."""
    if as_json:
        print_json([asdict(cost) for cost in costs])
        return
    for cost in costs:
        search, conditions = (f"{low:,} to {high:,}" for low, high in (cost.search_tokens, cost.condition_tokens))
        print(
            f"{cost.name}: {cost.n_label} examples to label, {cost.n_test} to test; tokens: search {search}, "
            f"conditions {conditions}; {_duration(cost.seconds[0])} to {_duration(cost.seconds[1])}"
        )
    least, most = (sum(cost.seconds[end] for cost in costs) for end in (0, 1))
    print(f"in all: {_duration(least)} to {_duration(most)}")


def audit_with_progress(folder: Path, **options: Any) -> Audit:
    """Audit a run under a progress bar; see `elicitor.audit.audit`."""
    with _Display("audit") as display:
        return audit(folder, on_progress=display.tokens, on_stage=display.stage, **options)


def show_audit(result: Audit, *, as_json: bool) -> None:
    """Print the verdicts of an audit, and what to do."""
    if as_json:
        print_json(result.to_json())
        return
    for check in result.checks:
        print(f"{check.verdict:<9} {check.name}: {check.finding}")
        if check.advice:
            print(f"{'':<9} -> {check.advice}")
    cost = result.cost
    print(
        f"{len(result.abstained)} of {result.n_examples} labels are indeterminate; "
        f"{cost.tokens_computed:,} tokens, {cost.seconds:.1f} s"
    )
    print(f"verdict: {result.verdict}")


def show_run(done: Run, *, as_json: bool, quiet: bool = False) -> None:
    """Print what a labelling run found and cost."""
    if quiet:
        return
    if as_json:
        print_json({"output_dir": str(done.path), **done.metrics})
        return
    metrics, cost = done.metrics, done.metrics["cost"]
    shares = ", ".join(f"{name} {count}" for name, count in metrics["labels"].items())
    print(f"{metrics['n_examples']} labels ({shares}), {metrics['filled']} of them filled at the end")
    for batch in metrics["batches"]:
        print(
            f"batch {batch['batch']}: U {batch['utility']:.3f} = alpha * {batch['predictability']:.4f} - "
            f"{batch['inconsistency']}; {batch['iterations']} iterations, {batch['finished']}"
        )
    proposals = metrics["proposals"]
    if proposals["made"]:
        print(f"{proposals['made']} proposals, {proposals['judged']} changed a label, {proposals['accepted']} accepted")
    computed, in_order, naive = (
        cost["tokens_computed"],
        cost["in_order_tokens_same_events"],
        cost["naive_tokens_same_events"],
    )
    print(f"prompt tokens: {computed:,} computed, {cost['tokens_reused']:,} reused, in {cost['seconds']:.1f} s")
    print(
        f"the same evaluations under plan in_order: {in_order:,} tokens ({in_order / max(computed, 1):.1f} times), "
        f"without reuse: {naive:,} ({naive / max(computed, 1):.1f} times)"
    )
    print(f"labels: {done.path / 'labels.jsonl'}")


def show_evaluation(result: Evaluation, *, as_json: bool) -> None:
    """Print the tables of an evaluation."""
    if as_json:
        print_json(result.to_json())
        return
    # A fixed width keeps a table whole in logs and pipes, where the console's width is only a guess.
    console = Console(highlight=False, width=max(120, Console().width))
    title = "accuracy on the test set, 95% intervals by bootstrap over groups and seeds"
    for columns in (ACCURACY_COLUMNS, OTHER_COLUMNS):
        table = Table(title=title)
        for column in columns:
            table.add_column(HEADINGS[column], justify="right" if column else "left", no_wrap=True)
        for row in result.rows:
            cells = row_cells(row)
            table.add_row(*(cells[column] for column in columns))
        console.print(table)
        title = "ranking, calibration, paired difference, cost"
    print(caption(result))
    for row in result.rows:
        if row.gap_recovered is not None and row.gap_recovered.value is None:
            print("gap recovered is undefined: golden labels are not clearly better than none on this test set")
            break
    for note in result.notes:
        print(f"note: {note}")


def show_dry_run(plan: DryRun, *, as_json: bool) -> None:
    """Print the estimate of a run."""
    if as_json:
        print_json(asdict(plan))
        return
    sizes = ", ".join(map(str, plan.batch_sizes))
    print(f"{plan.n_examples} examples in {len(plan.batch_sizes)} batches ({sizes})")
    for name in ("evaluations", "prompts", "tokens"):
        least, most = getattr(plan, name)
        print(f"{name}: {least:,} to {most:,}")
    least_seconds, most_seconds = plan.seconds
    print(f"time at {plan.tokens_per_second:,.0f} tokens/s: {_duration(least_seconds)} to {_duration(most_seconds)}")
    print("least: no label changes once it is given; most: every step changes one and nothing needs repair")
    for number, prompt in enumerate(plan.rendered_prompts, start=1):
        print(f"\n--- prompt {number} ---\n{prompt}")


def show_models(models: Sequence[ModelInfo], *, as_json: bool) -> None:
    """Print the model names that can be used."""
    if as_json:
        print_json([asdict(model) for model in models])
        return
    for model in models:
        print(f"{model.name:<24} {model.status}")


def environment() -> dict[str, Any]:
    """Versions and hardware."""
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": package_versions(),
    }
    try:
        import torch
    except ImportError:
        facts["torch"] = "not installed"
    else:
        facts["torch"] = {
            "cuda": torch.version.cuda,
            "gpus": torch.cuda.device_count(),
            "threads": torch.get_num_threads(),
        }
    return facts


def show_environment(*, as_json: bool) -> None:
    """Print versions and hardware."""
    facts = environment()
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        print(f"{name}: {json.dumps(value) if isinstance(value, dict) else value}")


def print_json(values: Any) -> None:
    """Print JSON on standard output."""
    json.dump(values, sys.stdout, ensure_ascii=False, indent=2, allow_nan=False)
    print()


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
