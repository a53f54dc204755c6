import csv
import io

from elicitor.backends.base import Cost
from elicitor.evaluation import ConditionResult, Evaluation
from elicitor.metrics import Difference, Estimate
from elicitor.tables import (
    HEADINGS,
    caption,
    evaluation_markdown,
    judged,
    overview_markdown,
    row_cells,
    to_csv,
    to_latex,
)


def estimate(value, spread=0.1):
    return Estimate(value, value - spread, value + spread, n=40, groups=20, seeds=3, seed_sd=0.02)


def row(condition, value, **changes):
    fields = {
        "demonstrations": 8,
        "label_accuracy": 0.75,
        "raw": estimate(value),
        "calibrated": estimate(value + 0.05),
        "auroc": None,
        "calibration_error": estimate(0.2),
        "gap_recovered": None,
        "found_less_this": None,
        "cost": Cost(40, 12345, 10, 1.5),
    }
    return ConditionResult(condition=condition, **(fields | changes))


def evaluation(*rows, calibration="none", notes=()):
    return Evaluation(
        "a_task", "a|model", 2, list(rows), None, Cost(1, 99, 0, 3.0), calibration, [0, 1, 2], list(notes)
    )


RESULT = evaluation(
    row("zero_shot", 0.5, demonstrations=0, label_accuracy=None),
    row("found", 0.8, auroc=estimate(0.9), gap_recovered=Estimate(None, None, None, 40, 20, 3)),
    row("golden", 0.85, found_less_this=Difference(estimate(-0.05), 0.3125)),
    notes=["one example left out"],
)


def test_cells_stand_under_their_headings():
    cells = [dict(zip(HEADINGS, row_cells(one), strict=True)) for one in RESULT.rows]
    assert cells[0]["label acc."] == cells[0]["AUROC"] == ""
    assert cells[1]["raw"] == "0.800 [0.700, 0.900]"
    assert cells[1]["AUROC"] == "0.900 [0.800, 1.000]"
    assert cells[1]["gap recovered"] == "undefined"
    assert (cells[2]["found less this"], cells[2]["p"]) == ("-0.050 [-0.150, 0.050]", "0.312")
    assert (cells[2]["tokens"], cells[2]["seconds"]) == ("12,345", "1.5")


def test_markdown_has_one_line_a_condition_and_says_what_it_is_about():
    lines = evaluation_markdown(RESULT).splitlines()
    assert lines[0] == caption(RESULT)
    assert "n = 40 in 20 groups; seeds 0, 1, 2; calibration of the run: none; search: 99 tokens, 3 s" in lines[0]
    assert {line.count("|") for line in lines if line.startswith("|")} == {len(HEADINGS) + 1}
    assert lines[-1] == "- one example left out"


def test_csv_keeps_every_digit():
    rows = list(csv.DictReader(io.StringIO(to_csv([RESULT], ["first, task"]))))
    assert [one["condition"] for one in rows] == ["zero_shot", "found", "golden"]
    assert rows[0]["name"] == "first, task"
    assert float(rows[1]["raw"]) == 0.8
    assert (rows[1]["raw_lower"], rows[1]["raw_seed_sd"]) == (str(0.8 - 0.1), "0.02")
    assert (rows[1]["gap_recovered"], rows[0]["auroc"]) == ("", "")
    assert float(rows[2]["p_value"]) == 0.3125
    assert (rows[2]["n"], rows[2]["groups"], rows[2]["seeds"]) == ("40", "20", "3")


def test_latex_escapes_names_and_leaves_gaps_where_a_condition_was_left_out():
    other = evaluation(row("zero_shot", 0.4))
    lines = to_latex([RESULT, other], ["a_task", "50% & more"]).splitlines()
    assert r"condition & a\_task & 50\% \& more \\" in lines
    assert r"zero\_shot & 0.500 {\scriptsize [0.400, 0.600]} & 0.400 {\scriptsize [0.300, 0.500]} \\" in lines
    assert r"found & 0.800 {\scriptsize [0.700, 0.900]} & -- \\" in lines


def test_overviews_go_by_the_calibration_of_the_run():
    calibrated = evaluation(row("found", 0.8), calibration="batch")
    assert judged(RESULT, "found").value == 0.8
    assert judged(calibrated, "found").value == 0.8 + 0.05
    assert judged(calibrated, "golden") is None
    table = overview_markdown([RESULT, calibrated], ["x", "y|z"])
    assert table.splitlines()[0] == r"| condition | x | y\|z |"
    assert "| found | 0.800 [0.700, 0.900] | 0.850 [0.750, 0.950] |" in table
    assert "| golden | 0.850 [0.750, 0.950] |  |" in table
