"""Two policies on the same prompts, judged pairwise by a third model: win rate with interval, and the judge's own biases.

The judge is a reward model, or a language model that answers the prompt of task ``preference`` in both orders; each order
is half a vote, so a judge that always prefers what it is shown first calls everything a draw. Knows nothing of training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elicitor.backends.adapter import adapter_hash
from elicitor.backends.base import Backend, OnPart, OnStage, Progress
from elicitor.backends.model_files import folder_hash
from elicitor.config import check_seeds
from elicitor.data import Dataset, Example
from elicitor.errors import ConfigError, DataError
from elicitor.files import read_json, write_json
from elicitor.metrics import Estimate, mean
from elicitor.models import load_backend
from elicitor.objective import log_odds
from elicitor.prompts import PromptEncoder
from elicitor.tasks import load_task
from elicitor.train.folder import reward_folder, training_folder

TOGETHER = 64
"""Pairs whose verdicts are asked for in one call."""


@dataclass(frozen=True, slots=True)
class Duel:
    """Two responses to one prompt.

    Attributes:
        prompt: The prompt.
        first: Response of the first policy.
        second: Response of the second policy.
    """

    prompt: str
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Verdicts:
    """A judge's leads.

    Attributes:
        leads: Shape (orders, duels): how much the judge prefers the first policy's response, in nats; one order for a
            reward model, two for a language model: the first policy's response shown first, then shown second.
    """

    leads: NDArray[np.float64]

    @property
    def wins(self) -> NDArray[np.float64]:
        """Shape (duels,): 1 if the first policy wins, 0 if it loses, a half for a draw or if the orders disagree."""
        return np.asarray(((self.leads > 0) + (self.leads == 0) / 2).mean(axis=0))


JudgeFunction = Callable[[Sequence[Duel]], Verdicts]


@dataclass(frozen=True, slots=True)
class WinRate:
    """What ``elicitor eval winrate`` prints.

    Attributes:
        first: First policy.
        second: Second policy.
        judge: Who judged.
        win_rate: Share of duels that the first policy wins, draws counted half, interval by bootstrap over prompts.
        draws: Share of duels without a winner.
        shown_first: With two orders: how often the response shown first is preferred (0.5: no position bias).
        agreement: With two orders: share of duels in which both orders name the same winner.
        longer: Share of duels of unequal length in which the judge prefers the longer response, draws counted half.
        mean_characters: Mean characters of the policies' responses.
    """

    first: str
    second: str
    judge: str
    win_rate: Estimate
    draws: float
    shown_first: Estimate | None
    agreement: float | None
    longer: float | None
    mean_characters: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def summarize(
    duels: Sequence[Duel], verdicts: Verdicts, *, names: tuple[str, str], judge: str, rng: np.random.Generator
) -> WinRate:
    """Turn a judge's leads into figures.

    Args:
        duels: The duels; those of one prompt move together when intervals are drawn.
        verdicts: The judge's leads on them.
        names: The policies.
        judge: The judge's name.
        rng: Draws the bootstrap resamples.
    """
    groups = [duel.prompt for duel in duels]
    wins = verdicts.wins
    shown_first = agreement = None
    if len(verdicts.leads) == 2:
        as_shown, turned = verdicts.leads
        first_preferred = ((as_shown > 0) + (as_shown == 0) / 2 + (turned < 0) + (turned == 0) / 2) / 2
        shown_first = mean(first_preferred[None], groups, rng=rng, bounds=(0, 1))
        agreement = float((np.sign(as_shown) == np.sign(turned)).mean())
    more = np.array([len(duel.first) - len(duel.second) for duel in duels])
    uneven = more != 0
    longer = float(np.where(more > 0, wins, 1 - wins)[uneven].mean()) if uneven.any() else None
    return WinRate(
        first=names[0],
        second=names[1],
        judge=judge,
        win_rate=mean(wins[None], groups, rng=rng, bounds=(0, 1)),
        draws=float((wins == 0.5).mean()),
        shown_first=shown_first,
        agreement=agreement,
        longer=longer,
        mean_characters=(
            float(np.mean([len(duel.first) for duel in duels])),
            float(np.mean([len(duel.second) for duel in duels])),
        ),
    )


def language_judge(backend: Backend, *, on_progress: Progress | None = None) -> JudgeFunction:
    """A language model as a judge: log-odds of " True" under the prompt of task ``preference``, in both orders.

    Args:
        backend: The model.
        on_progress: Called after each forward pass with its tokens.
    """
    task = load_task("preference")

    def judge(duels: Sequence[Duel]) -> Verdicts:
        examples = []
        for order in (0, 1):
            for k, duel in enumerate(duels):
                shown = (duel.first, duel.second) if order == 0 else (duel.second, duel.first)
                fields = {"question": duel.prompt, "choice": shown[0], "choice_2": shown[1]}
                examples.append(Example(f"{k}/{order}", fields, str(k), None, "duel"))
        encoder = PromptEncoder(backend.tokenizer, task, Dataset(tuple(examples), task.label_space, "duels", ""))
        prompts = [encoder.prompt_with((), position) for position in range(len(examples))]
        scores = backend.score(prompts, on_progress=on_progress)
        favours = log_odds(scores.log_probs)[:, task.label_space.positive].reshape(2, len(duels))
        return Verdicts(np.stack([favours[0], -favours[1]]))

    return judge


def reward_judge(reward: Callable[[Sequence[str], Sequence[str]], Any]) -> JudgeFunction:
    """A reward as a judge: the higher one wins; it sees one response at a time, so there is no order.

    Args:
        reward: Gives one number for each prompt and response.
    """

    def judge(duels: Sequence[Duel]) -> Verdicts:
        prompts = [duel.prompt for duel in duels]
        first, second = (
            np.asarray(reward(prompts, [getattr(duel, name) for duel in duels]), dtype=np.float64)
            for name in ("first", "second")
        )
        return Verdicts((first - second)[None])

    return judge


def win_rate(
    first: str,
    second: str,
    prompts: str,
    *,
    judges: Sequence[str],
    output_dir: Path | None = None,
    resume: bool = False,
    samples: int = 1,
    max_new_tokens: int = 128,
    max_prompt_tokens: int = 512,
    temperature: float = 1.0,
    limit: int | None = None,
    seed: int = 0,
    dtype: str = "auto",
    device: str = "auto",
    on_stage: OnStage | None = None,
    on_progress: Progress | None = None,
    on_part: OnPart | None = None,
) -> tuple[list[WinRate], list[Duel]]:
    """Draw responses of two policies to the same prompts and let others judge them.

    Args:
        first: Model name of the first policy, such as ``adapter:runs/rl``.
        second: Model name of the second policy.
        prompts: File of prompts, or ``hf:NAME@SPLIT``.
        judges: Each the folder of a reward model, or a model name; all judge the same responses.
        output_dir: Folder that keeps the responses and every judge's leads; new or empty unless ``resume``.
        resume: Go on with what is in ``output_dir``.
        samples: Duels on each prompt.
        max_new_tokens: Tokens of a response at most.
        max_prompt_tokens: Longer prompts are left out.
        temperature: Divides the logits when responses are drawn.
        limit: Use only the first rows.
        seed: Draws responses and bootstrap resamples.
        dtype: Precision of all models.
        device: ``auto`` is CUDA if there is one.
        on_stage: Called with what begins.
        on_progress: Called with tokens as they are computed.
        on_part: Called with duels judged and in all, of one judge.

    Returns:
        The figures by judge, and the duels.

    Raises:
        ElicitorError: If a model, a judge or the prompts cannot be used, or all prompts are too long.
    """
    check_seeds([seed])
    for name, value in (("samples", samples), ("max_new_tokens", max_new_tokens), ("temperature", temperature)):
        if value <= 0:
            raise ConfigError(f"{name} got {value}", fix="give more than 0")
    from elicitor.train.policy import draw_from, read_prompts

    asked = read_prompts(prompts, limit=limit)
    drawing: dict[str, Any] = {
        "samples": samples,
        "max_new_tokens": max_new_tokens,
        "max_prompt_tokens": max_prompt_tokens,
        "temperature": temperature,
        "dtype": dtype,
        "device": device,
    }
    made_from = {"kind": "win rate", "policies": [], "prompts": asked, "seed": seed, **drawing}
    with ExitStack() as stack:
        if output_dir is not None:
            made_from["policies"] = [[name, _weights(name)] for name in (first, second)]
            stack.enter_context(training_folder(output_dir, made_from, resume=resume, what="win rate"))

        def responses(number: int, name: str) -> Any:
            if on_stage:
                on_stage(f"responses of {name}")
            return draw_from(name, asked, seed=[seed, number], on_progress=on_progress, **drawing)

        drawn = [
            _kept(output_dir, f"responses-{number + 1}.json", partial(responses, number, name))
            for number, name in enumerate((first, second))
        ]
        one, two = ({(p, k): r for p, k, r in by_place} for by_place in drawn)
        # A prompt that is too long for either policy is left out for both.
        duels = [Duel(place[0], one[place], two[place]) for place in one if place in two]
        if not duels:
            raise DataError(
                f"{prompts} has no prompt of at most {max_prompt_tokens} tokens", fix="raise --max-prompt-tokens"
            )

        def leads(judge: str) -> Any:
            if on_stage:
                on_stage(f"{judge} judges {len(duels)} duels")
            verdict = load_judge(judge, dtype=dtype, device=device, on_progress=on_progress)
            parts = []
            for start in range(0, len(duels), TOGETHER):
                parts.append(verdict(duels[start : start + TOGETHER]).leads)
                if on_part:
                    on_part(min(len(duels), start + TOGETHER), len(duels))
            return np.concatenate(parts, axis=1).tolist()

        rates = []
        for judge in judges:
            identity = hashlib.sha256(f"{judge}|{_weights(judge)}".encode()).hexdigest()[:16]
            verdicts = Verdicts(np.asarray(_kept(output_dir, f"leads-{identity}.json", partial(leads, judge))))
            rng = np.random.default_rng(seed)
            rates.append(summarize(duels, verdicts, names=(first, second), judge=judge, rng=rng))
    return rates, duels


def _weights(name: str) -> str:
    """Hash of a policy's or a judge's weights where they are files that another training may write over; else nothing."""
    folder = Path(name.removeprefix("adapter:"))
    place = reward_folder(folder) or folder
    if (place / "adapter_model.safetensors").is_file():
        return adapter_hash(place)
    return folder_hash(folder) if (folder / "config.json").is_file() else ""


def _kept(folder: Path | None, name: str, make: Callable[[], Any]) -> Any:
    """What a file of the folder holds; made, and written whole, if it is not there yet."""
    if folder is None:
        return make()
    if not (folder / name).exists():
        write_json(folder / name, {"values": make()})
    return read_json(folder / name)["values"]


def load_judge(
    name: str, *, dtype: str = "auto", device: str = "auto", on_progress: Progress | None = None
) -> JudgeFunction:
    """A judge by the folder of its reward model, or by its model name."""
    folder = Path(name)
    if reward_folder(folder):
        from elicitor.train.reward_model import RewardModel

        return reward_judge(RewardModel.load(folder, dtype=dtype, device=device).score)
    return language_judge(load_backend(name, dtype=dtype, device=device), on_progress=on_progress)
