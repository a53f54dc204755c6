"""The live page in a real browser, against a server that says what it is told to."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from elicitor.report import gather, page_data, render_page

pytestmark = pytest.mark.slow


class Stub:
    """What `elicitor watch` serves, its state set by the test."""

    def __init__(self, views):
        self.page = render_page(views, live=True)
        self.data = page_data(views, live=True)
        self.news = {
            "state": "running", "iteration": 3, "utility": 1.5, "labelled": 9, "n": 24, "tokens": 1234, "seconds": 5.0,
        }  # fmt: skip
        self.actions, self.marks, self.fetched = [], [], 0
        self.closing = threading.Event()

    def review(self):
        right = sum(mark["verdict"] == "right" for mark in self.marks)
        value = right / len(self.marks) if self.marks else None
        estimate = None if value is None else {"value": value, "lower": 0.1, "upper": 1.0, "n": len(self.marks)}
        return {"marks": self.marks, "proposed": ["e7", "e9"], "estimate": estimate}


@pytest.fixture
def stub(finished):
    return Stub(gather([finished]))


@pytest.fixture
def address(stub):
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def answer(self, text, kind="application/json"):
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(text.encode())

        def do_GET(self):
            match self.path.removeprefix("/token/"):
                case "":
                    self.answer(stub.page, "text/html; charset=utf-8")
                case "data.json":
                    stub.fetched += 1
                    self.answer(json.dumps(stub.data))
                case "review":
                    self.answer(json.dumps(stub.review()))
                case "events":
                    self.send_response(200)
                    self.send_header("Content-Type", "text/event-stream")
                    self.end_headers()
                    while not stub.closing.is_set():
                        try:
                            self.wfile.write(f"event: progress\ndata: {json.dumps(stub.news)}\n\n".encode())
                            self.wfile.flush()
                        except OSError:
                            return
                        time.sleep(0.2)
                case _:
                    self.answer("", "image/x-icon")

        def do_POST(self):
            values = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/token/control":
                stub.actions.append(values["action"])
                stub.news["state"] = {"pause": "paused", "resume": "running", "stop": "stopping"}[values["action"]]
                self.answer(json.dumps({"state": stub.news["state"]}))
            else:
                stub.marks.append({**values, "label": "no", "time": "now"})
                self.answer(json.dumps(stub.review()))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/token/"
    stub.closing.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_state_line_and_its_buttons(visit, address, stub):
    page = visit(address).page
    page.wait_for_selector("#state:has-text('9 of 24 labelled, iteration 3 · U 1.50 · 1,234 tokens, 5 s')")
    page.click("[data-action=pause]")
    page.wait_for_selector("#state:has-text('paused')")
    assert page.locator("[data-action=pause]").is_disabled()
    page.click("[data-action=resume]")
    page.wait_for_selector("#state:has-text('running')")
    page.click("[data-action=stop]")
    page.wait_for_selector("#state:has-text('stopping')")
    assert stub.actions == ["pause", "resume", "stop"]


def test_figures_and_numbers_follow_the_search(visit, address, stub):
    page = visit(address).page
    stub.data["tiles"][2]["value"] = "99.99"
    for chart in stub.data["charts"]:
        if chart["id"] == "utility":
            chart["caption"] = "n = 24, news"
            chart["spec"]["data"]["values"] = chart["spec"]["data"]["values"][:2]
    page.wait_for_selector(".tile-value:has-text('99.99')")
    page.wait_for_selector("#figure-utility figcaption:has-text('n = 24, news')")
    page.wait_for_function("document.querySelectorAll('#figure-utility svg').length === 1")


def test_data_is_asked_for_at_most_every_two_seconds(visit, address, stub):
    page = visit(address).page
    page.wait_for_timeout(3000)
    assert 1 <= stub.fetched <= 3


def test_marks_are_sent_and_the_estimate_runs_along(visit, address, stub):
    page = visit(address).page
    page.wait_for_selector("#estimate:has-text('none yet (0 marked)')")
    page.keyboard.press("n")
    page.wait_for_selector("#detail h3:has-text('e7')")
    page.keyboard.press("r")
    page.wait_for_selector("#estimate:has-text('100.0%, 95% interval 10.0 to 100.0%, n = 1 (1 marked)')")
    page.wait_for_selector("#detail [data-verdict=right][aria-pressed=true]")
    page.keyboard.press("n")
    page.wait_for_selector("#detail h3:has-text('e9')")
    page.keyboard.press("w")
    page.wait_for_selector("#estimate:has-text('50.0%')")
    assert [(mark["id"], mark["verdict"]) for mark in stub.marks] == [("e7", "right"), ("e9", "wrong")]
    page.keyboard.press("n")
    page.wait_for_selector("#estimate:has-text('Nothing more is proposed')")


def test_letters_typed_into_the_search_are_no_marks(visit, address, stub):
    page = visit(address).page
    page.keyboard.press("n")
    page.wait_for_selector("#detail h3:has-text('e7')")
    page.focus("#by-search")
    page.keyboard.type("rw n")
    assert page.input_value("#by-search") == "rw n"
    page.wait_for_timeout(300)
    assert stub.marks == []


def test_all_that_a_live_page_asks_for_is_its_own_server(visit, address, stub):
    seen = visit(address)
    seen.page.keyboard.press("n")
    seen.page.wait_for_timeout(500)
    assert {url.split("?")[0] for url in seen.asked if not url.endswith("favicon.ico")} == {
        address + name for name in ("", "events", "review", "data.json")
    }


def test_the_end_of_a_search_brings_a_new_page(visit, address, stub):
    page = visit(address).page
    page.wait_for_selector("#state:has-text('running')")
    stub.page = stub.page.replace("<h1>", "<h1>after the end: ")
    stub.news["state"] = "finished"
    page.wait_for_selector("h1:has-text('after the end')")
    page.wait_for_selector("#state:has-text('finished')")
    page.wait_for_timeout(600)
    assert page.locator("h1").count() == 1
