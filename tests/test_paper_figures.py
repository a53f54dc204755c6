"""Summaries, verdicts and the page of findings, on numbers worked by hand, and the committed page against its JSON files."""

import importlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "paper"


@pytest.fixture
def summary(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("summary")


@pytest.fixture
def index(summary):
    return importlib.import_module("index")


def estimate(value, lower, upper, *, n=100, groups=50, seeds=3):
    return {"value": value, "lower": lower, "upper": upper, "n": n, "groups": groups, "seeds": seeds, "seed_sd": None}


def evaluation(*, gap=0.8, groups=50):
    """Zero-shot 0.50, found 0.74, golden 0.80 after calibration, and nothing like it before."""

    def row(condition, value, less=None):
        return {
            "condition": condition,
            "raw": estimate(0.1, 0.0, 0.2),
            "calibrated": estimate(value, value - 0.05, value + 0.05, groups=groups),
            "gap_recovered": estimate(gap, 0.5, 1.0) if condition == "found" else None,
            "found_less_this": less and {"estimate": less, "p_value": 0.01},
        }

    return {
        "model": "small",
        "calibration": "batch",
        "rows": [
            row("zero_shot", 0.5, estimate(0.24, 0.15, 0.33, groups=groups)),
            row("found", 0.74),
            row("golden", 0.8, estimate(-0.06, -0.12, 0.01, groups=groups)),
        ],
        "label_accuracy": {"estimate": estimate(0.9, 0.8, 0.95), "curves": [[[1, 8, 0.5], [2, 9, 0.7], [3, 10, 0.9]]]},
    }


FACTS = {"preset": "laptop", "search": "ensemble", "calibration": "batch", "command": "bash x.sh", "date": "2026-01-01"}


@pytest.mark.parametrize(
    ("rule", "lower", "upper", "said"),
    [
        ("above", 0.01, 0.2, "holds"),
        ("above", -0.2, -0.01, "does not hold"),
        ("above", 0.0, 0.2, "undecided"),
        ("below", -0.2, -0.01, "holds"),
        ("below", 0.01, 0.2, "does not hold"),
        ("not_below", -0.04, 0.3, "holds"),
        ("not_below", -0.04, -0.01, "holds"),
        ("not_below", -0.06, 0.01, "undecided"),
        ("not_below", -0.3, -0.01, "does not hold"),
        ("not_above", -0.3, 0.04, "holds"),
        ("not_above", 0.01, 0.3, "does not hold"),
        ("chance", 0.41, 0.55, "holds"),
        ("chance", 0.51, 0.58, "does not hold"),
        ("chance", 0.3, 0.55, "undecided"),
        ("above", None, None, "cannot be tested at this size"),
    ],
)
def test_a_rule_reads_an_interval(summary, rule, lower, upper, said):
    figure = {"lower": lower, "upper": upper, "groups": 20}
    assert summary.verdict(figure, rule) == said
    assert summary.verdict(figure | {"groups": 19}, rule) == "cannot be tested at this size"


def test_a_reference_other_than_zero(summary):
    figure = {"lower": 0.45, "upper": 0.6, "groups": 30}
    assert summary.verdict(figure, "above", reference=0.5) == "undecided"
    assert summary.verdict(figure, "above", reference=0.4) == "holds"


def test_a_suite_becomes_rows_beside_the_papers_and_verdicts(summary):
    rows = summary.suite_rows({"truthfulqa": evaluation(), "gsm8k": evaluation(groups=12)})
    made = summary.summarize("figure_1_3", rows, **FACTS)
    found = next(row for row in made["rows"] if row["condition"] == "found" and row["measure"] == "accuracy")
    assert (found["value"], found["lower"], found["n"], found["seeds"]) == (0.74, pytest.approx(0.69), 100, 3)
    assert found["paper"] == {"value": 0.909, "model": "Llama 3.1 70B", "source": "figure 3, drawing"}
    said = {(row["says"], row["task"]): (row["verdict"], row["why"]) for row in made["findings"]}
    small = ("cannot be tested at this size", "fewer than 20 groups, or no interval")
    assert said == {
        ("Found labels are better than zero-shot", "truthfulqa"): ("holds", ""),
        ("Found labels are better than zero-shot", "gsm8k"): small,
        ("Found labels are as good as golden ones", "truthfulqa"): ("undecided", ""),
        ("Found labels are as good as golden ones", "gsm8k"): small,
    }
    missing = [row for row in made["rows"] if row["value"] is None]
    assert {(row["task"], row["condition"]) for row in missing} == {
        ("truthfulqa", "zero_shot_chat"),
        ("gsm8k", "zero_shot_chat"),
        *(("alpaca", condition) for condition in ("zero_shot", "zero_shot_chat", "found", "human")),
    }
    table = summary.table(made)
    line = (
        "| truthfulqa | small | in context | found | accuracy | 0.909 (Llama 3.1 70B; figure 3, drawing) | "
        "0.740 [0.690, 0.790] | 100 | 3 |"
    )
    assert line in table
    assert "search ensemble (the paper's own is icm)" in table
    assert table.count("not run") == len(missing)


def test_where_golden_labels_are_no_better_nothing_can_be_as_good(summary):
    rows = summary.suite_rows({"truthfulqa": evaluation(gap=None)})
    judged = summary.summarize("figure_1_3", rows, **FACTS)["findings"]
    assert [(row["verdict"], row["why"]) for row in judged if row["condition"] == "found less golden"] == [
        ("cannot be tested at this size", "golden labels are not clearly better than zero-shot")
    ]


def test_a_curve_is_read_at_quarters_of_its_changes(summary):
    rows = summary.curve_rows("truthfulqa", evaluation())
    assert [(row["condition"], row["value"], row["n"]) for row in rows] == [
        ("found, after 25% of the changes", 0.5, 8),
        ("found, after 50% of the changes", 0.7, 9),
        ("found, after 75% of the changes", 0.7, 9),
    ]


def test_an_ablation_is_judged_by_its_differences_to_the_base(summary):
    def variant(factor, value, less):
        return {
            "variant": {"factor": factor, "value": value},
            "label_accuracy": estimate(0.6, 0.5, 0.7),
            "less_base": less and {"estimate": less, "p_value": 0.1},
            "largest_share": 0.5,
        }

    rows = summary.ablation_rows(
        {"base": {"task": "truthfulqa", "model": "small"}},
        {
            "results": [
                variant("base", "", None),
                variant("init", "golden", estimate(0.01, -0.02, 0.04)),
                variant("init", "wrong", estimate(-0.2, -0.3, -0.1)),
            ]
        },
    )
    made = summary.summarize("figure_9", rows, **FACTS)
    assert [row["verdict"] for row in made["findings"]] == ["holds", "holds"]
    assert [row["condition"] for row in made["findings"]] == ["init=golden less base", "init=wrong less base"]


def test_reward_models_are_compared_from_the_found_one_on(summary):
    def row(model, value):
        return {"model": model, "subset": None, "accuracy": estimate(value, value - 0.1, value + 0.1)}

    gain = {"model": "out/rm-golden", "less_first": {"estimate": estimate(0.1, 0.02, 0.3)}}
    result = {"rows": [row("out/rm-found", 0.5), row("out/rm-golden", 0.6)], "gains": [gain]}
    rows = summary.reward_rows("bundled", result)
    assert {row["model"] for row in rows} == {"bundled"}
    made = summary.summarize("figure_7", rows, **FACTS)
    (finding,) = made["findings"]
    assert [finding[key] for key in ("condition", "value", "lower", "upper")] == [
        "found less golden",
        -0.1,
        -0.3,
        -0.02,
    ]
    assert finding["verdict"] == "does not hold"


def test_counts_over_seeds_have_students_interval(summary):
    figure = summary._over_seeds([2.0, 3.0, 4.0], n=8)
    assert figure["value"] == 3.0
    assert figure["upper"] == pytest.approx(3 + 4.302653 / 3**0.5, abs=1e-5)  # t(0.975, 2) * 1 / sqrt(3)
    assert figure["lower"] == pytest.approx(3 - 4.302653 / 3**0.5, abs=1e-5)
    assert summary._over_seeds([2.0], n=8)["lower"] is None


def test_an_unknown_figure_and_a_folder_without_results_are_refused(summary, tmp_path):
    with pytest.raises(ValueError, match="unknown figure 'figure_2'"):
        summary.summarize("figure_2", [{}], **FACTS)
    with pytest.raises(ValueError, match="nothing was measured for figure_8"):
        summary.summarize("figure_8", summary.measured(tmp_path), **FACTS)


def test_the_page_has_every_finding_with_its_verdict_or_not_run(summary, index, tmp_path):
    made = summary.summarize("figure_8", summary.suite_rows({"truthfulqa": evaluation()}), **FACTS)
    smoke = made | {"preset": "smoke"}
    rows = summary.suite_rows({"truthfulqa": evaluation()})
    real = summary.summarize("figure_1_3", rows, **FACTS)
    for name, one in {"smoke": smoke, "laptop": real, "other": {"rows": []}}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(one))
    summaries = index.read_summaries(tmp_path)
    assert list(summaries) == ["laptop.json"]
    page = index.page(summaries)
    line = (
        "| Found labels are better than zero-shot | Figures 1 and 3 | +0.307 (truthfulqa) | truthfulqa, small, in context | "
        "0.240 [0.150, 0.330] | 100, 50, 3 | holds | `laptop.json` |"
    )
    assert line in page
    lacks = "not run: no data set here has human votes on posts"
    assert (
        f"| Found labels are better than human ones | Figure 6 | about 0.8 against 0.6 |  |  |  | {lacks} |  |" in page
    )
    for figure in summary.read_paper()["figures"].values():
        for finding in figure["findings"]:
            assert f"| {finding['says']} |" in page


def test_the_committed_page_is_what_the_committed_summaries_make(index):
    folder = ROOT / "docs" / "results"
    page = (folder / "index.md").read_text(encoding="utf-8")
    assert page == index.page(index.read_summaries(folder)), "run: python examples/paper/index.py docs/results"


def test_every_interval_on_the_committed_page_stands_in_a_json_file():
    """Without the code that makes the page: each value and both ends, rounded, are one figure of one of the files."""
    folder = ROOT / "docs" / "results"
    known = set()

    def collect(values):
        if isinstance(values, dict):
            if {"value", "lower", "upper"} <= values.keys() and isinstance(values["value"], float):
                ends = [values[key] for key in ("value", "lower", "upper")]
                known.add(tuple("none" if end is None else f"{end:.3f}" for end in ends))
            for inner in values.values():
                collect(inner)
        elif isinstance(values, list):
            for inner in values:
                collect(inner)

    for file in folder.glob("*.json"):
        collect(json.loads(file.read_text(encoding="utf-8")))
    page = (folder / "index.md").read_text(encoding="utf-8")
    shown = re.findall(r"\| (-?\d+\.\d{3}) \[(-?\d+\.\d{3}), (-?\d+\.\d{3})\] \|", page)
    assert shown
    assert [figure for figure in shown if figure not in known] == []
