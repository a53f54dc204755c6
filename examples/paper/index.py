"""The page of findings: docs/results/index.md, made of the committed run summaries in the same folder.

    python examples/paper/index.py docs/results

A summary is the summary.json of a script beside this one, under any name. `figures.yaml` names results of other commands that
count as well.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from summary import (
    FAILS,
    HOLDS,
    MARGIN,
    OPEN,
    UNTESTABLE,
    evaluation_rows,
    read_paper,
    shown,
    suite_rows,
    summarize,
    table_cells,
)

from elicitor.files import read_json, write_atomic
from elicitor.terminal import mistakes_in_a_line

PAGE = "index.md"
NOT_RUN = "not run"
_COLUMNS = ("finding", "figure", "paper", "task, model, setting", "here", "n, groups, seeds", "verdict", "source")
_HEAD = """\
# The paper's findings, here

Made by `python examples/paper/index.py docs/results` from the run summaries in `docs/results`; do not edit it. After this page
you know which findings of Wen et al. 2025 ([arXiv 2506.10139](https://arxiv.org/abs/2506.10139)) hold with the models that were
run here, which do not, and which cannot be told at this size. What else was measured is in [measurements](measurements.md).

A verdict is about the 95% interval (bootstrap over groups and seeds) of a difference on the same test examples. *As good as*
holds where the interval begins less than {margin} below 0; *better* where it lies above 0. An interval over fewer than 20
groups is too narrow to be trusted, and where golden labels are not better than zero-shot there is nothing to be as good as:
both are called *cannot be tested at this size*. The paper's models have 8 and 70 billion parameters; no verdict on a smaller
model says anything about those.
"""
_OWN = """\
## Run it yourself

Each figure has a script in `examples/paper/`; `--preset laptop` is meant for two cores, `gpu` for one GPU of 80 GB,
`cluster` for Ray and vLLM, and `smoke` for a look at the plumbing with made-up data. `--dry-run` prints prompts and tokens,
`--help` the options. The presets `gpu` and `cluster` have not been run. No data set is part of elicitor; each script says
which files it reads.

```sh
bash examples/paper/figure_8.sh --preset laptop --data-dir DATA --output-dir runs/figure_8
cp runs/figure_8/summary.json docs/results/figure_8-laptop-bundled.json
python examples/paper/index.py docs/results
```
"""


def read_summaries(folder: Path) -> dict[str, dict[str, Any]]:
    """Run summaries by file name, those of smoke runs left out, and the results of other commands that count.

    Args:
        folder: Folder of the page.
    """
    summaries = {}
    for file in sorted(folder.glob("*.json")):
        values = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(values, dict) and "figure" in values and "schema" in values and values["preset"] != "smoke":
            summaries[file.name] = values
    for entry in read_paper()["committed"]:
        if (folder / entry["file"]).exists():
            values = read_json(folder / entry["file"])
            if name := entry.get("fine_tuned"):
                rows, calibration = evaluation_rows(name, values, setting="fine-tuned"), values["calibration"]
            else:
                some = {name: values[name] for name in entry["in_context"]}
                rows, calibration = suite_rows(some), "/".join(sorted({one["calibration"] for one in some.values()}))
            facts = {key: entry[key] for key in ("preset", "search", "command", "date")} | {"calibration": calibration}
            summary = summarize(entry["figure"], rows, **facts)
            summaries[f"{entry['file']} ({entry['figure']})"] = summary
    return summaries


def page(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """The page in Markdown.

    Args:
        summaries: Run summaries by file name.
    """
    paper = read_paper()
    found = [line for figure, of in paper["figures"].items() for line in findings(figure, of, summaries)]
    lines = [_HEAD.format(margin=MARGIN), *_counted(found), "## Findings", ""]
    lines += [
        "| finding | figure | paper | task, model, setting | here | n, groups, seeds | verdict | source |",
        "| --- |" + " --- |" * 7,
    ]
    lines += [_pipes(line) for line in found]
    lines += ["", "## The paper's numbers beside these", ""]
    for name, summary in summaries.items():
        # Differences stand above; the course of a search is in the file, unless it is what the run was made for. Other commands
        # have rows of many kinds: those that the paper has too.
        course, own = not summary["findings"], summary["preset"] != "none"
        cells = [
            cells
            for cells in table_cells(summary)
            if cells[6] != "not run" and (cells[5] or (own and (course or ", after " not in cells[3])))
        ]
        if not cells:
            continue
        lines += [f"### {summary['title']}: {name}", "", _facts(summary), ""]
        lines += [
            "| task | model | setting | condition | measure | paper | here | n | seeds |",
            "| --- |" + " --- |" * 8,
        ]
        lines += [_pipes(row) for row in cells]
        lines.append("")
    return "\n".join([*lines, _OWN])


def findings(figure: str, of: Mapping[str, Any], summaries: Mapping[str, Mapping[str, Any]]) -> Iterator[list[str]]:
    """Lines of the table: each finding with each of its verdicts, or *not run*."""
    title = of["title"] if figure.startswith("extension") else of["title"].partition(",")[0]
    for finding in of["findings"]:
        judged = [
            (name, row)
            for name, summary in summaries.items()
            if summary["figure"] == figure
            for row in summary["findings"]
            if row["says"] == finding["says"]
        ]
        if not judged:
            why = f"{NOT_RUN}: {finding['lacks']}" if "lacks" in finding else NOT_RUN
            yield [finding["says"], title, told(finding, of, task=None), "", "", "", why, ""]
        for name, row in judged:
            where = f"{row['task']}, {row['model']}, {row['setting']}"
            counts = ", ".join("" if row[key] is None else str(row[key]) for key in ("n", "groups", "seeds"))
            said = f"{row['verdict']}: {row['why']}" if row["why"] else row["verdict"]
            yield [
                finding["says"],
                title,
                told(finding, of, task=row["task"]),
                where,
                shown(row),
                counts,
                said,
                f"`{name.partition(' ')[0]}`",
            ]


def told(finding: Mapping[str, Any], of: Mapping[str, Any], *, task: str | None) -> str:
    """What the paper says of a finding: in words, or the difference of its bars, of one task or of all."""
    if "paper" in finding:
        return str(finding["paper"])
    if " less " not in finding["of"]:
        return ""
    bars = {(bar["task"], bar["condition"]): bar["value"] for bar in of["bars"]}
    first, second = finding["of"].split(" less ")
    both = [name for name, condition in bars if condition == first and (name, second) in bars]
    return "; ".join(f"{bars[n, first] - bars[n, second]:+.3f} ({n})" for n in both if task in (None, n))


def _counted(found: Sequence[Sequence[str]]) -> list[str]:
    """How many lines have which verdict, and which findings these are."""
    lines = []
    for said in (HOLDS, FAILS, OPEN, UNTESTABLE, NOT_RUN):
        # A dict keeps its keys in order and each once.
        some: dict[tuple[str, str], dict[str, None]] = {}
        for line in found:
            if line[6].startswith(said):
                about = line[6].partition(": ")[2] if said == NOT_RUN else line[3]
                some.setdefault((line[0], line[1]), {})[about] = None
        lines += [f"**{said.capitalize()}**:" if some else f"**{said.capitalize()}**: none.", ""]
        lines += [f"- {says} ({'; '.join(filter(None, (figure, *where)))})" for (says, figure), where in some.items()]
        lines += [""] if some else []
    return lines


def _facts(summary: Mapping[str, Any]) -> str:
    how = "" if summary["search"] == "icm" else " (the paper's own is icm)"
    preset = "" if summary["preset"] == "none" else f"preset {summary['preset']}; "
    facts = f"{preset}search {summary['search']}{how}; calibration {summary['calibration']}; {summary['date']}"
    return f"{facts}; `{summary['command']}`."


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the summaries and the page")
    options = parser.parse_args()
    write_atomic(options.folder / PAGE, page(read_summaries(options.folder)))
    print(options.folder / PAGE)


if __name__ == "__main__":
    with mistakes_in_a_line():
        main()
