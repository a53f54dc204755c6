"""A run in the fake world whose texts are hostile, with gold, an evaluation and an audit; and a real browser."""

import json
import os
import shutil

import pytest

from elicitor.audit import audit
from elicitor.backends.fake import FakeBackend, concept_label
from elicitor.config import build_config
from elicitor.evaluation import evaluate
from elicitor.labelling import run

TASK = {
    "name": "hostile",
    "template": "{text}:",
    "labels": {"no": " no", "yes<i>": " yes"},
    "group": "group",
    "key": "key",
    "constraint": "negation",
    "gold": "gold",
}
HOSTILE = [
    "<script>window.hacked = 1</script>",
    "<img src=x onerror=window.hacked=1>",
    "</script><script>window.hacked = 1</script><!--",
    "pay \u202e100\u202c \u0007 to\u200b day",
    "{{ 7 * 7 }} {% raw %} ${7 * 7}",
    "line one\nline two\tand a tab \u2028 end",
]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows(numbers):
    made = []
    for i in numbers:
        text = f"text {i} {HOSTILE[i % len(HOSTILE)]}"
        gold = ["no", "yes<i>"][concept_label(f"{text}:", 2)]
        group = f"g{i // 2}" if i >= 2 else "<b onclick=window.hacked=1>g0"
        name = f"e{i}" if i else 'e0"><svg onload=window.hacked=1>'
        made.append({"id": name, "text": text, "group": group, "key": str(i % 2), "gold": gold})
    return made


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Labelled file and test file, both with gold."""
    folder = tmp_path_factory.mktemp("data")
    return write(folder / "train.jsonl", rows(range(24))), write(folder / "test.jsonl", rows(range(100, 130)))


@pytest.fixture(scope="session")
def finished(tmp_path_factory, data):
    """Folder of a finished run with an evaluation and an audit."""
    folder = tmp_path_factory.mktemp("runs") / "a <b>run"
    settings = build_config(flags={"data": str(data[0]), "task": TASK, "model": "fake:prior=1", "search": "icm"})
    done = run(settings, folder)
    evaluate(done, data[1], seeds=(0, 1), backend=FakeBackend(prior=1))
    audit(done, backend=FakeBackend(prior=1), orders=2, permutations=50)
    return folder


# Not of the session: while Playwright is at work no other test of this thread can run an event loop of its own.
@pytest.fixture(scope="module")
def browser():
    """A real Chromium."""
    executable = os.environ.get("ELICITOR_CHROMIUM") or shutil.which("chromium")
    if not executable:
        if os.environ.get("CI"):
            pytest.fail("no chromium: run .ci/chromium")
        pytest.skip("no chromium: run .ci/chromium, or name one in ELICITOR_CHROMIUM")
    if not os.environ.get("CI"):
        pytest.importorskip("playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield started
        started.close()


class Visit:
    """A page with what it said and what it asked for."""

    def __init__(self, page):
        self.page = page
        self.said, self.asked = [], []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def open(self, url):
        self.page.goto(url)
        self.page.wait_for_selector("html[data-ready]", timeout=60_000)
        return self.page


@pytest.fixture
def visit(browser):
    """Opens addresses in pages of a given width; says afterwards that nothing was complained of."""
    opened = []

    def start(url, *, width=1280, scheme="light"):
        seen = Visit(browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme))
        opened.append(seen)
        seen.open(url)
        return seen

    yield start
    for seen in opened:
        assert seen.said == []
        seen.page.close()
