"""Pause, resume and stop from another process."""

import json
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from elicitor import control
from elicitor.config import build_config
from elicitor.control import Stopped, between_steps, controlled, on_pause, pending, request, state_of, working_time
from elicitor.errors import ConfigError
from elicitor.files import hold
from elicitor.labelling import run


@pytest.fixture
def busy(tmp_path):
    """A folder whose lock is held."""
    with hold(tmp_path / ".lock"):
        yield tmp_path


def clock(sleep):
    """Module time as the control sees it, waiting in another way."""
    return SimpleNamespace(sleep=sleep, monotonic=time.monotonic)


def test_nothing_asked_is_nothing_done(busy):
    with controlled(busy):
        between_steps()
        assert state_of(busy) == "running"
        assert sorted(path.name for path in busy.iterdir()) == [".lock"]
    between_steps()


def test_a_stop_ends_the_work_after_the_step(busy):
    with controlled(busy):
        assert request(busy, "stop") == "stopping"
        with pytest.raises(Stopped):
            between_steps()
    assert not (busy / "control.json").exists()


def test_a_stop_that_is_taken_back_does_not_stop(busy):
    with controlled(busy):
        request(busy, "stop")
        assert request(busy, "resume") == "running"
        between_steps()


def test_what_an_earlier_process_left_is_dropped(busy):
    (busy / "control.json").write_text('{"action": "stop"}')
    (busy / ".paused").touch()
    with controlled(busy):
        between_steps()
        assert state_of(busy) == "running"


def test_a_pause_holds_the_clock_tells_and_ends(busy, monkeypatch):
    told, states = [], []

    def sleep(_):
        states.append((state_of(busy), pending(busy)))
        time.sleep(0.05)
        if len(states) == 3:
            request(busy, "resume")

    monkeypatch.setattr(control, "time", clock(sleep))
    with controlled(busy), on_pause(told.append):
        assert request(busy, "pause") == "running"
        assert pending(busy) == "pause"
        before, really = working_time(), time.monotonic()
        between_steps()
        assert time.monotonic() - really >= 0.15
        assert working_time() - before < time.monotonic() - really - 0.1
    assert told == [True, False]
    assert states == [("paused", None)] * 3
    assert not (busy / ".paused").exists()


def test_a_stop_ends_a_pause(busy, monkeypatch):
    monkeypatch.setattr(control, "time", clock(lambda _: request(busy, "stop")))
    with controlled(busy):
        request(busy, "pause")
        with pytest.raises(Stopped):
            between_steps()


def test_nested_folders_are_each_obeyed(busy):
    inner = busy / "inner"
    inner.mkdir()
    with hold(inner / ".lock"), controlled(busy), controlled(inner):
        for folder in (busy, inner):
            request(folder, "stop")
            with pytest.raises(Stopped):
                between_steps()
            request(folder, "resume")
        between_steps()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"action": "sing"}', '{"action": 3}', "\udcff"])
def test_a_file_that_says_nothing_known_is_passed_over(busy, content):
    (busy / "control.json").write_text(content, errors="surrogateescape")
    with controlled(busy):
        (busy / "control.json").write_text(content, errors="surrogateescape")
        between_steps()


def test_nobody_can_be_asked_where_nothing_runs(tmp_path):
    with pytest.raises(ConfigError, match="nothing is running"):
        request(tmp_path, "pause")
    assert state_of(tmp_path) == "idle"
    (tmp_path / "metrics.json").touch()
    assert state_of(tmp_path) == "finished"
    assert not (tmp_path / "control.json").exists()


def command(*words):
    return [sys.executable, "-m", "elicitor", *map(str, words)]


def label(folder, output, *more, search="icm"):
    # The steps of ensemble are few.
    delay = 0.3 if search == "ensemble" else 0.05
    words = ["label", folder / "x.jsonl", "--task", "sentiment", "--model", f"fake:delay={delay},noise=1.5"]
    return [*words, "--search", search, "--batch-size", "12", "--output-dir", output, *more]


def start(*words):
    return subprocess.Popen(
        command(*words),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def events(output):
    """Events without times and without tokens that a restart computes once more."""
    changing = {"seconds", "tokens_computed", "tokens_reused"}
    lines = (output / "events.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in changing} for line in lines]


def until(condition, process):
    """Wait for something that the process is to bring about."""
    while not condition():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


def test_a_run_that_waits_has_saved_its_last_step(tmp_path, monkeypatch):
    monkeypatch.setattr("elicitor.runs._SAVE_SECONDS", 3600)
    (tmp_path / "x.jsonl").write_text("".join(f'{{"id": "e{i}", "text": "text {i}"}}\n' for i in range(8)))
    flags = {"data": str(tmp_path / "x.jsonl"), "task": "sentiment", "model": "fake:noise=1.5", "search": "icm"}
    output = tmp_path / "run"
    made, saved = [], []

    def pause_after_four(step):
        made.append(step.state.iteration)
        saved.append(json.loads((output / "checkpoint.json").read_text())["state"]["iteration"])
        if len(made) == 4:
            request(output, "pause")

    def sleep(_):
        saved.append(json.loads((output / "checkpoint.json").read_text())["state"]["iteration"])
        request(output, "resume")

    monkeypatch.setattr(control, "time", clock(sleep))
    run(build_config(flags=flags), output, observer=pause_after_four)
    assert made[:4] == [0, 1, 2, 3]
    assert saved[:6] == [0, 0, 0, 0, 3, 3]


@pytest.mark.parametrize("search", ["icm", "gibbs", "ensemble"])
def test_a_run_that_is_paused_stopped_and_resumed_ends_as_an_unbroken_one(elicitor, tmp_path, search):
    rows = [{"id": f"e{i}", "text": f"The {i}th thing was {'good' if i % 3 else 'bad'}."} for i in range(16)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert elicitor(*label(tmp_path, whole, search=search))[0] == 0

    with start(*label(tmp_path, broken, search=search)) as process:
        until(lambda: (broken / "checkpoint.json").exists(), process)
        assert elicitor("control", broken, "pause", "--json")[0] == 0
        until(lambda: state_of(broken) == "paused", process)
        seen = (broken / "events.jsonl").read_bytes()
        time.sleep(0.5)
        assert (broken / "events.jsonl").read_bytes() == seen
        assert elicitor("control", broken) == (0, "paused\n", "")
        code, out, _ = elicitor("control", broken, "resume")
        assert (code, out in ("paused, asked to resume\n", "running\n")) == (0, True)
        until(lambda: (broken / "events.jsonl").read_bytes() != seen, process)
        assert elicitor("control", broken, "stop")[:2] == (0, "stopping\n")
        _, err = process.communicate()
    assert process.returncode == 130
    assert "paused; 'elicitor control FOLDER resume' goes on" in err
    assert err.endswith("stopped; the same command with --resume goes on from where it was\n")
    assert "Traceback" not in err
    assert state_of(broken) == "idle"
    assert not (broken / "metrics.json").exists()

    # A stop that was asked for when it had ended already.
    (broken / "control.json").write_text('{"action": "stop"}')
    code, _, err = elicitor(*label(tmp_path, broken, "--resume", search=search))
    assert code == 0, err
    assert (broken / "labels.jsonl").read_bytes() == (whole / "labels.jsonl").read_bytes()
    assert events(broken) == events(whole)
    assert state_of(broken) == "finished"


def test_mistakes_are_one_line(elicitor, tmp_path):
    assert "holds no run and no training" in elicitor("control", tmp_path, "pause")[2]
    (tmp_path / "manifest.json").write_text("{}")
    for words, message in ((("sing",), "use pause, resume, stop"), (("stop",), "nothing is running")):
        code, out, err = elicitor("control", tmp_path, *words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert message in err
    assert json.loads(elicitor("control", tmp_path, "--json")[1]) == {"state": "idle", "asked": None}


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b"\xff", b"[]", b'{"action": ["stop"]}', b'{"action": "stop"' + b" " * 10_000 + b"}"]
)
def test_a_control_file_that_asks_for_nothing_known_ends_no_run(busy, content):
    with controlled(busy):
        (busy / "control.json").write_bytes(content)
        between_steps()
        assert state_of(busy) == "running"
