import json
import shutil
import sys

import pytest

from elicitor import cli_report
from elicitor.report import gather


def test_it_writes_a_page_and_says_where(elicitor, finished, data, tmp_path):
    code, out, err = elicitor("report", finished, "--gold", data[0], "-o", "page.html", "--examples", 5)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "note: a <b>run: the table holds the first 5 of 24 examples; figures are of all"
    assert out.splitlines()[-1].startswith("report: page.html (1.0 MB")
    assert "Content-Security-Policy" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_json_has_the_figures(elicitor, finished, data):
    code, out, _ = elicitor("report", finished, "--gold", data[0], "-o", "page.html", "--json")
    values = json.loads(out)
    assert code == 0
    assert values["report"] == "page.html"
    expected = gather([finished], gold=data[0]).runs[0].label_accuracy
    assert values["runs"][0]["label_accuracy"]["value"] == expected.value


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere is no folder"),
        (["RUN", "RUN", "-o", "x.html"], "given twice"),
        (["RUN", "nowhere"], "no common place for the page; add -o FILE.html"),
        (["RUN", "--examples", "0"], "--examples got 0"),
        (["RUN", "--gold", "none.jsonl", "-o", "x.html"], "none.jsonl"),
        (["RUN", "-o", "x.html", "--gold", "DATA", "--gold-column", "truth"], "no gold column 'truth'"),
    ],
)
def test_mistakes_are_one_line(elicitor, finished, data, arguments, words):
    given = [{"RUN": finished, "DATA": data[0]}.get(one, one) for one in arguments]
    code, out, err = elicitor("report", *given)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err


def test_quickstart_ends_with_a_report_or_says_why_not(finished, data, tmp_path, monkeypatch):
    folder = shutil.copytree(finished, tmp_path / "run")
    assert cli_report.report_line(folder, gold=str(data[0])) == f"report: {folder / 'report.html'}"
    assert (folder / "report.html").stat().st_size > 100_000
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    line = cli_report.report_line(folder, gold=str(data[0]))
    assert line == "no report: the report needs jinja2 and vl-convert; pip install 'elicitor[report]'"
