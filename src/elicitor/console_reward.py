"""What the commands of reward models and policies print."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from elicitor.console import duration, print_json
from elicitor.reward_evaluation import RewardEvaluation

if TYPE_CHECKING:
    from elicitor.train.reward_cost import RewardCost


def show_reward_cost(cost: RewardCost, *, as_json: bool) -> None:
    """Print the estimate of a reward training."""
    if as_json:
        print_json(asdict(cost))
        return
    print(
        f"{cost.labelled:,} labelled pairs, {cost.rest:,} to label; optimizer steps: {', '.join(map(str, cost.steps))}"
    )
    print(f"tokens: {cost.tokens:,}; {duration(cost.seconds)} at {cost.tokens_per_second:,.0f} tokens/s forward")
    if cost.truncated:
        print(f"{cost.truncated:.1%} of the responses lose the oldest tokens of their prompt")
    print(f"\n--- first preferred response ---\n{cost.rendered}")


def show_reward(result: dict[str, Any], folder: Path, *, as_json: bool) -> None:
    """Print what a reward training made."""
    if as_json:
        print_json({"output_dir": str(folder), **result})
        return
    print(f"{result['labelled']} labelled pairs ({result['labels']})", end="")
    if relabelled := result.get("relabelled"):
        print(
            f", {relabelled['pairs']} more labelled by the initial reward model (mean margin "
            f"{relabelled['mean_margin']:.2f} nats, first response preferred in {relabelled['first']:.0%}, "
            f"{relabelled['ties']} ties)",
            end="",
        )
    print(f"; final reward model on {result['final_pairs']}, {duration(result['seconds'])}")
    print(f"reward model: {folder / 'final'}")


def show_reward_evaluation(result: RewardEvaluation, *, as_json: bool) -> None:
    """Print the accuracies of reward models."""
    if as_json:
        print_json(result.to_json())
        return
    table = Table(title="pairwise accuracy, 95% intervals by bootstrap over prompts; a tie is wrong")
    for heading in ("test set", "subset", "model", "accuracy", "n", "ties", "mean margin"):
        table.add_column(heading, justify="left" if heading in ("test set", "subset", "model") else "right")
    for row in result.rows:
        margin = "" if row.margin is None else f"{row.margin:.3f}"
        cells = (Path(row.test).name, row.subset or "all", row.model, str(row.accuracy), f"{row.accuracy.n}")
        table.add_row(*cells, f"{row.ties}", margin)
    Console(highlight=False, width=max(140, Console().width)).print(table)
    for gain in result.gains:
        p_value = "" if gain.less_first.p_value is None else f", p = {gain.less_first.p_value:.3f}"
        print(f"{gain.model} less the first on {Path(gain.test).name}: {gain.less_first.estimate}{p_value}")
