"""Several worked solutions for each question, drawn from a model: verification data from questions alone.

Task ``gsm8k`` asks whether a solution is right, so it needs right and wrong ones. None of what happens here reads gold.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from elicitor.backends.base import Backend, Cost, GenerationBackend, OnPart, OnStage, Part, Progress
from elicitor.data import Dataset, LabelSpace, load_dataset
from elicitor.errors import BackendError, ConfigError, ResumeMismatchError
from elicitor.files import read_json, write_atomic, write_json
from elicitor.models import load_backend
from elicitor.prompts import encode_parts
from elicitor.tasks.keys import final_answer
from elicitor.tasks.table import Task

WORKED = (
    (
        "A baker fills 6 trays with 8 rolls each and sells 30 rolls before noon. How many rolls are left?",
        "There are 6 * 8 = 48 rolls. After 30 are sold, 48 - 30 = 18 are left. The answer is 18.",
    ),
    (
        "Mira reads 12 pages on Monday and twice as many on Tuesday. Her book has 60 pages. How many has she still to read?",
        "On Tuesday she reads 2 * 12 = 24 pages, so 12 + 24 = 36 in all. 60 - 36 = 24 pages remain. The answer is 24.",
    ),
    (
        "Three friends share a meal of $54 equally, and one of them also pays a tip of $6. How much does that friend pay?",
        "Each share is 54 / 3 = 18 dollars. With the tip that friend pays 18 + 6 = 24 dollars. The answer is 24.",
    ),
)
"""Questions and solutions that show the model the form."""
STOP = ("\n\n", "Question:")
QUESTIONS = Task(
    name="questions",
    template="Question: {question}\nAnswer:",
    label_space=LabelSpace(("wrong", "right"), (" wrong", " right"), positive=1),
)
"""How questions are read and asked; its labels are not used."""


@dataclass(frozen=True, slots=True)
class SampleSettings:
    """What decides the solutions.

    Attributes:
        k: Solutions drawn for each question.
        seed: Seed of every draw.
        max_new_tokens: Tokens of a solution at most.
        temperature: Divides the logits.
        limit: Use only the first questions.
    """

    k: int = 4
    seed: int = 0
    max_new_tokens: int = 256
    temperature: float = 0.8
    limit: int | None = None

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        least = {"k": 1, "max_new_tokens": 1, "limit": 1, "seed": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise ConfigError(f"--{name.replace('_', '-')} got {value}", fix=f"give {low} or more")
        if not self.temperature > 0:
            raise ConfigError(f"--temperature got {self.temperature}", fix="give a positive number, such as 0.8")


@dataclass(frozen=True, slots=True)
class Sampled:
    """What `sample_solutions` has written.

    Attributes:
        output: The file.
        questions: Questions in it.
        solutions: Solutions in it.
        repeats: Draws that said nothing or the same as an earlier one of their question, and were left out.
        with_answer: Solutions that announce a final answer; the others take no part in constraints.
        cost: Of this call; what a resumed file held already is not in it.
    """

    output: Path
    questions: int
    solutions: int
    repeats: int
    with_answer: int
    cost: Cost


@dataclass(frozen=True, slots=True)
class SamplingCost:
    """What sampling would cost at most.

    Attributes:
        questions: Questions asked.
        prompt_tokens: Tokens of all prompts, each computed once.
        new_tokens: Tokens drawn if every solution is as long as allowed.
        prompt: The first prompt.
    """

    questions: int
    prompt_tokens: int
    new_tokens: int
    prompt: str


def sampling_cost(questions: str | Path, backend: Backend, settings: SampleSettings) -> SamplingCost:
    """Count what `sample_solutions` would cost at most.

    Raises:
        ElicitorError: If the questions cannot be read.
    """
    dataset = load_dataset(str(questions), QUESTIONS, limit=settings.limit)
    prompts = [solution_prompt(QUESTIONS.render(example)) for example in dataset.examples]
    return SamplingCost(
        questions=len(prompts),
        prompt_tokens=sum(len(encode_parts(backend.tokenizer, [Part(prompt, is_data=True)])) for prompt in prompts),
        new_tokens=settings.k * settings.max_new_tokens * len(prompts),
        prompt=prompts[0],
    )


def solution_prompt(question: str) -> str:
    """Worked examples, then a rendered question, up to where its solution begins."""
    shown = [f"Question: {asked}\nAnswer: {solution}" for asked, solution in WORKED]
    return "\n\n".join([*shown, question])


def sample_solutions(
    questions: str | Path,
    output: Path,
    *,
    model: str = "bundled",
    settings: SampleSettings | None = None,
    resume: bool = False,
    backend: Backend | None = None,
    on_progress: Progress | None = None,
    on_stage: OnStage | None = None,
    on_part: OnPart | None = None,
) -> Sampled:
    """Draw solutions for every question and write them as data of task ``gsm8k``.

    Args:
        questions: File or ``hf:NAME@SPLIT`` with a column ``question`` and perhaps ``id``.
        output: JSONL file to write: ``id``, ``question``, ``choice``, ``consistency_id``. Beside it, ``FILE.settings.json``.
        model: Name of a model that can generate.
        settings: How many, how long, how random.
        resume: Go on with a file that was begun with the same settings.
        backend: Use this loaded model.
        on_progress: Called after each forward pass with its tokens.
        on_stage: Called with what begins now.
        on_part: Called with finished and all questions after each one.

    Returns:
        What the file holds.

    Raises:
        ElicitorError: If a file, setting or model cannot be used.
    """
    settings = settings or SampleSettings()
    dataset = load_dataset(str(questions), QUESTIONS, limit=settings.limit)
    backend = backend or load_backend(model, on_stage=on_stage)
    if not isinstance(backend, GenerationBackend):
        raise BackendError(
            f"model {backend.name!r} cannot generate text",
            fix="use bundled, hf:NAME, gguf:FILE, vllm:NAME or openai:MODEL@URL",
        )
    done = _begin(output, _identity(settings, dataset, backend), resume=resume)
    cost = Cost()
    with output.open("a", encoding="utf-8") as stream:
        for number, example in enumerate(dataset.examples):
            if example.id in done:
                continue
            if on_stage and not cost.prompts:
                on_stage(f"drawing {settings.k} solutions for each of {len(dataset) - len(done)} questions")
            question = Part(solution_prompt(QUESTIONS.render(example)), is_data=True)
            drawn = backend.generate(
                (*backend.tokenizer.start_ids, *encode_parts(backend.tokenizer, [question])),
                max_new_tokens=settings.max_new_tokens,
                temperature=settings.temperature,
                stop=STOP,
                rngs=_generator(settings.seed, example.id).spawn(settings.k),
                on_progress=on_progress,
            )
            cost += drawn.cost
            texts = [text for text in dict.fromkeys(text.strip() for text in drawn.texts) if text]
            rows = [
                {"id": f"{example.id}/{j}", **example.fields, "choice": text, "consistency_id": example.id}
                for j, text in enumerate(texts)
            ]
            # One write for a question: a kill leaves its last line cut at worst, and resuming draws that question again.
            stream.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
            stream.flush()
            if on_part:
                on_part(number + 1, len(dataset))
    rows = _rows(output)
    return Sampled(
        output=output,
        questions=len(dataset),
        solutions=len(rows),
        repeats=settings.k * len(dataset) - len(rows),
        with_answer=sum(final_answer(row["choice"]) is not None for row in rows),
        cost=cost,
    )


def _identity(settings: SampleSettings, dataset: Dataset, backend: Backend) -> dict[str, Any]:
    return {
        "questions": dataset.fingerprint,
        "model": backend.fingerprint,
        "k": settings.k,
        "seed": settings.seed,
        "max_new_tokens": settings.max_new_tokens,
        "temperature": settings.temperature,
    }


def _begin(output: Path, identity: dict[str, Any], *, resume: bool) -> set[str]:
    """Claim the output file; ids of the questions that are finished in it."""
    settings = output.with_name(f"{output.name}.settings.json")
    if not output.exists():
        if not output.parent.is_dir():
            raise ConfigError(f"folder {output.parent} does not exist", fix="make it, or choose another file")
        write_json(settings, identity)
        return set()
    if not resume:
        raise ConfigError(f"{output} exists", fix="add --resume to go on with it, or choose another file")
    before = read_json(settings)
    for name, value in identity.items():
        if before.get(name) != value:
            raise ResumeMismatchError(
                f"{output} was drawn with {name} = {before.get(name)!r}, now it is {value!r}",
                fix="give the same again, or choose another file",
            )
    rows = _rows(output)
    # Nothing says whether the last question has all its solutions, so it is drawn again.
    last = rows[-1]["consistency_id"] if rows else None
    kept = [row for row in rows if row["consistency_id"] != last]
    write_atomic(output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))
    return set(Counter(str(row["consistency_id"]) for row in kept))


def _rows(output: Path) -> list[dict[str, Any]]:
    """Whole lines of the file."""
    whole, _, _ = output.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.split("\n") if line]


def _generator(seed: int, example_id: str) -> np.random.Generator:
    """A question's own generator, so that its solutions do not depend on the questions before it."""
    digest = hashlib.sha256(example_id.encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest, dtype=np.uint32).tolist()])
