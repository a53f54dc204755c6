"""One test set, many conditions: what a model answers after each kind of demonstrations.

Read `Comparison.answers`: it is the way from a condition's name to log-probabilities on the test set. Finished conditions are
kept on disk under a key of all that they depend on, so an evaluation that is repeated or was killed does none of them twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from elicitor.answers import Answers
from elicitor.backends.base import Backend, Cost, OnStage, Progress, Prompt, StatesBackend, TokenIds
from elicitor.baselines import (
    BOOTSTRAPS,
    DRAWN_PROBES,
    NEEDS_GOLD,
    PROBES,
    ZERO_SHOT,
    Condition,
    assistant_preamble,
    bootstrapped_labels,
    chat_request,
    check_votes,
    noised_gold,
    one_vote_each,
    random_labels,
)
from elicitor.config import ObjectiveConfig, PlanConfig
from elicitor.consistency import Constraints
from elicitor.data import Dataset
from elicitor.errors import BackendError, ConfigError, ContextOverflowError
from elicitor.files import make_folder, read_json, write_json
from elicitor.objective import Array, Meter, Problem, normalize
from elicitor.probes import (
    SUPERVISED,
    LayeredStates,
    contrast_states,
    fit_probe,
    middle_layer,
    orient,
    sweep_layers,
)
from elicitor.prompts import PromptEncoder, check_distinct
from elicitor.search_settings import BootstrapConfig
from elicitor.tasks import Task


@dataclass(frozen=True)
class Comparison:
    """Everything that the conditions share.

    Attributes:
        backend: The model.
        task: What is asked.
        train: Examples that may serve as demonstrations.
        test: Examples that are asked about.
        usable: Positions in ``train`` that every condition may use, ascending.
        found: Found label by position; one mapping for each seed, or one for all.
        golden: Gold label by position, where there is one.
        judged: Those of them that label accuracy is over: labels that a review gave the search are no finding of it.
        votes: Labels that annotators gave, by position.
        objective: Settings of U(D), for the bootstrapped baselines.
        plan: Settings of their contexts.
        bootstrap_rounds: Rounds of their relabelling, at most.
        seeds: Each draws its own order of demonstrations, random labels and noise.
        max_shots: Demonstrations in a context at most, or None for as many as fit.
        probe_layer: Layer that probes read; the middle one if None.
        sweep_truth: Gold label of each test example, if probes are to be tested at every layer.
        on_progress: Told of every forward pass.
    """

    backend: Backend
    task: Task
    train: Dataset
    test: Dataset
    usable: Sequence[int]
    found: Sequence[Mapping[int, int]]
    golden: Mapping[int, int]
    judged: Mapping[int, int]
    votes: Mapping[int, Sequence[int]]
    objective: ObjectiveConfig
    plan: PlanConfig
    seeds: Sequence[int]
    max_shots: int | None = None
    bootstrap_rounds: int = BootstrapConfig().rounds
    probe_layer: int | None = None
    sweep_truth: Sequence[int] | None = None
    on_progress: Progress | None = None

    def answers(self, condition: Condition, *, folder: Path | None = None) -> Answers:
        """Ask every test example under one condition.

        Args:
            condition: Which.
            folder: Where finished conditions are kept, and finished seeds of those that have demonstrations.

        Returns:
            The answers, read from the folder if they are there.

        Raises:
            ConfigError: If the condition does not apply here; see `obstacle`.
            ContextOverflowError: If not one demonstration fits before the longest test example.
        """
        if reason := self.obstacle(condition):
            raise ConfigError(f"condition {condition}: {reason}", fix="leave it out of --conditions")
        # What another condition has computed may not make this one cheap.
        self.backend.forget()
        if folder and (kept := self.kept(condition, folder)):
            return kept
        if condition in ZERO_SHOT:
            answers = self._zero_shot(condition)
        elif condition in PROBES:
            answers = self._probe(condition)
        else:
            answers = self._few_shot(condition, folder)
        if folder:
            self.keep(answers, folder)
        return answers

    def ask(
        self, conditions: Sequence[Condition], *, folder: Path, on_stage: OnStage | None = None
    ) -> Iterator[tuple[Condition, Answers | str]]:
        """Each condition with its `answers`, or with the reason why it does not apply."""
        for condition in conditions:
            if reason := self.obstacle(condition):
                yield condition, reason
                continue
            if on_stage:
                on_stage(condition)
            yield condition, self.answers(condition, folder=folder)

    def kept(self, condition: Condition, folder: Path) -> Answers | None:
        """The answers under a condition if the folder holds them for all that they depend on."""
        file = folder / f"{condition}.json"
        if file.exists() and (kept := read_json(file)).get("key") == self._key(condition):
            return Answers.from_json(kept["answers"])
        return None

    def keep(self, answers: Answers, folder: Path) -> None:
        """Write answers where `kept` finds them."""
        make_folder(folder)
        content = {"key": self._key(answers.condition), "answers": answers.to_json()}
        write_json(folder / f"{answers.condition}.json", content)

    def by_seed(self, condition: Condition) -> list[Comparison]:
        """One comparison for each seed where seeds are answered apart, as they are behind demonstrations; else itself."""
        if condition in ZERO_SHOT or condition in PROBES:
            return [self]
        return [
            replace(self, seeds=[seed], found=[self.found[number % len(self.found)]])
            for number, seed in enumerate(self.seeds)
        ]

    def seed_folder(self, folder: Path) -> Path:
        """Where the answers of its only seed are kept, within the folder of all."""
        return folder / f"seed-{self.seeds[0]}"

    def obstacle(self, condition: Condition) -> str | None:
        """Why a condition does not apply to this data and model, or None if it does."""
        if condition in NEEDS_GOLD and not self.golden:
            return "the labelled examples have no gold labels"
        if condition == "human":
            without = sum(not self.votes.get(position) for position in self.usable)
            if without:
                return f"{without} of {len(self.usable)} labelled examples have no human votes"
        if condition in PROBES:
            if len(self.task.label_space) != 2:
                return f"probes tell two labels apart, the task has {len(self.task.label_space)}"
            if not isinstance(self.backend, StatesBackend):
                return f"the hidden states of {self.backend.name} cannot be read"
        if condition == "zero_shot_chat" and self.backend.tokenizer.chat("x") is None:
            return f"the tokenizer of {self.backend.name} has no chat template"
        return None

    def prompts(self, condition: Condition, labels: Mapping[int, int]) -> list[Prompt]:
        """One prompt for each test example, behind the demonstrations with their labels."""
        if condition == "zero_shot_chat":
            return list(self._chat_prompts())
        queries = self._queries
        if condition == "zero_shot_assistant":
            preamble = assistant_preamble(self.task.label_space.verbalizers) + self.task.preamble
            queries = PromptEncoder(self.backend.tokenizer, replace(self.task, preamble=preamble), self.test)
        segments: list[TokenIds] = [self._demonstrations.demonstration(i, label) for i, label in labels.items()]
        return [queries.prompt_with(segments, position) for position in range(len(self.test))]

    def demonstrations(self, seed: int) -> list[int]:
        """Positions that serve as demonstrations under a seed, in order: as many as fit, whatever their labels.

        Raises:
            ContextOverflowError: If none fits before the longest test query.
        """
        order = np.random.default_rng(seed).permutation(np.asarray(self.usable, dtype=np.int64)).tolist()
        longest = max(len(self._queries.query(i)) for i in range(len(self.test)))
        room = self.backend.max_context_tokens - len(self._queries.start) - longest - self._queries.longest_candidate
        kept: list[int] = []
        for position in order[: self.max_shots]:
            room -= self._demonstrations.longest_demonstration(position)
            if room < 0:
                break
            kept.append(position)
        if order and not kept:
            raise ContextOverflowError(
                f"no demonstration fits before the longest test example of {longest} tokens in a window of "
                f"{self.backend.max_context_tokens}",
                fix="leave out the longest examples or use a model with a longer context",
            )
        return kept

    @cached_property
    def _demonstrations(self) -> PromptEncoder:
        return PromptEncoder(self.backend.tokenizer, self.task, self.train)

    @cached_property
    def _queries(self) -> PromptEncoder:
        return PromptEncoder(self.backend.tokenizer, self.task, self.test)

    def _zero_shot(self, condition: Condition) -> Answers:
        scores = self.backend.score(self.prompts(condition, {}), on_progress=self.on_progress)
        return Answers(condition, normalize(scores.log_probs)[None], [0], [None], scores.cost)

    def _few_shot(self, condition: Condition, folder: Path | None) -> Answers:
        """Seed by seed, each kept when it has answered: who is interrupted, or gets more seeds, goes on behind it."""
        parts = []
        for number, alone in enumerate(self.by_seed(condition)):
            place = folder and alone.seed_folder(folder)
            part = alone.kept(condition, place) if place else None
            if part is None:
                # Nor may another seed: what is counted would depend on whether that was asked in the same process.
                self.backend.forget()
                labels, cost = self._labels(condition, number, self.seeds[number])
                scores = self.backend.score(self.prompts(condition, labels), on_progress=self.on_progress)
                accuracy = agreement(labels, self.judged)
                part = Answers(
                    condition, normalize(scores.log_probs)[None], [len(labels)], [accuracy], cost + scores.cost
                )
                if place:
                    alone.keep(part, place)
            parts.append(part)
        return Answers.joined(parts)

    def _probe(self, condition: Condition) -> Answers:
        """Fit a probe to the usable examples' hidden states, and read the test examples' with it."""
        kind = PROBES[condition]
        gold = [self.golden[i] for i in self.usable] if kind in SUPERVISED else None
        train, test, reference, cost = self._states
        layer = middle_layer(train.shape[2]) if self.probe_layer is None else self.probe_layer
        if not 0 <= layer < train.shape[2]:
            raise ConfigError(f"layer {layer} does not exist", fix=f"choose one from 0 to {train.shape[2] - 1}")
        log_probs = []
        for seed in self.seeds if condition in DRAWN_PROBES else self.seeds[:1]:
            probe = fit_probe(kind, train[:, :, layer], gold=gold, rng=np.random.default_rng([seed, 1]))
            log_probs.append(orient(probe, train[:, :, layer], reference).log_probs(test[:, :, layer]))
        layers = None
        if self.sweep_truth is not None:
            rng = np.random.default_rng([self.seeds[0], 1])
            layers = sweep_layers(kind, train, test, reference=reference, truth=self.sweep_truth, gold=gold, rng=rng)
        n = len(log_probs)
        accuracy: list[float | None] = [None if gold is None else 1.0] * n
        return Answers(condition, np.stack(log_probs), [len(self.usable)] * n, accuracy, cost, layers)

    @cached_property
    def _states(self) -> tuple[LayeredStates, LayeredStates, Array, Cost]:
        """Hidden states of usable and test examples, zero-shot answers to the former, and what all this cost."""
        encoder = PromptEncoder(self.backend.tokenizer, self.task, self.train.subset(self.usable))
        train = contrast_states(self.backend, encoder, on_progress=self.on_progress)
        test = contrast_states(self.backend, self._queries, on_progress=self.on_progress)
        asked = self.backend.score([encoder.prompt_with([], i) for i in range(len(self.usable))])
        return train.values, test.values, asked.log_probs, train.cost + test.cost + asked.cost

    def _labels(self, condition: Condition, number: int, seed: int) -> tuple[dict[int, int], Cost]:
        """Labels of the demonstrations under one seed, in the order of the context, and what making them cost."""
        kept = self.demonstrations(seed)
        # Not the generator that drew the order: orders must be equal under all conditions, draws need not be.
        rng = np.random.default_rng([seed, 1])
        n_labels = len(self.task.label_space)
        found = {i: self.found[number % len(self.found)][i] for i in kept}
        golden = {i: self.golden[i] for i in kept if i in self.golden}
        match condition:
            case "random":
                return random_labels(kept, n_labels=n_labels, rng=rng), Cost()
            case "found":
                return found, Cost()
            case "human":
                return one_vote_each(check_votes(self.votes, kept), rng=rng), Cost()
            case "golden":
                return golden, Cost()
            case "noised_gold":
                return noised_gold(golden, found, n_labels=n_labels, rng=rng), Cost()
            case _:
                meter = Meter()
                positions = sorted(kept)
                problem, variant = self.problem(positions, meter), BOOTSTRAPS[condition]
                made = bootstrapped_labels(problem, variant, rounds=self.bootstrap_rounds, rng=rng)
                by_position = {positions[i]: label for i, label in made.items()}
                return {i: by_position[i] for i in kept if i in by_position}, meter.cost

    def problem(self, positions: Sequence[int], meter: Meter) -> Problem:
        """The labelling problem of some of the training examples; the baselines that make labels of their own solve it."""
        dataset = self.train.subset(positions)
        return Problem(
            dataset=dataset,
            encoder=PromptEncoder(self.backend.tokenizer, self.task, dataset),
            constraints=Constraints.from_dataset(dataset, self.task.constraint),
            backend=self.backend,
            objective=self.objective,
            plan=self.plan,
            meter=meter,
            on_progress=self.on_progress,
        )

    def _chat_prompts(self) -> Iterator[Prompt]:
        """The query as a user's message; the answer begins a line of its own, so the verbalizers lose their blank."""
        tokenizer = self.backend.tokenizer
        verbalizers = self.task.label_space.verbalizers
        candidates = tuple(tokenizer.encode(verbalizer.strip()) for verbalizer in verbalizers)
        check_distinct(candidates, verbalizers)
        for example in self.test.examples:
            text = chat_request(self.task.preamble + self.task.render(example), verbalizers)
            tokens = tokenizer.chat(text)
            if tokens is None:
                raise BackendError(f"the tokenizer of {self.backend.name} has no chat template")
            yield Prompt((tokens,), candidates)

    def _key(self, condition: Condition) -> str:
        """Hash of all that the answers depend on."""
        content: dict[str, Any] = {
            "condition": condition,
            "model": self.backend.fingerprint,
            "task": [self.task.template, self.task.separator, self.task.preamble, self.task.constraint],
            "test": self.test.fingerprint,
        }
        if condition not in ZERO_SHOT:
            content |= {
                "train": self.train.fingerprint,
                "usable": list(self.usable),
                "found": [sorted(found.items()) for found in self.found],
                "golden": sorted(self.golden.items()),
                "judged": sorted(self.judged.items()),
                "votes": sorted((i, list(cast)) for i, cast in self.votes.items()),
                "objective": self.objective.model_dump(),
                "plan": self.plan.model_dump(),
                "seeds": list(self.seeds),
                "max_shots": self.max_shots,
                "rounds": self.bootstrap_rounds if condition in BOOTSTRAPS else None,
                "probe": [self.probe_layer, self.sweep_truth is not None] if condition in PROBES else None,
            }
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def agreement(labels: Mapping[int, int], golden: Mapping[int, int]) -> float | None:
    """Share of the labels that agree with gold, over those that have gold; None if none has."""
    known = labels.keys() & golden.keys()
    return float(np.mean([labels[i] == golden[i] for i in known])) if known else None
