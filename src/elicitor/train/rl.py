"""Reinforcement learning of a policy against a reward model or any other reward, with TRL's GRPO or RLOO.

Users expect guards against a policy that games its reward: the divergence from the start is in the loss, on a curve and a
limit; so are length, endings and repetition; the checkpoint is chosen on held-out prompts and judged on others; and a table
shows what the policy says now beside what it said before.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from peft import set_peft_model_state_dict
from safetensors.torch import load_file
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from elicitor.backends.adapter import BASE, AdapterBase, reading_adapter
from elicitor.backends.base import OnStage, Progress
from elicitor.backends.hf_load import LoadedModel
from elicitor.backends.hf_tokenizer import control_pattern
from elicitor.control import working_time
from elicitor.errors import DataError
from elicitor.files import write_rows
from elicitor.manifest import package_versions
from elicitor.metrics import Estimate, mean
from elicitor.notices import warn
from elicitor.train.folder import (
    adopt,
    finish,
    is_finished,
    is_main_process,
    last_checkpoint,
    place_beside,
    processes,
    read_result,
    training_folder,
)
from elicitor.train.lora import (
    OnTrainStep,
    StepCallback,
    load_for_training,
    lora_config,
    make_trainer,
    process_state,
    train,
    training_arguments,
)
from elicitor.train.policy import Drawn, Rewarder, draw, prompt_ids, read_prompts, sample_plainly
from elicitor.train.rendering import messages, plain_prompt
from elicitor.train.rl_log import Point, RlLog
from elicitor.train.rl_settings import RlSettings
from elicitor.train.rl_watch import SELECT, Judge, Selector, checked

SAMPLES = "samples.jsonl"
_TEST = SELECT + 1
"""First word of the seeds of draws that compare start and result."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts by use; no two share one.

    Attributes:
        train: For rollouts.
        select: Choose the checkpoint.
        test: Compare start and result.
        too_long: Prompts left out.
        control_tokens: Prompts left out that hold the text of a control token: TRL, which tokenises the prompts of
            rollouts, would read the token.
    """

    train: tuple[str, ...]
    select: tuple[str, ...]
    test: tuple[str, ...]
    too_long: int
    control_tokens: int


def split_prompts(source: str, tokenizer: Any, settings: RlSettings, *, limit: int | None = None) -> Prompts:
    """Read prompts and deal them by the seed.

    Args:
        source: File or ``hf:NAME@SPLIT``.
        tokenizer: The policy's tokenizer.
        settings: Sizes, the longest prompt, the seed.
        limit: Use only the first rows.

    Raises:
        DataError: If there are too few.
    """
    prompts = read_prompts(source, limit=limit)
    controls = control_pattern(tokenizer)
    plain = [text for text in prompts if controls is None or not controls.search(text)]
    if left := len(prompts) - len(plain):
        warn(f"{left} of {len(prompts)} prompts are left out: TRL would read a control token in their text")
    short = [text for text in plain if len(prompt_ids(tokenizer, text)) <= settings.max_prompt_tokens]
    held = settings.eval_prompts + settings.test_prompts
    at_once = settings.batch_size * settings.gradient_accumulation // settings.group_size
    if len(short) < held + at_once:
        raise DataError(
            f"{source} has {len(short)} different prompts of at most {settings.max_prompt_tokens} tokens, "
            f"{held} are held out and a step needs {at_once}",
            fix="give more prompts, or set test_prompts and eval_prompts lower",
        )
    dealt = [short[i] for i in np.random.default_rng(settings.seed).permutation(len(short))]
    select, test = dealt[: settings.eval_prompts], dealt[settings.eval_prompts : held]
    return Prompts(tuple(dealt[held:]), tuple(select), tuple(test), len(plain) - len(short), left)


def in_order_of_steps(prompts: Sequence[str], settings: RlSettings) -> list[str]:
    """Prompts in the order in which steps take them, dealt anew each time all have been taken.

    TRL's own order begins anew in every process: a training that was resumed after its first pass over the prompts would
    repeat the first deal.

    Args:
        prompts: Prompts for rollouts.
        settings: Steps, sizes and seed.

    Returns:
        As many as all steps take, by all processes together.
    """
    in_a_step = settings.batch_size * settings.gradient_accumulation * processes() // settings.group_size
    wanted = settings.steps * in_a_step
    deals = range(-(-wanted // len(prompts)))
    dealt = [prompts[i] for k in deals for i in np.random.default_rng([settings.seed, k]).permutation(len(prompts))]
    return dealt[:wanted]


def load_policy(model: str, settings: RlSettings) -> LoadedModel:
    """A model as RL trains it and draws from it: without what its folder says of sampling.

    Args:
        model: Model name.
        settings: Say precision and device.

    Returns:
        The model on the CPU, in training mode, with a tokenizer that has a padding token.

    Raises:
        BackendError: If it cannot be found or loaded, or is no local one.
    """
    loaded = load_for_training(model, settings)
    sample_plainly(loaded.model)
    return loaded


def train_rl(
    source: str,
    folder: Path,
    settings: RlSettings,
    *,
    reward: Rewarder,
    reward_name: str,
    model: str = "bundled",
    limit: int | None = None,
    resume: bool = False,
    on_stage: OnStage | None = None,
    on_step: OnTrainStep | None = None,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Train a policy against a reward.

    Args:
        source: Prompts; see `elicitor.train.policy.read_prompts`.
        folder: Folder to write: the policy's adapter, curves, rollouts, samples.
        settings: How to train.
        reward: Gives one number for each prompt and response.
        reward_name: What identifies it, for resuming.
        model: Model name of the start.
        limit: Use only the first rows of the prompts.
        resume: Go on with the training in ``folder``.
        on_stage: Called with what begins.
        on_step: Called after each optimizer step.
        on_progress: Called with new tokens while start and result are compared.

    Returns:
        Content of ``training.json``: among it ``gain``, how the mean reward on the test prompts differs from the start.

    Raises:
        ElicitorError: If prompts, model or reward cannot be used.
    """
    if on_stage:
        on_stage(f"loading {model}")
    loaded = load_policy(model, settings)
    prompts = split_prompts(source, loaded.tokenizer, settings, limit=limit)
    made_from = {
        "kind": "rl",
        "model": model,
        "weights": loaded.weights,
        "reward": reward_name,
        "prompts": [prompts.train, prompts.select, prompts.test],
        "settings": settings.model_dump(mode="json", exclude={"report_to", "checkpoint_steps"}),
    }
    started = working_time()
    state = process_state(settings)
    with training_folder(folder, _hashed(made_from), resume=resume):
        state.wait_for_everyone()
        if is_finished(folder):
            return read_result(folder)
        log = RlLog(folder, steps=settings.steps, max_kl=settings.max_kl)
        checkpoint = last_checkpoint(folder)
        if is_main_process():
            log.cut(-1 if checkpoint is None else int(checkpoint.name.rpartition("-")[2]))
        state.wait_for_everyone()
        base = AdapterBase(model, loaded.weights)
        selector = Selector(settings, prompts.select, reward, loaded.tokenizer, log, base, on_stage)
        chat = bool(loaded.tokenizer.chat_template)
        trainer = make_trainer(
            GRPOTrainer if settings.algorithm == "grpo" else RLOOTrainer,
            model=loaded.model,
            reward_funcs=Judge(reward, log),
            args=_arguments(settings, folder),
            train_dataset=Dataset.from_list(
                [
                    {"prompt": messages(text) if chat else plain_prompt(text), "text": text}
                    for text in in_order_of_steps(prompts.train, settings)
                ]
            ),
            processing_class=loaded.tokenizer,
            peft_config=lora_config(settings, loaded.model),
            callbacks=[selector, *([StepCallback(on_step)] if on_step else [])],
        )
        if on_stage:
            on_stage(f"training, {len(prompts.train):,} prompts, {settings.steps} steps of {settings.algorithm}")
        # One that had gone too far, and was killed before its result, must not go on.
        selector.stopped = any(point.kl > settings.max_kl for point in log.points())
        if not selector.stopped:
            train(trainer, checkpoint=checkpoint)
        result: dict[str, Any] = {}
        if is_main_process():
            policy = trainer.accelerator.unwrap_model(trainer.model)
            result = {
                "kind": "rl",
                "model": model,
                "reward": reward_name,
                "prompts": {name: len(getattr(prompts, name)) for name in ("train", "select", "test")},
                "too_long": prompts.too_long,
                "control_tokens": prompts.control_tokens,
                **_conclude(
                    policy,
                    loaded.tokenizer,
                    prompts.test,
                    reward,
                    settings,
                    log,
                    on_stage=on_stage,
                    on_progress=on_progress,
                ),
                "stopped_by_kl": selector.stopped,
                "curve": [asdict(point) for point in log.points()],
                "seconds": working_time() - started,
                "versions": package_versions(),
            }
            result["warnings"] = hacking_signs(log.points())
            best = log.best()
            assert best is not None
            # Copied, because a kill before the last line but one needs it again.
            saved = place_beside(folder)
            for file in log.best_folder(best["step"]).iterdir():
                shutil.copyfile(file, saved / file.name)
            adopt(folder, saved, last=BASE)
            finish(folder, result)
        state.wait_for_everyone()
        return result or read_result(folder)


def hacking_signs(points: Sequence[Point]) -> list[str]:
    """What in the curves suggests that the reward rose for a wrong reason."""
    if len(points) < 2:
        return []
    first, last = points[0], points[-1]
    signs = []
    if not 2 / 3 <= last.tokens / max(first.tokens, 1e-9) <= 1.5:
        signs.append(f"responses went from {first.tokens:.0f} to {last.tokens:.0f} tokens: is length what is rewarded?")
    if last.distinct < 0.8 * first.distinct:
        signs.append(f"distinct pairs of words fell from {first.distinct:.2f} to {last.distinct:.2f}: repetition?")
    if last.ended < first.ended - 0.3:
        signs.append(f"responses that end by themselves fell from {first.ended:.0%} to {last.ended:.0%}")
    return signs


def reward_gain(start: NDArray[np.float64], result: NDArray[np.float64], *, seed: int) -> Estimate:
    """How mean rewards differ, paired by prompt, with an interval by bootstrap over prompts.

    Args:
        start: Shape (prompts, samples): rewards of the start's responses.
        result: Shape (prompts, samples): rewards of the policy's responses to the same prompts.
        seed: Draws the resamples.
    """
    gained = result.mean(axis=1) - start.mean(axis=1)
    return mean(gained[None], [str(i) for i in range(len(gained))], rng=np.random.default_rng(seed))


def _conclude(
    policy: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    reward: Rewarder,
    settings: RlSettings,
    log: RlLog,
    *,
    on_stage: OnStage | None,
    on_progress: Progress | None,
) -> dict[str, Any]:
    """Compare the start with the best adapter on prompts that neither trained nor chose it; write the samples."""
    best = log.best()
    assert best is not None
    if on_stage:
        on_stage(f"comparing step {best['step']} with the start on {len(prompts)} other prompts")
    place = log.best_folder(best["step"])
    with reading_adapter(place):
        tensors = load_file(place / "adapter_model.safetensors")
    set_peft_model_state_dict(policy, tensors)

    def drawn() -> Drawn:
        return draw(
            policy,
            tokenizer,
            prompts,
            samples=settings.eval_samples,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            seed=[settings.seed, _TEST],
            on_progress=on_progress,
        )

    after = drawn()
    with policy.disable_adapter():
        before = drawn()
    rewards = [checked(reward(item.prompts, item.responses), len(item.responses)) for item in (before, after)]
    tables = [values.reshape(len(prompts), settings.eval_samples) for values in rewards]
    rows = zip(before.prompts, before.responses, after.responses, rewards[0].tolist(), rewards[1].tolist(), strict=True)
    write_rows(
        log.folder / SAMPLES,
        [
            {"prompt": p, "start": s, "policy": r, "start_reward": first, "policy_reward": second}
            for p, s, r, first, second in rows
        ],
    )
    return {
        "best_step": best["step"],
        "start_reward": float(tables[0].mean()),
        "policy_reward": float(tables[1].mean()),
        "samples": settings.eval_samples,
        "gain": asdict(reward_gain(tables[0], tables[1], seed=settings.seed)),
        "tokens": {"start": float(np.mean(before.tokens)), "policy": float(np.mean(after.tokens))},
    }


def _hashed(values: dict[str, Any]) -> dict[str, Any]:
    """Prompts as one hash: they need not stand in the record as a whole."""
    return {**values, "prompts": hashlib.sha256(json.dumps(values["prompts"]).encode()).hexdigest()}


def _arguments(settings: RlSettings, folder: Path) -> GRPOConfig | RLOOConfig:
    shared = training_arguments(settings, folder, steps=settings.steps)
    own: dict[str, Any] = {
        "num_generations": settings.group_size,
        "max_completion_length": settings.max_new_tokens,
        "temperature": settings.temperature,
        "beta": settings.beta,
        "disable_dropout": True,
        "logging_steps": 1,
        "shuffle_dataset": False,
        "use_vllm": settings.vllm != "off",
    }
    if settings.vllm != "off":
        own["vllm_mode"] = settings.vllm
        own["vllm_server_base_url"] = settings.vllm_server
    return (GRPOConfig if settings.algorithm == "grpo" else RLOOConfig)(**{**shared, **own})
