"""What the command line prints: results on standard output."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from elicitor.ablation import Ablation
from elicitor.audit import Audit
from elicitor.dry_run import DryRun
from elicitor.evaluation import Evaluation
from elicitor.labelling import Run
from elicitor.manifest import package_versions
from elicitor.models import ModelInfo
from elicitor.solutions import Sampled, SamplingCost
from elicitor.suite import RESULTS, Suite
from elicitor.suite_cost import PartCost
from elicitor.tables import ACCURACY_COLUMNS, HEADINGS, OTHER_COLUMNS, caption, overview_rows, row_cells
from elicitor.terminal import print_json, say, terminal

_BATCHES_SHOWN = 8


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
    terminal(least_width=200).print(table)
    for name, result in zip(suite.names, suite.evaluations, strict=True):
        say(f"{name}: {caption(result)}")
        for note in result.notes:
            say(f"{name}: note: {note}")
    say(f"tables and figure: {suite.folder / RESULTS}.md, .csv, .tex, .json, .png")


def show_suite_cost(costs: Sequence[PartCost], *, as_json: bool) -> None:
    """Print what a suite would cost."""
    if as_json:
        print_json([asdict(cost) for cost in costs])
        return
    for cost in costs:
        search, conditions = (
            f"{low:,} to {high:,} tokens in {fewest:,} to {most:,} prompts"
            for (fewest, most), (low, high) in (
                (cost.search_prompts, cost.search_tokens),
                (cost.condition_prompts, cost.condition_tokens),
            )
        )
        time = f"{duration(cost.seconds[0])} to {duration(cost.seconds[1])}" if cost.seconds else "time unknown"
        say(
            f"{cost.name}: {cost.n_label} examples to label, {cost.n_test} to test; search {search}; "
            f"conditions {conditions}; {time}"
        )
    known = [cost.seconds for cost in costs if cost.seconds]
    if len(known) == len(costs):
        least, most = (sum(seconds[end] for seconds in known) for end in (0, 1))
        say(f"in all: {duration(least)} to {duration(most)}")


def show_ablation(result: Ablation, *, as_json: bool) -> None:
    """Print the table of an ablation."""
    if as_json:
        print_json(result.to_json())
        return
    table = Table(title="label accuracy, 95% intervals by bootstrap over groups and seeds")
    for heading in ("variant", "label accuracy", "less base", "p", "U", "I", "largest share", "tokens"):
        table.add_column(heading, justify="left" if heading == "variant" else "right", no_wrap=True)
    for row in result.results:
        gain = row.less_base
        table.add_row(
            row.variant.name,
            str(row.label_accuracy),
            "" if gain is None else str(gain.estimate),
            "" if gain is None or gain.p_value is None else f"{gain.p_value:.3f}",
            f"{row.utility:.2f}",
            f"{row.inconsistency:.1f}",
            f"{row.largest_share:.2f}",
            f"{row.cost.tokens_computed:,}",
        )
    terminal(least_width=130).print(table)
    first = result.results[0].label_accuracy
    say(f"n = {first.n} in {first.groups} groups; seeds {', '.join(map(str, result.seeds))}; folder: {result.folder}")


def show_ablation_cost(one: DryRun, *, searches: int, as_json: bool) -> None:
    """Print what an ablation would cost: so many times its base."""
    prompts, tokens = ([searches * end for end in bounds] for bounds in (one.prompts, one.tokens))
    seconds, price = (bounds and [searches * end for end in bounds] for bounds in (one.seconds, one.price))
    if as_json:
        print_json({"searches": searches, "prompts": prompts, "tokens": tokens, "seconds": seconds, "price": price})
        return
    say(
        f"{searches} searches of {one.n_examples} examples; {tokens[0]:,} to {tokens[1]:,} tokens in {prompts[0]:,} to "
        f"{prompts[1]:,} prompts"
    )
    if price:
        say(f"price if all prompt tokens cost the same: {price[0]:,.2f} to {price[1]:,.2f}")
    _show_time(one.tokens_per_second, seconds)


def show_audit(result: Audit, *, as_json: bool) -> None:
    """Print the verdicts of an audit, and what to do."""
    if as_json:
        print_json(result.to_json())
        return
    for check in result.checks:
        say(f"{check.verdict:<9} {check.name}: {check.finding}")
        if check.advice:
            say(f"{'':<9} -> {check.advice}")
    if result.supervision != "none":
        say(
            f"{result.supervision['labels']} labels were given to the search to start with, and are counted like the others"
        )
    cost = result.cost
    say(
        f"{len(result.abstained)} of {result.n_examples} labels are indeterminate; "
        f"{cost.tokens_computed:,} tokens, {cost.seconds:.1f} s"
    )
    say(f"verdict: {result.verdict}")


def show_run(done: Run, *, as_json: bool, quiet: bool = False) -> None:
    """Print what a labelling run found and cost."""
    if quiet:
        return
    if as_json:
        print_json({"output_dir": str(done.path), **done.metrics})
        return
    metrics, cost = done.metrics, done.metrics["cost"]
    shares = ", ".join(f"{name} {count}" for name, count in metrics["labels"].items())
    say(f"{metrics['n_examples']} labels ({shares}), {metrics['filled']} of them filled at the end")
    for batch in metrics["batches"][:_BATCHES_SHOWN]:
        say(
            f"batch {batch['batch']}: U {batch['utility']:.3f} = alpha * {batch['predictability']:.4f} - "
            f"{batch['inconsistency']}; {batch['iterations']} iterations, {batch['finished']}"
        )
    if len(metrics["batches"]) > _BATCHES_SHOWN:
        say(f"... and {len(metrics['batches']) - _BATCHES_SHOWN} more batches in metrics.json")
    proposals = metrics["proposals"]
    if proposals["made"]:
        say(f"{proposals['made']} proposals, {proposals['judged']} changed a label, {proposals['accepted']} accepted")
    if proposals.get("terms"):
        share = proposals["terms_read"] / proposals["terms"]
        checked = f"; {proposals['agreed']} of {proposals['checked']} checked agree with all terms"
        say(
            f"{proposals['by_a_part']} decided by a part of the terms of U, {share:.0%} of all terms read"
            + (checked if proposals["checked"] else "")
        )
    computed, in_order, naive = (
        cost["tokens_computed"],
        cost["in_order_tokens_same_events"],
        cost["naive_tokens_same_events"],
    )
    say(f"prompt tokens: {computed:,} computed, {cost['tokens_reused']:,} reused, in {cost['seconds']:.1f} s")
    say(
        f"the same evaluations under plan in_order: {in_order:,} tokens ({in_order / max(computed, 1):.1f} times), "
        f"without reuse: {naive:,} ({naive / max(computed, 1):.1f} times)"
    )
    if metrics.get("label_mass") is not None:
        scoring = metrics.get("scoring", {})
        twice = (
            ""
            if scoring.get("repeat_difference") is None
            else (
                f"; a prompt scored twice differs by {scoring['repeat_difference']:.2g} nats, alone and among others by "
                f"{scoring['batch_difference']:.2g}"
            )
        )
        say(f"the labels have {metrics['label_mass']:.0%} of the model's probability{twice}")
    if cost["bounded"]:
        say(f"{cost['bounded']:,} label scores are upper bounds: the server did not list those labels")
    for warning in metrics["warnings"]:
        say(f"warning: {warning}")
    say(f"labels: {done.path / 'labels.jsonl'}")


def show_evaluation(result: Evaluation, *, as_json: bool) -> None:
    """Print the tables of an evaluation."""
    if as_json:
        print_json(result.to_json())
        return
    # A fixed width keeps a table whole in logs and pipes, where the console's width is only a guess.
    console = terminal(least_width=120)
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
    say(caption(result))
    for row in result.rows:
        if row.gap_recovered is not None and row.gap_recovered.value is None:
            say("gap recovered is undefined: golden labels are not clearly better than none on this test set")
            break
    for note in result.notes:
        say(f"note: {note}")


def show_sampled(done: Sampled, *, as_json: bool) -> None:
    """Print what a file of solutions holds."""
    if as_json:
        print_json({**asdict(done), "output": str(done.output)})
        return
    say(
        f"{done.solutions} solutions of {done.questions} questions, {done.with_answer} with a final answer; "
        f"{done.repeats} empty or repeated draws left out"
    )
    say(f"tokens: {done.cost.tokens_computed:,}, in {done.cost.seconds:.1f} s")
    say(f"solutions: {done.output}")


def show_sampling_cost(cost: SamplingCost, *, as_json: bool) -> None:
    """Print what drawing solutions would cost at most."""
    if as_json:
        print_json(asdict(cost))
        return
    say(f"{cost.questions} questions: {cost.prompt_tokens:,} prompt tokens, at most {cost.new_tokens:,} new ones")
    say(f"\n--- first prompt ---\n{cost.prompt}")


def show_dry_run(plan: DryRun, *, as_json: bool) -> None:
    """Print the estimate of a run."""
    if as_json:
        print_json(asdict(plan))
        return
    sizes = ", ".join(map(str, plan.batch_sizes))
    say(f"{plan.n_examples} examples in {len(plan.batch_sizes)} batches ({sizes})")
    for name in ("evaluations", "prompts", "tokens"):
        least, most = getattr(plan, name)
        say(f"{name}: {least:,} to {most:,}")
    least_sent, most_sent = plan.tokens_sent
    say(f"tokens if no prefix were shared: {least_sent:,} to {most_sent:,}")
    if plan.price:
        say(f"price if all of those cost the same: {plan.price[0]:,.2f} to {plan.price[1]:,.2f}")
    _show_time(plan.tokens_per_second, plan.seconds)
    say("least: no label changes once it is given; most: every step changes one and nothing needs repair")
    for number, prompt in enumerate(plan.rendered_prompts, start=1):
        say(f"\n--- prompt {number} ---\n{prompt}")


def show_models(models: Sequence[ModelInfo], *, as_json: bool) -> None:
    """Print the model names that can be used."""
    if as_json:
        print_json([asdict(model) for model in models])
        return
    for model in models:
        say(f"{model.name:<24} {model.status}")


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
        say(f"{name}: {json.dumps(value) if isinstance(value, dict) else value}")


def _show_time(rate: float | None, seconds: Sequence[float] | None) -> None:
    if rate is None or seconds is None:
        say("time: unknown, because nothing is sent to a server in a dry run")
    else:
        say(f"time at {rate:,.0f} tokens/s: {duration(seconds[0])} to {duration(seconds[1])}")


def duration(seconds: float) -> str:
    """Seconds as a person would say them."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
