"""The real command and a real server, one of them killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import running

pytest.importorskip("httpx")

TASK = "name: t\ntemplate: '{text}:'\nlabels: {no: ' no', yes: ' yes'}\n"


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def server(port):
    """Starts the server as a program; what it started is killed at the end."""
    running = []

    def start(on=port, **options):
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        program = [sys.executable, str(Path(__file__).with_name("world_server.py")), "--port", str(on), *words]
        running.append(subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        while True:
            try:
                socket.create_connection(("127.0.0.1", on)).close()
                return running[-1]
            except ConnectionRefusedError:
                time.sleep(0.02)

    yield start
    for process in running:
        process.kill()
        process.wait()


@pytest.fixture
def label(tmp_path):
    """Words of the labelling command."""
    rows = [{"id": f"e{i}", "text": f"text {i}"} for i in range(12)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "task.yaml").write_text(TASK)

    def command(model, output, *more):
        start = [
            sys.executable,
            "-m",
            "elicitor",
            "label",
            str(tmp_path / "x.jsonl"),
            "--task",
            str(tmp_path / "task.yaml"),
            "--search",
            "icm",
        ]
        return [*start, "--model", model, "--output-dir", str(tmp_path / output), *more]

    return command


def at(port):
    return f"openai:world@http://127.0.0.1:{port}/v1"


def wait_for_events(run, folder, n):
    file = folder / "events.jsonl"
    while not file.exists() or file.read_bytes().count(b"\n") < n:
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.01)


def labels(folder):
    return [(row["id"], row["label"]) for row in map(json.loads, (folder / "labels.jsonl").read_text().splitlines())]


def test_a_server_killed_and_restarted_changes_no_label(server, label, port, tmp_path):
    subprocess.run(label("fake", "fake"), check=True, capture_output=True)
    first = server(delay=0.1)
    with running(label(at(port), "run"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        wait_for_events(run, tmp_path / "run", 4)
        first.kill()
        first.wait()
        time.sleep(1)
        assert run.poll() is None
        server()
        _, err = run.communicate()
    assert run.returncode == 0, err
    assert "the server fails" in err
    assert "the server answers again" in err
    assert labels(tmp_path / "run") == labels(tmp_path / "fake")


def test_a_server_that_stays_away_ends_the_run_in_one_line_and_resume_goes_on(server, label, port, tmp_path):
    subprocess.run(label("fake", "fake"), check=True, capture_output=True)
    first = server(delay=0.1)
    impatient = label(at(port), "run", "--set", "backend.remote.retry_seconds=0.5")
    with running(impatient, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        wait_for_events(run, tmp_path / "run", 4)
        first.kill()
        _, err = run.communicate()
    assert run.returncode == 2
    assert err.splitlines()[-1].startswith("error: http://127.0.0.1")
    assert "then go on with --resume" in err.splitlines()[-1]
    assert "Traceback" not in err
    # Not there yet, and then there behind another port.
    resume = label(at(port), "run", "--resume")
    done = subprocess.run(resume, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("cannot be reached")) == (2, 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        other = free.getsockname()[1]
    server(on=other)
    subprocess.run(label(at(other), "run", "--resume"), check=True, capture_output=True)
    assert labels(tmp_path / "run") == labels(tmp_path / "fake")


def test_ctrl_c_ends_at_once_while_an_answer_is_awaited(server, label, port, tmp_path):
    server(delay=0.3)
    # A shell's background jobs ignore the signal, and so would all that they start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run = subprocess.Popen(label(at(port), "run"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with run:
        wait_for_events(run, tmp_path / "run", 1)
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=120)
    assert run.returncode == 130
    assert "--resume" in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_dry_run_prices_a_hosted_model(server, label, port):
    server()
    words = label(at(port), "run", "--dry-run", "--price-per-million", "3")
    done = subprocess.run(words, check=True, capture_output=True, text=True, env=os.environ)
    assert "time: unknown, because nothing is sent to a server in a dry run" in done.stdout
    assert "price if all of those cost the same: 0." in done.stdout
