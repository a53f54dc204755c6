"""What the commands of reward models and policies print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from elicitor.console import duration
from elicitor.metrics import Estimate
from elicitor.reward_evaluation import RewardEvaluation
from elicitor.terminal import print_json, say, terminal
from elicitor.winrate import WinRate

if TYPE_CHECKING:
    from elicitor.train.reward_cost import RewardCost
    from elicitor.train.rl_cost import RlCost


def show_reward_cost(cost: RewardCost, *, as_json: bool) -> None:
    """Print the estimate of a reward training."""
    if as_json:
        print_json(asdict(cost))
        return
    say(f"{cost.labelled:,} labelled pairs, {cost.rest:,} to label; optimizer steps: {', '.join(map(str, cost.steps))}")
    say(f"tokens: {cost.tokens:,}; {duration(cost.seconds)} at {cost.tokens_per_second:,.0f} tokens/s forward")
    if cost.truncated:
        say(f"{cost.truncated:.1%} of the responses lose the oldest tokens of their prompt")
    say(f"\n--- first preferred response ---\n{cost.rendered}")


def show_reward(result: dict[str, Any], folder: Path, *, as_json: bool) -> None:
    """Print what a reward training made."""
    if as_json:
        print_json({"output_dir": str(folder), **result})
        return
    say(f"{result['labelled']} labelled pairs ({result['labels']})", end="")
    if relabelled := result.get("relabelled"):
        say(
            f", {relabelled['pairs']} more labelled by the initial reward model (mean margin "
            f"{relabelled['mean_margin']:.2f} nats, first response preferred in {relabelled['first']:.0%}, "
            f"{relabelled['ties']} ties)",
            end="",
        )
    say(f"; final reward model on {result['final_pairs']}, {duration(result['seconds'])}")
    say(f"reward model: {folder / 'final'}")


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
    terminal(least_width=140).print(table)
    for gain in result.gains:
        p_value = "" if gain.less_first.p_value is None else f", p = {gain.less_first.p_value:.3f}"
        say(f"{gain.model} less the first on {Path(gain.test).name}: {gain.less_first.estimate}{p_value}")


def show_rl_cost(cost: RlCost, *, as_json: bool) -> None:
    """Print the estimate of a training of a policy."""
    if as_json:
        print_json(asdict(cost))
        return
    say(
        f"{cost.train_prompts:,} prompts to train on, {cost.held_out} held out, {cost.too_long} too long; {cost.steps} steps "
        f"of {cost.responses_per_step} responses"
    )
    say(
        f"at most {cost.new_tokens:,} new tokens at {cost.new_tokens_per_second:,.0f} tokens/s: {duration(cost.seconds)}"
    )
    say(f"\n--- first prompt ---\n{cost.rendered}")


def show_rl(result: dict[str, Any], folder: Path, *, as_json: bool) -> None:
    """Print what a training of a policy reached."""
    if as_json:
        print_json({"output_dir": str(folder), **result})
        return
    table = Table(title="policy on the prompts that choose the checkpoint")
    for heading in ("step", "reward", "KL, nats", "tokens", "ended", "distinct"):
        table.add_column(heading, justify="right")
    for point in result["curve"]:
        mark = "*" if point["step"] == result["best_step"] else ""
        shares = (f"{point['ended']:.0%}", f"{point['distinct']:.2f}")
        reward, far, tokens = f"{point['reward']:.3f}", f"{point['kl']:.2f}", f"{point['tokens']:.1f}"
        table.add_row(f"{point['step']}{mark}", reward, far, tokens, *shares)
    terminal(least_width=100).print(table)
    gain = Estimate(**result["gain"])
    say(
        f"mean reward on {gain.n} other prompts, {result['samples']} responses each: {result['start_reward']:.3f} at the "
        f"start, {result['policy_reward']:.3f} at step {result['best_step']}; gain {gain}, paired by prompt"
    )
    if result["stopped_by_kl"]:
        say("stopped: the policy went further from its start than max_kl allows")
    for warning in result["warnings"]:
        say(f"warning: {warning}")
    say(f"policy: adapter:{folder}; responses before and after: {folder / 'samples.jsonl'}")


def show_win_rates(results: Sequence[WinRate], *, as_json: bool) -> None:
    """Print each judge's win rate and its biases."""
    if as_json:
        print_json([result.to_json() for result in results])
        return
    for result in results:
        _show_win_rate(result)


def _show_win_rate(result: WinRate) -> None:
    rate = result.win_rate
    say(
        f"{result.first} against {result.second}, judged by {result.judge}: win rate {rate}, n = {rate.n} duels on "
        f"{rate.groups} prompts, {result.draws:.0%} draws"
    )
    if result.shown_first is None:
        say("position bias: none, the judge sees one response at a time")
    else:
        say(
            f"position bias: the response shown first wins {result.shown_first} (0.5: none); "
            f"both orders agree on {result.agreement:.0%}"
        )
    if result.longer is not None:
        say(
            f"the longer response wins {result.longer:.0%}; mean characters "
            f"{result.mean_characters[0]:.0f} and {result.mean_characters[1]:.0f}"
        )
