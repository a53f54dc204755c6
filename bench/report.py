"""What the page of a large run costs: its size, the seconds until something is seen, and milliseconds of a filter.

A finished run of N examples is written as a search would leave it (its labels and events are made up), read and drawn as
``elicitor report`` does, and opened in a headless Chromium. A filter is timed from the event to the next painted frame.

    python bench/report.py --n 10000 --json report.json
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from elicitor.config import build_config
from elicitor.console import environment
from elicitor.inputs import read_inputs
from elicitor.joining import join_batches
from elicitor.manifest import build_manifest
from elicitor.report import gather, write_page
from elicitor.runs import RunFolder
from elicitor.terminal import mistakes_in_a_line

TASK = {
    "name": "notes",
    "template": "Note: {text}\nUrgent:",
    "labels": ["no", "yes"],
    "group": "ticket",
    "gold": "gold",
}
TEXT = "the printer on floor two prints blank pages again since monday after the update would somebody look at it"
BATCH = 250
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
BOUNDS = {"megabytes": 15.0, "first_paint_seconds": 2.0, "filter_ms": 200.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000, help="examples")
    parser.add_argument("--words", type=int, default=60, help="words of each text")
    parser.add_argument("--repeats", type=int, default=5, help="times that the page is opened and each filter is set")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="executable")
    parser.add_argument("--keep", type=Path, help="write the page to this file and keep it")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        data = write_data(Path(place) / "notes.jsonl", n=options.n, words=options.words)
        run = write_run(Path(place) / "run", data)
        file = options.keep or Path(place) / "report.html"
        begin = time.perf_counter()
        views = gather([run], gold=data)
        gathered = time.perf_counter()
        write_page(views, file)
        written = time.perf_counter()
        seen = open_page(file, executable=options.chromium, repeats=options.repeats)
        figures = {
            "n": options.n,
            "words": options.words,
            "repeats": options.repeats,
            "megabytes": file.stat().st_size / 1e6,
            "gather_seconds": gathered - begin,
            "write_seconds": written - gathered,
            **seen,
        }
    for name, value in figures.items():
        bound = f"  (bound {BOUNDS[name]:g})" if name in BOUNDS else ""
        print(f"{name}: {value:.3g}{bound}" if isinstance(value, float) else f"{name}: {value}{bound}")
    if options.json:
        options.json.write_text(
            json.dumps({**figures, "bounds": BOUNDS, "environment": environment()}, indent=2) + "\n"
        )


def write_data(file: Path, *, n: int, words: int) -> Path:
    """Texts with gold."""
    rng = np.random.default_rng(0)
    with file.open("w", encoding="utf-8") as stream:
        for i in range(n):
            text = " ".join(rng.choice(TEXT.split(), size=words))
            row = {
                "id": f"note-{i:05d}",
                "text": text,
                "ticket": f"t{i // 2}",
                "gold": TASK["labels"][int(rng.integers(2))],
            }
            stream.write(json.dumps(row) + "\n")
    return file


def write_run(folder: Path, data: Path) -> Path:
    """A run folder with three proposals an example."""
    rng = np.random.default_rng(1)
    inputs = read_inputs(build_config(flags={"data": str(data), "task": TASK, "model": "fake", "batch_size": BATCH}))
    ids = [example.id for example in inputs.dataset.examples]
    groups = [example.group_id for example in inputs.dataset.examples]
    batches = tuple(tuple(range(start, min(start + BATCH, len(ids)))) for start in range(0, len(ids), BATCH))
    manifest = build_manifest(
        data_fingerprint=inputs.dataset.fingerprint,
        model_fingerprint="made up",
        model={"name": "fake"},
        batches=batches,
    )
    names = inputs.task.label_space.labels
    with RunFolder.create(folder, inputs.config, manifest) as run:
        for number, batch in enumerate(batches):
            held: dict[str, str] = {}
            events = []
            for step in range(3 * len(batch)):
                example, label = ids[int(rng.choice(batch))], names[int(rng.integers(2))]
                accepted = bool(rng.random() < 0.7) or example not in held
                events.append(_event(number, step, example, held.get(example), label, accepted=accepted, rng=rng))
                if accepted:
                    held[example] = label
            odds = rng.normal(1.2, 1.3, size=len(batch))
            labels = [
                {
                    "id": ids[i],
                    "label": held.get(ids[i], names[0]),
                    "confidence": float(1 / (1 + np.exp(-x))),
                    "log_odds": float(x),
                    "group_id": groups[i],
                    "filled": ids[i] not in held,
                    "batch": number,
                }
                for i, x in zip(batch, odds, strict=True)
            ]
            metrics = {"batch": number, "utility": 50.0, "predictability": 1.0, "inconsistency": 0}
            meter = {
                "cost": {"prompts": 1, "tokens_computed": 1000, "tokens_reused": 0, "seconds": 1.0, "bounded": 0},
                "evaluations": 1,
                "in_order_tokens": 2000,
                "naive_tokens": 4000,
            }
            run.finish_batch(number, events=events, labels=labels, metrics={"metrics": metrics, "meter": meter})
        join_batches(run, batches, inputs.task.label_space)
    return folder


def _event(
    batch: int, step: int, example: str, before: str | None, label: str, *, accepted: bool, rng: np.random.Generator
) -> dict[str, Any]:
    utility = float(50 * (1 - np.exp(-step / 200)) + rng.normal())
    return {
        "kind": "proposed",
        "batch": batch,
        "iteration": step,
        "labels": {example: label},
        "accepted": accepted,
        "n_labelled": 0,
        "utility": utility,
        "predictability": utility / 50,
        "inconsistency": 0,
        "tokens_computed": 100,
        "tokens_reused": 100,
        "seconds": 0.1,
        "example": example,
        "label_before": before,
        "label_proposed": label,
        "utility_proposed": utility,
        "temperature": 10 / (1 + np.log1p(step)),
        "options_tried": 0,
    }


_FILTERS = {
    "search": ("by-search", "printer on floor"),
    "label": ("by-label", "1"),
    "margin": ("by-margin", "tie"),
    "gold": ("by-gold", "other"),
    "group": ("by-group", "t77"),
}
_SET = """([id, value]) => new Promise((done) => {
  const field = document.getElementById(id);
  const begin = performance.now();
  field.value = value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  requestAnimationFrame(() => setTimeout(() => {
    done(performance.now() - begin);
    document.getElementById("clear").click();
  }));
})"""
_SCROLL = """() => new Promise((done) => {
  const grid = document.getElementById("grid");
  const frames = [];
  let last = performance.now();
  const step = () => {
    const now = performance.now();
    frames.push(now - last);
    last = now;
    grid.scrollTop += 2000;
    if (frames.length < 60) requestAnimationFrame(step); else done(Math.max(...frames.slice(1)));
  };
  requestAnimationFrame(step);
})"""


def open_page(file: Path, *, executable: str, repeats: int) -> dict[str, Any]:
    """Medians over repeats, and the slowest filter of all."""
    from playwright.sync_api import sync_playwright

    paints, ready, frames = [], [], []
    filters: dict[str, list[float]] = {name: [] for name in _FILTERS}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        for _ in range(repeats):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(file.as_uri())
            page.wait_for_selector("html[data-ready]", timeout=120_000)
            ready.append(page.evaluate("performance.now()") / 1000)
            paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            paints.append(page.evaluate(paint) / 1000)
            for name, chosen in _FILTERS.items():
                filters[name].append(page.evaluate(_SET, list(chosen)))
            frames.append(page.evaluate(_SCROLL))
            page.close()
        version = browser.version
        browser.close()
    return {
        "first_paint_seconds": statistics.median(paints),
        "all_figures_seconds": statistics.median(ready),
        "filter_ms": max(max(times) for times in filters.values()),
        **{f"filter_{name}_ms": statistics.median(times) for name, times in filters.items()},
        "slowest_frame_while_scrolling_ms": statistics.median(frames),
        "chromium": version,
    }


if __name__ == "__main__":
    with mistakes_in_a_line():
        main()
