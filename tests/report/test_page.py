import base64
import hashlib
import json
import re
import sys
from html.parser import HTMLParser

import pytest

from elicitor.errors import ConfigError
from elicitor.report import gather, page_data, render_page, write_page


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text of scripts and styles."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.inside, self.open = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside.append("")
        self.open = True

    def handle_endtag(self, tag):
        self.open = False

    def handle_data(self, text):
        if self.open:
            self.inside[-1] += text

    def named(self, tag):
        return [
            (attributes, text) for (name, attributes), text in zip(self.tags, self.inside, strict=True) if name == tag
        ]


@pytest.fixture(scope="module")
def page(finished, data):
    return render_page(gather([finished], gold=data[0]))


def policy(page):
    (found,) = [a["content"] for a, _ in Elements(page).named("meta") if a.get("http-equiv")]
    return dict(rule.split(" ", 1) for rule in found.split("; "))


def test_the_policy_allows_these_scripts_and_no_network(page):
    rules = policy(page)
    assert rules["default-src"] == rules["connect-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert "unsafe" not in " ".join(rules.values())
    scripts = [text for attributes, text in Elements(page).named("script") if attributes.get("type") == "module"]
    assert len(scripts) == 2
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts]
    assert rules["script-src"].split() == hashes


def test_hostile_text_makes_no_element_and_no_attribute(page):
    elements = Elements(page)
    assert not {tag for tag, _ in elements.tags} & {"img", "svg", "i", "b", "iframe", "object", "link", "base"}
    assert not [name for _, attributes in elements.tags for name in attributes if name.startswith("on")]
    assert not [a for _, a in elements.tags if "src" in a or str(a.get("href", "#"))[0] != "#"]
    assert "window.hacked" not in re.sub(r'(?s)<script type="application/json".*?</script>', "", page)


def test_the_embedded_data_is_what_a_server_would_send(page, finished, data):
    ((_, text),) = [one for one in Elements(page).named("script") if one[0].get("type") == "application/json"]
    assert not set("<>&") & set(text)
    assert json.loads(text) == json.loads(json.dumps(page_data(gather([finished], gold=data[0]))))


def test_hidden_characters_are_written_out_but_ids_stay(finished):
    values = page_data(gather([finished]))
    (run,) = values["runs"]
    assert "⟨U+202E⟩100⟨U+202C⟩ ⟨U+0007⟩ to⟨U+200B⟩ day" in run["texts"][3][0]
    assert run["ids"][0] == 'e0"><svg onload=window.hacked=1>'
    assert run["names"] is None


def test_a_figure_says_n_seed_and_interval(finished, data):
    charts = {chart["id"]: chart["caption"] for chart in page_data(gather([finished], gold=data[0]))["charts"]}
    assert set(charts) == {
        "conditions-0", "label-accuracy", "utility", "shares", "acceptance", "temperature", "margins-0", "reliability-0",
    }  # fmt: skip
    for caption in charts.values():
        assert re.search(r"n = \d|\[\d", caption), caption
        assert re.search("interval|an exact count|a setting", caption), caption
    for name in ("utility", "shares", "acceptance", "margins-0", "reliability-0", "conditions-0"):
        assert "seed" in charts[name]


def test_without_gold_it_says_so(finished, tmp_path):
    views = gather([finished])
    run = views.runs[0]
    assert not run.reliability
    page = render_page(views)
    assert "needs gold: <code>elicitor report RUN --gold FILE</code>" in page


def test_a_saved_page_has_nothing_live(page, finished):
    for word in ("EventSource", "data-action", "data.json", "Stop safely", 'id="state"', "fetch("):
        assert word not in page.replace(vega(page), "")
    live = render_page(gather([finished]), live=True)
    assert policy(live)["connect-src"] == "'self'"
    for word in ("EventSource", "data-action", "data.json", "Stop safely", 'id="state"', "fetch("):
        assert word in live.replace(vega(live), "")


def vega(page):
    """The library, which can do more than the policy lets it."""
    return max((text for _, text in Elements(page).named("script")), key=len)


def test_a_page_is_written_whole_or_not_at_all(finished, tmp_path):
    views = gather([finished])
    write_page(views, tmp_path / "new" / "page.html")
    assert (tmp_path / "new" / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_page(views, tmp_path / "file" / "page.html")


def test_missing_libraries_are_named(finished, monkeypatch):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(ConfigError, match=r"pip install 'elicitor\[report\]'"):
        render_page(gather([finished]))
