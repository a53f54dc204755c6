"""`elicitor watch` as a person uses it: a real search, its real server and a real browser."""

import json
import re
import subprocess
import sys
import time

import pytest
from processes import running

pytestmark = pytest.mark.slow

PIPE = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


def test_a_search_is_paused_and_its_labels_are_marked(visit, data, tmp_path):
    run = tmp_path / "run"
    # Slow enough to be paused by hand: about twenty seconds.
    label = [
        "label",
        str(data[0]),
        "--task",
        "sentiment",
        "--search",
        "icm",
        "--model",
        "fake:delay=0.2,noise=1",
        "--output-dir",
        str(run),
    ]
    with running([sys.executable, "-m", "elicitor", *label], **PIPE) as searching:
        while not (run / "checkpoint.json").exists():
            assert searching.poll() is None
            time.sleep(0.01)
        with running([sys.executable, "-m", "elicitor", "watch", str(run)], **PIPE) as server:
            page = visit(re.search(r"http://\S+/", server.stdout.readline()).group()).page
            page.wait_for_selector("#state:has-text('running')")
            page.click("[data-action=pause]")
            page.wait_for_selector("#state:has-text('paused')")
            held = (run / "events.jsonl").read_bytes()
            page.wait_for_timeout(700)
            assert (run / "events.jsonl").read_bytes() == held
            page.click("[data-action=resume]")
            page.wait_for_selector("#state:has-text('finished')", timeout=120_000)
            assert searching.wait(60) == 0
            page.wait_for_selector("html[data-ready]")
            # Each of the two strata needs a mark before there is an estimate.
            for key in "rwr":
                page.keyboard.press("n")
                page.wait_for_selector("#detail h3")
                page.keyboard.press(key)
                page.wait_for_selector("#detail [aria-pressed=true]")
            page.wait_for_selector("#estimate:has-text('n = 3 (3 marked)')")
            marks = [json.loads(line) for line in (run / "review.jsonl").read_text().splitlines()]
            assert [mark["verdict"] for mark in marks] == ["right", "wrong", "right"]
            assert len({mark["id"] for mark in marks}) == 3
