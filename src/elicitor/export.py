"""Found labels as data sets that others train on: rows for TRL, with a card that says how they were made.

Every export is a folder with ``train.jsonl`` and ``README.md``, so ``datasets.load_dataset("json", data_files=...)``,
``load_dataset(FOLDER)``, TRL's commands and the hub all read it. Gold columns never reach it: rows are made from the fields
that the task names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from elicitor.data import ORDERS
from elicitor.errors import BackendError, ConfigError, reason_of
from elicitor.export_card import make_card
from elicitor.files import make_folder, stray_entry, write_atomic, write_rows
from elicitor.labelling import Run, load_run
from elicitor.search import FoundLabel
from elicitor.train.pairs import Pair, found_choices, prompt_fields
from elicitor.train.rendering import messages, plain_prompt
from elicitor.train.sft import Labelled, labelled_run

ExportFormat = Literal["sft", "preference", "unpaired", "dataset"]
FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
ROWS = "train.jsonl"
CARD = "README.md"
_ANSWERS = {"truthfulqa": "choice", "gsm8k": "choice"}
"""Field that holds the answer which a built-in task's label judges."""

JsonRow = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        folder: Where.
        format: Kind of rows.
        rows: How many.
        left_out: Why examples or pairs are missing, with their number.
        url: Address on the hub, None if it was not pushed.
    """

    folder: Path
    format: ExportFormat
    rows: int
    left_out: dict[str, int]
    url: str | None = None


def export(
    run: Run | str | Path,
    output_dir: str | Path,
    *,
    format: str,
    conversational: bool = False,
    answer: str | None = None,
    keep_abstained: bool = False,
    force: bool = False,
) -> Exported:
    """Write a run's labels as a data set.

    Args:
        run: A finished run or its folder.
        output_dir: Folder to write.
        format: ``sft`` (prompt, completion), ``preference`` (prompt, chosen, rejected; tasks that compare a pair),
            ``unpaired`` (prompt, completion, label, for KTO) or ``dataset`` (all fields with label and confidence).
        conversational: Write prompts and responses as chat messages, for models with a chat template; formats
            ``preference`` and ``unpaired`` alone.
        answer: Field that holds the answer which the label judges, for ``unpaired``; built-in tasks know theirs.
        keep_abstained: Keep examples that ``elicitor audit --abstain`` found indeterminate as well.
        force: Write over an earlier export.

    Returns:
        What was written.

    Raises:
        ElicitorError: If the run cannot be read, the format does not apply to its task, or the folder is in use.
    """
    if format not in FORMATS:
        raise ConfigError(f"unknown format {format!r}", fix=f"use one of {', '.join(FORMATS)}")
    if conversational and format not in ("preference", "unpaired"):
        raise ConfigError(
            f"format {format!r} has no messages", fix="leave out --conversational, or use preference or unpaired"
        )
    folder = Path(output_dir)
    if folder.exists() and not (folder.is_dir() and (force or not stray_entry(folder))):
        raise ConfigError(f"{folder} is in use", fix="choose another --output-dir, or add --force")
    done = run if isinstance(run, Run) else load_run(Path(run))
    labelled, config = labelled_run(done, keep_abstained=keep_abstained)
    left_out = Counter({"indeterminate": labelled.left_out})
    form: ExportFormat = format
    match form:
        case "sft":
            rows = sft_rows(labelled)
        case "preference":
            rows = preference_rows(labelled, done.labels, left_out=left_out, conversational=conversational)
        case "unpaired":
            rows = unpaired_rows(labelled, done.labels, answer=answer, left_out=left_out, conversational=conversational)
        case "dataset":
            rows = dataset_rows(labelled, done.labels)
    if not rows:
        raise ConfigError(f"no row of format {format!r} is left", fix="add --keep-abstained, or use another format")
    reasons = {reason: count for reason, count in left_out.items() if count}
    make_folder(folder)
    write_rows(folder / ROWS, rows)
    write_atomic(
        folder / CARD,
        make_card(done, config, labelled.task, form, columns=list(rows[0]), n=len(rows), left_out=reasons),
    )
    return Exported(folder, form, len(rows), reasons)


def sft_rows(labelled: Labelled) -> list[JsonRow]:
    """Prompt and completion as text; the completion is the verbalizer with its leading blank."""
    task = labelled.task
    return [
        {
            "prompt": task.preamble + task.render(labelled.dataset.examples[i]),
            "completion": task.label_space.verbalizers[label],
        }
        for i, label in labelled.labels.items()
    ]


def dataset_rows(labelled: Labelled, labels: Sequence[FoundLabel]) -> list[JsonRow]:
    """Fields of each example with its label, its index, confidence and log-odds.

    Raises:
        ConfigError: If a field has the name of one of those.
    """
    by_id = {item.id: item for item in labels}
    rows = []
    for i, label in labelled.labels.items():
        example = labelled.dataset.examples[i]
        found = by_id[example.id]
        made = {
            "example_id": example.id,
            "group_id": example.group_id,
            "found_label": found.label,
            "found_label_index": label,
            "confidence": found.confidence,
            "log_odds": found.log_odds,
        }
        if taken := sorted(made.keys() & example.fields.keys()):
            raise ConfigError(
                f"field {taken[0]!r} of the task has the name of a column that format dataset adds",
                fix="rename the field, or use --format sft",
            )
        rows.append({**example.fields, **made})
    return rows


def preference_rows(
    labelled: Labelled, labels: Sequence[FoundLabel], *, left_out: Counter[str], conversational: bool
) -> list[JsonRow]:
    """Each pair once, the response that both of its orders prefer as ``chosen``.

    Args:
        labelled: Examples of a task that shows pairs in both orders.
        labels: Found labels.
        left_out: Counts pairs whose orders got one answer, and those with an indeterminate order.
        conversational: Write chat messages.

    Returns:
        ``prompt`` (where the task has one), ``chosen`` and ``rejected``.

    Raises:
        ConfigError: If the task does not compare pairs.
    """
    task = labelled.task
    if task.mirror is None:
        raise ConfigError(
            f"task {task.name!r} does not compare two responses, so it has no preferences",
            fix="use --format unpaired, sft or dataset; pairs are never made up across prompts",
        )
    pairs = _pairs(labelled)
    whole = [pair for k, pair in enumerate(pairs) if {2 * k, 2 * k + 1} <= labelled.labels.keys()]
    left_out["indeterminate"] = len(pairs) - len(whole)
    chosen, left_out["contradictory"] = found_choices(labels, whole, task=task)
    rows = []
    for pair in whole:
        if pair.id in chosen:
            better = chosen[pair.id]
            row = _prompt(pair.prompt, conversational=conversational) if prompt_fields(task) else {}
            for name, text in (("chosen", pair.responses[better]), ("rejected", pair.responses[1 - better])):
                row[name] = _response(text, conversational=conversational, first=not row.get("prompt"))
            rows.append(row)
    return rows


def unpaired_rows(
    labelled: Labelled,
    labels: Sequence[FoundLabel],
    *,
    answer: str | None,
    left_out: Counter[str],
    conversational: bool,
) -> list[JsonRow]:
    """Prompt, completion, and whether it is a good one: a claim's answer, or each response of a pair.

    Args:
        labelled: Examples of a task with two labels.
        labels: Found labels.
        answer: Field that holds the answer; the other fields are the prompt.
        left_out: Counts what is missing.
        conversational: Write chat messages.

    Returns:
        ``prompt``, ``completion`` and ``label``.

    Raises:
        ConfigError: If the task has no prompt with an answer.
    """
    task = labelled.task
    if task.mirror is not None:
        pairs = preference_rows(labelled, labels, left_out=left_out, conversational=conversational)
        if not prompt_fields(task):
            raise ConfigError(f"the pairs of task {task.name!r} answer no prompt", fix="use --format preference")
        return [
            {"prompt": row["prompt"], "completion": row[name], "label": name == "chosen"}
            for row in pairs
            for name in ("chosen", "rejected")
        ]
    field = answer or _ANSWERS.get(task.name)
    if field is None or field not in task.fields or len(task.fields) < 2 or len(task.label_space) != 2:
        raise ConfigError(
            f"task {task.name!r} has no field with an answer that its label judges"
            if answer is None
            else f"field {answer!r} of task {task.name!r} cannot be the answer that a label of two judges",
            fix=f"name one of {', '.join(task.fields)} with --answer, or use --format sft",
        )
    rows = []
    for i, label in labelled.labels.items():
        fields = labelled.dataset.examples[i].fields
        text = "\n\n".join(fields[name] for name in task.fields if name != field)
        row = _prompt(text, conversational=conversational)
        row["completion"] = _response(fields[field], conversational=conversational, first=False)
        rows.append({**row, "label": label == task.label_space.positive})
    return rows


def push(exported: Exported, repository: str, *, public: bool = False, endpoint: str | None = None) -> str:
    """Upload an export to the Hugging Face hub; the token comes from ``HF_TOKEN`` or ``hf auth login``.

    Args:
        exported: What was written.
        repository: ``OWNER/NAME`` of a data set; made if it does not exist.
        public: Let everybody see it; a repository that exists stays as it is.
        endpoint: Address of another hub.

    Returns:
        Its address.

    Raises:
        BackendError: If the hub cannot be reached or refuses.
    """
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise BackendError("--push needs huggingface_hub", fix="pip install 'elicitor[train]'") from error
    api = HfApi(endpoint=endpoint)
    try:
        api.create_repo(repository, repo_type="dataset", private=not public, exist_ok=True)
        done = api.upload_folder(
            folder_path=exported.folder,
            repo_id=repository,
            repo_type="dataset",
            allow_patterns=[ROWS, CARD],
            commit_message="Labels found by elicitor",
        )
    except Exception as error:  # the hub's client fails in many ways where there is no network
        raise BackendError(
            f"{repository} could not be pushed: {reason_of(error)}",
            fix="check its name and the network, log in with 'hf auth login', and try again with --force",
        ) from error
    return str(done.repo_url) if hasattr(done, "repo_url") else str(done)


def _pairs(labelled: Labelled) -> list[Pair]:
    """Pairs of a mirrored data set, whose orders stand next to each other."""
    task = labelled.task
    first, second = task.mirror or ("", "")
    pairs = []
    for example in labelled.dataset.examples[::2]:
        prompt = "\n\n".join(example.fields[name] for name in prompt_fields(task))
        name = example.id.removesuffix(f"/{ORDERS[0]}")
        pairs.append(Pair(name, prompt, (example.fields[first], example.fields[second])))
    return pairs


def _prompt(text: str, *, conversational: bool) -> JsonRow:
    return {"prompt": messages(text) if conversational else plain_prompt(text)}


def _response(text: str, *, conversational: bool, first: bool) -> str | list[dict[str, str]]:
    """A response; as text it begins with the blank that parts it from the prompt."""
    if conversational:
        return [{"role": "assistant", "content": text}]
    return text if first else f" {text}"
