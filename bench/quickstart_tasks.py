"""On which small task does the bundled model show what elicitation is? Measured before ``elicitor quickstart`` was chosen.

For every candidate task: zero-shot, random few-shot, found labels and golden few-shot on a test part, raw and calibrated,
with the search run under both calibrations. Gold is read by the evaluation alone.

    python bench/quickstart_tasks.py --tasks sentiment,topic --json quickstart_tasks.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from arguments import integers, names

from elicitor import quickstart
from elicitor.backends.base import Backend
from elicitor.config import build_config
from elicitor.console import environment
from elicitor.evaluation import evaluate
from elicitor.labelling import run
from elicitor.models import load_backend
from elicitor.terminal import mistakes_in_a_line

CANDIDATES = Path(__file__).parent / "candidates"
# Template, and verbalizer of each label.
TASKS: dict[str, tuple[str, dict[str, str]]] = {
    "sentiment": ("Review: {text}\nSentiment:", {"negative": " negative", "positive": " positive"}),
    "spam": ("Message: {text}\nType:", {"ordinary": " normal", "spam": " spam"}),
    "tense": ("Sentence: {text}\nTime:", {"past": " past", "future": " future"}),
    "polite": ("Sentence: {text}\nTone:", {"rude": " rude", "polite": " polite"}),
    "topic": ("Text: {text}\nTopic:", {"sport": " sports", "food": " food"}),
    "subj": ("Statement: {text}\nType:", {"fact": " fact", "opinion": " opinion"}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--tasks", type=names(TASKS), default=",".join(TASKS))
    parser.add_argument("--searches", default="icm")
    parser.add_argument("--calibrations", default="none,batch")
    parser.add_argument("--seeds", type=integers, default="0", help="seeds of the search")
    parser.add_argument("--n", type=int, default=30, help="examples to label; the others are the test part")
    parser.add_argument("--test", type=int, default=30, help="test examples")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()

    backend = load_backend(options.model)
    results = []
    for name in options.tasks:
        for search in options.searches.split(","):
            for calibration in options.calibrations.split(","):
                for seed in options.seeds:
                    with tempfile.TemporaryDirectory() as folder:
                        result = measure(
                            backend,
                            Path(folder),
                            name,
                            search=search,
                            calibration=calibration,
                            seed=seed,
                            n=options.n,
                            n_test=options.test,
                        )
                    results.append(result)
                    print(as_text(result), flush=True)
    if options.json:
        document = {"model": options.model, "results": results, "environment": environment()}
        options.json.write_text(json.dumps(document, indent=2) + "\n")


def measure(
    backend: Backend, folder: Path, name: str, *, search: str, calibration: str, seed: int, n: int, n_test: int
) -> dict[str, Any]:
    """One search and its table."""
    rows = examples(name)
    template, verbalizers = TASKS[name]
    task = {"name": name, "template": template, "labels": verbalizers, "gold": "label"}
    for part, chosen in (("train", rows[:n]), ("test", rows[n : n + n_test])):
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen))
    flags = {
        "data": str(folder / "train.jsonl"),
        "task": task,
        "search": search,
        "seed": seed,
        "objective.calibration": calibration,
    }
    done = run(build_config(flags=flags), folder / "run", backend=backend)
    table = evaluate(done, folder / "test.jsonl", seeds=(0, 1, 2), backend=backend)
    return {
        "task": name,
        "search": search,
        "calibration": calibration,
        "seed": seed,
        "n": n,
        "n_test": len(rows[n : n + n_test]),
        "labels": done.metrics["labels"],
        "seconds": done.metrics["cost"]["seconds"],
        "tokens": done.metrics["cost"]["tokens_computed"],
        "label_accuracy": asdict(table.label_accuracy.estimate) if table.label_accuracy else None,
        "rows": {row.condition: {"raw": asdict(row.raw), "calibrated": asdict(row.calibrated)} for row in table.rows},
    }


def examples(name: str) -> list[dict[str, str]]:
    """Rows of a candidate, with gold."""
    if name == "tense":
        gold = {row["id"]: row["label"] for row in read(quickstart.GOLD)}
        return [{**row, "label": gold[row["id"]]} for row in read(quickstart.DATA)] + read(quickstart.TEST)
    return read(CANDIDATES / f"{name}.jsonl")


def read(path: Path) -> list[dict[str, str]]:
    """Rows of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def as_text(result: dict[str, Any]) -> str:
    """One line for each condition, and one for the search."""
    found = result["label_accuracy"]
    head = (
        f"{result['task']} {result['search']} calibration {result['calibration']} seed {result['seed']} n {result['n']}: "
        f"labels {result['labels']}, label accuracy {found['value']:.2f} [{found['lower']:.2f}, {found['upper']:.2f}], "
        f"{result['tokens']:,} tokens, {result['seconds']:.0f} s"
    )
    lines = [
        f"  {condition:<10} raw {row['raw']['value']:.2f}  calibrated {row['calibrated']['value']:.2f}"
        for condition, row in result["rows"].items()
    ]
    return "\n".join([head, *lines])


if __name__ == "__main__":
    with mistakes_in_a_line():
        main()
