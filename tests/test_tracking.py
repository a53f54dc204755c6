import json
import os
import sqlite3
import struct
import subprocess
import sys

import pytest

pytest.importorskip("accelerate")

from elicitor.config import build_config
from elicitor.errors import ConfigError
from elicitor.labelling import run
from elicitor.pooled import run_on_pool
from elicitor.tracking import tracker_names


@pytest.fixture
def reviews(tmp_path):
    rows = [{"id": f"r{i}", "text": f"{'good' if i % 2 else 'bad'} thing {i}"} for i in range(12)]
    (tmp_path / "reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path / "reviews.jsonl")


def plotted(folder):
    """(step, name, value) of every number in a folder of TensorBoard's files."""
    protos = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = []
    for file in sorted(folder.rglob("events.out.tfevents.*")):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = protos.Event.FromString(data[12 : 12 + length])
            found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
            data = data[16 + length :]
    return found


def events_of(folder):
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def test_a_search_is_plotted_in_trackio_without_a_word_on_standard_output(reviews, tmp_path):
    pytest.importorskip("trackio")
    words = ["label", reviews, "--task", "sentiment", "--search", "icm", "--model", "fake", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "elicitor", *words, "--report-to", "trackio", "-o", str(tmp_path / "run")],
        env={**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["labels"] is not None
    with sqlite3.connect(tmp_path / "trackio" / "elicitor.db") as store:
        rows = store.execute("SELECT run_name, step, metrics FROM metrics ORDER BY step").fetchall()
        ((settings,),) = store.execute("SELECT config FROM configs").fetchall()
    events = [event for event in events_of(tmp_path / "run") if event["kind"] not in ("warned", "checked")]
    assert {row[0] for row in rows} == {"run"}
    assert [(row[1], json.loads(row[2])["search/utility"]) for row in rows] == [
        (event["iteration"], pytest.approx(event["utility"]))
        for event in events
        if "utility" in event and event["kind"] != "filled"
    ] + [(event["iteration"], pytest.approx(event["utility"])) for event in events if event["kind"] == "filled"]
    temperatures = [json.loads(row[2]).get("search/temperature") for row in rows]
    assert temperatures[1] == pytest.approx(events[1]["temperature"])
    assert json.loads(settings)["icm.beta"] == 0.99


def test_tensorboard_gets_every_step_and_resume_goes_on(reviews, tmp_path):
    pytest.importorskip("tensorboardX")

    class Stop(Exception):
        """A stand-in for a kill."""

    def kill(step):
        if step.state.iteration == 1:
            raise Stop

    flags = {"data": reviews, "task": "sentiment", "model": "fake:prior=0.5,noise=1", "search": "bootstrap"}
    config = build_config(flags={**flags, "report_to": "tensorboard", "batch_size": 6})
    with pytest.raises(Stop):
        run(config, tmp_path / "run", observer=kill)
    run(config, tmp_path / "run", resume=True)
    utilities = [(step, value) for step, name, value in plotted(tmp_path / "run") if name == "search/utility"]
    wanted = [
        (5 * event["batch"] + event["iteration"], pytest.approx(event["utility"], rel=1e-6))
        for event in events_of(tmp_path / "run")
        if "utility" in event
    ]
    # The step that was saved when the kill came had not been told to the tracker.
    assert sorted(utilities) in ([*wanted], [pair for pair in wanted if pair[0] != 1])
    shares = [value for _, name, value in plotted(tmp_path / "run") if name.startswith("search/share_of_")]
    assert shares
    assert all(0 < share <= 1 for share in shares)


def test_names_are_checked_before_anything_is_written(reviews, tmp_path):
    assert tracker_names("none") == []
    assert tracker_names("trackio, tensorboard") == ["trackio", "tensorboard"]
    config = build_config(flags={"data": reviews, "task": "sentiment", "model": "fake", "report_to": "mlflow"})
    with pytest.raises(ConfigError, match=r"unknown tracker 'mlflow'; use trackio"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_is_not_installed_is_named(reviews, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    config = build_config(flags={"data": reviews, "task": "sentiment", "model": "fake", "report_to": "wandb"})
    with pytest.raises(ConfigError, match="'wandb' needs wandb; pip install wandb"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_cannot_be_opened_closes_those_before_it(reviews, tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    pytest.importorskip("trackio")
    from accelerate.tracking import TensorBoardTracker, TrackioTracker

    def fail(tracker):
        raise RuntimeError("no store")

    closed = []
    finish = TensorBoardTracker.finish
    monkeypatch.setattr(TensorBoardTracker, "finish", lambda tracker: closed.append(finish(tracker)))
    monkeypatch.setattr(TrackioTracker, "start", fail)
    flags = {"data": reviews, "task": "sentiment", "model": "fake", "report_to": "tensorboard,trackio"}
    with pytest.raises(ConfigError, match="'trackio' could not be opened: RuntimeError: no store"):
        run(build_config(flags=flags), tmp_path / "run")
    assert len(closed) == 1


def test_a_tracker_may_change_or_go_when_a_run_is_resumed(reviews, tmp_path):
    flags = {"data": reviews, "task": "sentiment", "model": "fake"}
    run(build_config(flags={**flags, "report_to": "none"}), tmp_path / "run")
    pytest.importorskip("tensorboardX")
    run(build_config(flags={**flags, "report_to": "tensorboard"}), tmp_path / "run", resume=True)


def test_workers_tell_no_steps(reviews, tmp_path):
    config = build_config(flags={"data": reviews, "task": "sentiment", "model": "fake", "report_to": "trackio"})
    with pytest.raises(ConfigError, match="whole batches only"):
        run_on_pool([(config, tmp_path / "run")], None)
