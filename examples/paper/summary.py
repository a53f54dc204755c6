"""One figure of the paper beside what was measured: reads what elicitor's commands wrote, writes summary.json and table.md.

    python examples/paper/summary.py figure_8 runs/paper/figure_8-laptop --preset laptop --search ensemble

Everything in the table stands in the summary, and everything else that is made of it (`index.py`) reads the summary alone.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from elicitor.errors import DataError
from elicitor.files import read_json, write_atomic, write_json
from elicitor.manifest import package_versions
from elicitor.metrics import FEW_GROUPS
from elicitor.terminal import mistakes_in_a_line

SCHEMA = 1
PAPER = Path(__file__).with_name("figures.yaml")
MARGIN = 0.05
"""How much worse "as good as" may be, in accuracy."""
CHANCE = 0.1
"""How far from a half "no better than chance" may be."""
HOLDS, FAILS, OPEN, UNTESTABLE = "holds", "does not hold", "undecided", "cannot be tested at this size"
Row = dict[str, Any]


def read_paper() -> dict[str, Any]:
    """The paper's numbers and findings, `figures.yaml`."""
    paper: dict[str, Any] = yaml.safe_load(PAPER.read_text(encoding="utf-8"))
    return paper


def measured(folder: Path) -> list[Row]:
    """Everything that the commands measured under a folder, one row each.

    Args:
        folder: ``--output-dir`` of a script beside this one.

    Returns:
        Rows with ``task``, ``model``, ``setting``, ``condition``, ``measure``, and the figure: ``value``, ``lower``, ``upper``,
        ``n``, ``groups``, ``seeds``. A difference has a condition such as ``found less golden``.
    """
    rows: list[Row] = []
    for file in sorted(folder.glob("*/results.json")):
        rows += suite_rows(results := read_json(file))
        rows += [row for name, one in results.items() for row in curve_rows(name, one)]
    for file in sorted(folder.glob("trained-*/comparison.json")):
        name = file.parent.name.removeprefix("trained-")
        rows += evaluation_rows(name, read_json(file), setting="fine-tuned")
    for file in sorted(folder.glob("*/ablation-result.json")):
        rows += ablation_rows(read_json(file.with_name("ablation.json")), read_json(file))
    for file in sorted(folder.glob("reward.json")):
        rows += reward_rows(_task_and_model(folder / "labels")[1], read_json(file))
    for file in sorted(folder.glob("winrate.json")):
        model = _task_and_model(folder / "labels")[1]
        rows += [winrate_row(model, one) for one in json.loads(file.read_text(encoding="utf-8"))]
    for file in sorted(folder.glob("*/audit.json")):
        rows += agreement_rows(*_task_and_model(file.parent), read_json(file))
    return rows + search_rows(folder)


def suite_rows(results: Mapping[str, Any]) -> list[Row]:
    """Rows of ``results.json`` of a suite."""
    return [row for name, one in results.items() for row in evaluation_rows(name, one, setting="in context")]


def evaluation_rows(name: str, result: Mapping[str, Any], *, setting: str) -> list[Row]:
    """Accuracy of each condition under the calibration of the run, what found labels are better by, and label accuracy.

    Args:
        name: Name of the task in the table.
        result: `elicitor.evaluation.Evaluation` or `elicitor.train.compare.TrainComparison` as JSON values.
        setting: ``in context`` or ``fine-tuned``.
    """
    used = "calibrated" if result["calibration"] == "batch" else "raw"
    rows = []
    for row in result["rows"]:
        one = _row(name, result["model"], setting, row["condition"], "accuracy", row[used])
        if row["condition"] == "found" and row["gap_recovered"] is not None:
            one["gap_recovered"] = row["gap_recovered"]["value"]
        rows.append(one)
        if row["found_less_this"] is not None:
            difference = row["found_less_this"]
            condition = f"found less {row['condition']}"
            rows.append(_row(name, result["model"], setting, condition, "difference", difference["estimate"]))
    if agreed := result.get("label_accuracy"):
        rows.append(_row(name, result["model"], setting, "found", "label accuracy", agreed["estimate"]))
    return rows


def curve_rows(name: str, result: Mapping[str, Any]) -> list[Row]:
    """Label accuracy after a quarter, a half and three quarters of the changes of a search: the mean over seeds.

    It is over the examples that had a label then, which ``n`` counts in the mean; there is no interval.
    """
    curves = (result.get("label_accuracy") or {"curves": []})["curves"]
    rows = []
    for share in (0.25, 0.5, 0.75):
        points = [curve[int(share * (len(curve) - 1))] for curve in curves if curve]
        if points:
            labelled, right = (float(np.mean([point[k] for point in points])) for k in (1, 2))
            figure = {"value": right, "n": round(labelled), "seeds": len(points)}
            condition = f"found, after {share:.0%} of the changes"
            rows.append(_row(name, result["model"], "search", condition, "label accuracy", figure))
    return rows


def ablation_rows(settings: Mapping[str, Any], result: Mapping[str, Any]) -> list[Row]:
    """Label accuracy of each variant and its difference to the base."""
    base = settings["base"]
    rows = []
    for one in result["results"]:
        variant = one["variant"]
        name = "base" if variant["factor"] == "base" else f"{variant['factor']}={variant['value']}"
        row = _row(base["task"], base["model"], "search", name, "label accuracy", one["label_accuracy"])
        rows.append(row | {"largest_share": one["largest_share"]})
        if one["less_base"] is not None:
            difference = one["less_base"]["estimate"]
            rows.append(_row(base["task"], base["model"], "search", f"{name} less base", "difference", difference))
    return rows


def _task_and_model(run: Path) -> tuple[str, str]:
    """What a run labelled, and with which model."""
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    return config["task"], config["model"]


def reward_rows(model: str, result: Mapping[str, Any]) -> list[Row]:
    """Pairwise accuracy of reward models on one base, and what the first one is better by."""
    name, setting = "reward model", "reward model"
    rows = [
        _row(name, model, setting, _labels(one["model"]), "accuracy", one["accuracy"])
        for one in result["rows"]
        if one["subset"] is None
    ]
    for gain in result["gains"]:
        turned = dict(gain["less_first"]["estimate"])
        turned["value"], turned["lower"], turned["upper"] = (
            None if turned[key] is None else -turned[key] for key in ("value", "upper", "lower")
        )
        rows.append(_row(name, model, setting, f"found less {_labels(gain['model'])}", "difference", turned))
    return rows


def winrate_row(model: str, one: Mapping[str, Any]) -> Row:
    """How often a policy trained from a model wins, by one judge."""
    return _row("policy", model, f"judged by {Path(one['judge']).name}", "win rate", "win rate", one["win_rate"])


def _labels(model: str) -> str:
    """What a reward model was trained on, by its folder: rm-found, rm-golden, rm-found/initial."""
    path = Path(model)
    return "found, before relabelling" if path.name == "initial" else path.name.removeprefix("rm-")


def agreement_rows(task: str, model: str, audit: Mapping[str, Any]) -> list[Row]:
    """How far runs of other seeds, or of another model under several seeds, found the same labels as a model's first run."""
    rows = []
    for check in audit["checks"]:
        if check["name"] in ("seeds", "models") and "agreement" in check["figures"]:
            found = check["figures"]
            # The first run is one of the seeds; other models' runs are all but the first.
            condition, seeds = "with other seeds", found["runs"]
            if check["name"] == "models":
                condition, seeds = "with the other model", found["runs"] - 1
            for measure in ("agreement", "kappa"):
                lower, upper = found[f"{measure}_interval"]
                figure = {"value": found[measure], "lower": lower, "upper": upper, "n": audit["n_examples"]}
                figure |= {"groups": found["groups"], "seeds": seeds}
                rows.append(_row(task, model, "search", condition, measure, figure))
    return rows


def search_rows(folder: Path) -> list[Row]:
    """What labelling an example took: iterations and prompt tokens, the mean over seeds of each task of each suite."""
    spent: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for file in sorted(folder.glob("*/*/seed-*/metrics.json")):
        if (file.parents[2] / "suite.json").exists():
            spent.setdefault((file.parents[1].name, str(file.parents[2])), []).append(
                read_json(file) | {"model": read_json(file.with_name("manifest.json"))["model"]["name"]}
            )
    rows = []
    for (task, _), runs in spent.items():
        n = sum(runs[0]["labels"].values())
        for measure, each in (
            ("iterations per example", [sum(batch["iterations"] for batch in run["batches"]) / n for run in runs]),
            ("tokens per example", [run["cost"]["tokens_computed"] / n for run in runs]),
        ):
            rows.append(_row(task, runs[0]["model"], "search", "found", measure, _over_seeds(each, n=n)))
    return rows


def _over_seeds(values: Sequence[float], *, n: int) -> Row:
    """Mean of counts over seeds with Student's 95% interval, none with one seed; no count is below 0."""
    from scipy import stats

    mean = float(np.mean(values))
    reach = None
    if len(values) > 1:
        reach = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    ends = (None, None) if reach is None else (max(0.0, mean - reach), mean + reach)
    return {"value": mean, "lower": ends[0], "upper": ends[1], "n": n, "groups": None, "seeds": len(values)}


def _row(task: str, model: str, setting: str, condition: str, measure: str, figure: Mapping[str, Any]) -> Row:
    kept = {key: figure.get(key) for key in ("value", "lower", "upper", "n", "groups", "seeds")}
    # Where the file lies says nothing to anyone else.
    named = f"gguf:{Path(model.removeprefix('gguf:')).name}" if model.startswith("gguf:") else model
    return {"task": task, "model": named, "setting": setting, "condition": condition, "measure": measure} | kept


def with_paper(rows: Sequence[Row], bars: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Rows with the paper's number where it has one; bars that nothing was measured for follow, without a value."""

    def place(row: Mapping[str, Any]) -> tuple[Any, ...]:
        return (
            row["task"],
            row["condition"],
            row.get("measure", "win rate" if row["condition"] == "win rate" else "accuracy"),
        )

    known = {place(bar): bar for bar in bars}
    joined = []
    for row in rows:
        bar = known.get(place(row))
        paper = None if bar is None else {"value": bar["value"], "model": bar["model"], "source": bar["source"]}
        joined.append({**row, "paper": paper})
    met = {place(row) for row in rows}
    for key, bar in known.items():
        if key not in met:
            missing = _row(bar["task"], "", "", bar["condition"], key[2], {})
            joined.append({**missing, "paper": {"value": bar["value"], "model": bar["model"], "source": bar["source"]}})
    return joined


def verdict(figure: Mapping[str, Any], rule: str, *, reference: float = 0.0) -> str:
    """What an interval says about a finding.

    Args:
        figure: ``lower``, ``upper`` and ``groups``.
        rule: ``above``, ``below``, ``not_below``, ``not_above`` or ``chance``; see `figures.yaml`.
        reference: What ``above`` and the like are compared with.

    Returns:
        Whether it holds; that it cannot be tested where there is no interval, or one over fewer than 20 groups.
    """
    lower, upper, groups = figure["lower"], figure["upper"], figure["groups"]
    if lower is None or upper is None or groups is None or groups < FEW_GROUPS:
        return UNTESTABLE
    below, above = lower - reference, upper - reference
    holds, fails = {
        "above": (below > 0, above < 0),
        "below": (above < 0, below > 0),
        "not_below": (below > -MARGIN, above < 0),
        "not_above": (above < MARGIN, below > 0),
        "chance": (0.5 - CHANCE <= lower <= 0.5 <= upper <= 0.5 + CHANCE, lower > 0.5 or upper < 0.5),
    }[rule]
    return HOLDS if holds else FAILS if fails else OPEN


def judge(rows: Sequence[Row], findings: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Each finding on each task, model and setting that has its figure."""
    judged = []
    for finding in findings:
        for row in rows:
            if row["condition"] != finding["of"] or row["measure"] != finding.get("measure", "difference"):
                continue
            if finding.get("tasks") and row["task"] not in finding["tasks"]:
                continue
            said = verdict(row, finding["rule"], reference=finding.get("reference", 0.0))
            why = "" if said != UNTESTABLE else f"fewer than {FEW_GROUPS} groups, or no interval"
            if finding.get("needs_gap") and _gap(rows, row) is None:
                said, why = UNTESTABLE, "golden labels are not clearly better than zero-shot"
            judged.append(
                {"says": finding["says"], "verdict": said, "why": why} | {k: v for k, v in row.items() if k != "paper"}
            )
    return judged


def _gap(rows: Sequence[Row], like: Row) -> float | None:
    """Gap recovered by found labels on the same task, model and setting; None where there is no gap."""
    same = ("task", "model", "setting")
    for row in rows:
        if row["condition"] == "found" and row["measure"] == "accuracy" and all(row[key] == like[key] for key in same):
            gap: float | None = row.get("gap_recovered")
            return gap
    return None


def summarize(figure: str, rows: Sequence[Row], **facts: Any) -> dict[str, Any]:
    """The run summary.

    Args:
        figure: Name of a figure in `figures.yaml`.
        rows: What was measured; see `measured`.
        **facts: Preset, search, calibration, command and what else is worth keeping.

    Raises:
        DataError: If the figure is unknown or nothing was measured.
    """
    paper = read_paper()
    if figure not in paper["figures"]:
        raise DataError(f"unknown figure {figure!r}", fix=f"use {', '.join(paper['figures'])}")
    if not rows:
        raise DataError(f"nothing was measured for {figure}", fix="run its script to its end first")
    of = paper["figures"][figure]
    return {
        "schema": SCHEMA,
        "figure": figure,
        "title": of["title"],
        **facts,
        "rows": with_paper(rows, of["bars"]),
        "findings": judge(rows, of["findings"]),
    }


def table(summary: Mapping[str, Any]) -> str:
    """The summary in Markdown: the paper's number beside ours, then the findings."""
    how = f"preset {summary['preset']}; search {summary['search']}"
    if summary["search"] != "icm":
        how += " (the paper's own is icm)"
    lines = [f"# {summary['title']}", ""]
    lines += [f"{how}; calibration {summary['calibration']}; {summary['date']}; `{summary['command']}`.", ""]
    lines += ["| task | model | setting | condition | measure | paper | here, 95% interval | n | seeds |"]
    lines += ["| --- | --- | --- | --- | --- | --- | ---: | ---: | ---: |"]
    lines += [_pipes(cells) for cells in table_cells(summary)]
    if summary["findings"]:
        lines += [
            "",
            "| finding | task | model | setting | here, 95% interval | n | verdict |",
            "| --- |" + " --- |" * 6,
        ]
        lines += [_pipes(cells) for cells in finding_cells(summary)]
    return "\n".join(lines) + "\n"


def table_cells(summary: Mapping[str, Any]) -> Iterator[list[str]]:
    """Cells of each row of a summary; differences stand with the findings that are about them."""
    for row in summary["rows"]:
        if row["measure"] == "difference":
            continue
        paper = row["paper"]
        told = "" if paper is None else f"{paper['value']:g} ({paper['model']}; {paper['source']})"
        counts = ["" if row[key] is None else str(row[key]) for key in ("n", "seeds")]
        value = "not run" if row["model"] == "" else shown(row)
        yield [row["task"], row["model"], row["setting"], row["condition"], row["measure"], told, value, *counts]


def finding_cells(summary: Mapping[str, Any]) -> Iterator[list[str]]:
    """Cells of each judged finding of a summary."""
    for row in summary["findings"]:
        said = f"{row['verdict']}: {row['why']}" if row["why"] else row["verdict"]
        yield [row["says"], row["task"], row["model"], row["setting"], shown(row), str(row["n"]), said]


def shown(row: Mapping[str, Any]) -> str:
    """A figure with its interval, as the tables of elicitor write it."""
    if row["value"] is None:
        return "undefined"
    if row["lower"] is None or row["upper"] is None:
        return f"{row['value']:.3f} [no interval]"
    return f"{row['value']:.3f} [{row['lower']:.3f}, {row['upper']:.3f}]"


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def main() -> None:
    """Summarize one folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", help="name in figures.yaml, such as figure_8")
    parser.add_argument("folder", type=Path, help="--output-dir of its script")
    for name in ("preset", "search", "calibration", "command"):
        parser.add_argument(f"--{name}", default="none")
    options = parser.parse_args()
    facts = {name: getattr(options, name) for name in ("preset", "search", "calibration", "command")}
    facts |= {"date": datetime.date.today().isoformat(), "versions": package_versions()}
    summary = summarize(options.figure, measured(options.folder), **facts)
    write_json(options.folder / "summary.json", summary)
    write_atomic(options.folder / "table.md", table(summary))
    print(table(summary))
    print(f"figure, table and summary: {options.folder}/figure.png, table.md, summary.json")


if __name__ == "__main__":
    with mistakes_in_a_line():
        main()
