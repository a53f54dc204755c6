"""The card of an exported data set: what a stranger must know before training on labels that no human gave."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from pydantic import TypeAdapter

from elicitor.audit import AUDIT, Audit
from elicitor.config import RunConfig
from elicitor.files import read_json
from elicitor.labelling import Run
from elicitor.manifest import REVIEW_OF
from elicitor.runs import read_manifest
from elicitor.shapes import validated
from elicitor.tasks import Task

_COLUMNS = {
    "prompt": "what is asked",
    "completion": "the answer",
    "chosen": "the response that the found label prefers",
    "rejected": "the other response",
    "label": "whether the found label calls the completion good",
    "example_id": "id of the example in the data that was labelled",
    "group_id": "examples of one group are bound by logic",
    "found_label": "name of the found label",
    "found_label_index": "its index",
    "confidence": "probability of the label over the label set, given all other labelled examples",
    "log_odds": "log-odds of the label against all others, in nats",
}


def make_card(
    run: Run,
    config: RunConfig,
    task: Task,
    form: str,
    *,
    columns: Sequence[str],
    n: int,
    left_out: Mapping[str, int],
) -> str:
    """Text of a data set's ``README.md``.

    Args:
        run: The finished run.
        config: Its settings.
        task: What was asked.
        form: Format of the rows.
        columns: Names of their columns.
        n: Number of rows.
        left_out: Reasons and numbers of what is missing.

    Returns:
        Markdown behind a block of metadata that the hub reads.
    """
    manifest = read_manifest(run.path)
    metadata = {
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "train.jsonl"}]}],
        "pretty_name": f"{task.name}, labels found by elicitor",
        "tags": ["elicitor", "unsupervised-elicitation", "model-made-labels"],
    }
    parts = [
        "---\n" + yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True) + "---",
        f"# {task.name}: labels found without supervision",
        "**The labels are model-made.** No human gave them: a language model was searched for the labels that it holds "
        f"coherent (Wen et al. 2025, arXiv 2506.10139). {_gold(manifest)}",
        "## Rows",
        f"{n} rows of format `{form}`, in `train.jsonl`.",
        "\n".join(f"- `{name}`: {_COLUMNS.get(name, 'a field of the example')}" for name in columns),
        *([f"Left out: {', '.join(f'{count} {reason}' for reason, count in left_out.items())}."] if left_out else []),
        "## How the labels were made",
        "\n".join(f"- {name}: {value}" for name, value in _facts(run, config, task, manifest).items()),
        "The prompt of one example, before its label:",
        _fenced(task.preamble + task.template),
        "## Audit",
        _audit(run),
        "## Limits",
        "Coherent labels can be those of another concept than the one that was meant. Check a sample by hand before "
        "relying on them. The inputs keep the licence of the data that they come from.",
    ]
    return "\n\n".join(parts) + "\n"


def _gold(manifest: Mapping[str, Any]) -> str:
    if manifest["gold_used"] is False:
        return "Gold labels were not used in making them."
    supervision = manifest["supervision"]
    if supervision[REVIEW_OF]:
        return f"The search began with {supervision['labels']} labels that a person's review of an earlier run established."
    return "The search was given labels to start with; whether those are gold, only who gave them knows."


def _facts(run: Run, config: RunConfig, task: Task, manifest: Mapping[str, Any]) -> dict[str, str]:
    cost = run.metrics["cost"]
    space = task.label_space
    shares = ", ".join(f"{name} {count}" for name, count in run.metrics["labels"].items())
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    return {
        "base model": f"`{manifest['model']['name']}`",
        "revision": f"weights and numeric settings have the fingerprint `{manifest['identity']['model']}`",
        "data": f"`{config.data}`, fingerprint `{manifest['identity']['data']}`",
        "search": f"{config.search}, seed {config.seed}, calibration {config.objective.calibration}",
        "labels": f"{shares} (verbalizers {', '.join(f'`{json.dumps(text)}`' for text in space.verbalizers)})",
        "constraints": ", ".join(task.constraint) if task.constraint and config.consistency else "none",
        "inconsistencies left": str(sum(batch["inconsistency"] for batch in run.metrics["batches"])),
        "cost": f"{cost['tokens_computed']:,} tokens in {cost['prompts']:,} prompts, {cost['seconds']:,.0f} s",
        "versions": versions,
    }


def _audit(run: Run) -> str:
    if not (run.path / AUDIT).is_file():
        return "Not audited. `elicitor audit` looks for the known ways in which coherent labels are useless."
    file = run.path / AUDIT
    audit = validated(TypeAdapter(Audit), read_json(file), place=str(file))
    lines = [f"Verdict: **{audit.verdict}**.", ""]
    lines += [f"- {check.name}: {check.verdict}; {check.finding}" for check in audit.checks]
    return "\n".join(lines)


def _fenced(text: str) -> str:
    """Text in a fence that nothing in it can close."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text}\n{fence}"
