"""Files that grow, and where a run or a training stands."""

import json

import pytest

from elicitor.errors import ConfigError, DataError
from elicitor.files import hold
from elicitor.follow import RunFollower, Tail, TrainingFollower, follow


def everything(tail):
    lines, voids = [], 0
    while True:
        anew, found = tail.read()
        voids += anew
        if not anew and not found:
            return voids, lines
        lines = found if anew else lines + found


def test_each_line_is_given_once_and_a_half_one_waits(tmp_path):
    path = tmp_path / "x.jsonl"
    tail = Tail(path)
    assert tail.read() == (False, [])
    path.write_bytes(b"one\ntw")
    assert tail.read() == (False, [b"one"])
    assert tail.read() == (False, [])
    with path.open("ab") as stream:
        stream.write("o\u2028\r x\nthree\n".encode())
    assert tail.read() == (False, ["two\u2028\r x".encode(), b"three"])
    assert tail.read() == (False, [])


def test_lines_longer_than_a_piece_are_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("elicitor.follow._CHUNK", 4)
    (tmp_path / "x").write_bytes(b"a" * 50 + b"\nbb\nc\n" + b"d" * 9)
    assert everything(Tail(tmp_path / "x")) == (0, [b"a" * 50, b"bb", b"c"])


@pytest.mark.parametrize("after", [b"", b"one\n", b"one\nother\n", b"one\nother\nlonger than before\n"])
def test_a_file_that_is_cut_is_given_anew(tmp_path, after):
    path = tmp_path / "x"
    path.write_bytes(b"one\ntwo\nthree\n")
    tail = Tail(path)
    assert everything(tail) == (0, [b"one", b"two", b"three"])
    path.write_bytes(after)
    assert everything(tail) == (1, after.split(b"\n")[:-1])
    path.unlink()
    assert everything(tail) == (bool(after), [])


def test_a_file_is_not_read_from_the_start_again(tmp_path, monkeypatch):
    """What has been given is not looked at again but for its last bytes."""
    path = tmp_path / "x"
    path.write_bytes(b"a" * 5000 + b"\n")
    tail = Tail(path)
    tail.read()
    content = path.read_bytes()
    path.write_bytes(b"b" * 4000 + content[4000:] + b"new\n")
    assert tail.read() == (False, [b"new"])


def event(**values):
    usual = {"kind": "proposed", "batch": 0, "iteration": 1, "accepted": True, "labels": {}, "n_labelled": 1}
    return {**usual, "utility": 1.5, "tokens_computed": 10, "seconds": 0.25, **values}


def test_where_a_search_stands(tmp_path):
    (tmp_path / "manifest.json").write_text('{"schema": 1, "examples": 9}')
    follower = follow(tmp_path)
    assert isinstance(follower, RunFollower)
    nothing = {"state": "idle", "asked": None, "iteration": 0, "utility": None, "labelled": 0, "n": 9, "tokens": 0}
    assert follower.look() == {**nothing, "seconds": 0.0}
    written = [
        event(labels={"a": "yes", "b": "no"}, n_labelled=2, kind="started", iteration=0),
        event(labels={"a": "no"}, accepted=False, n_labelled=2, iteration=4),
        {"kind": "warned", "batch": 0, "iteration": 4, "message": "slow"},
        event(labels={"c": "no", "b": None}, batch=1, iteration=3, n_labelled=3, utility=-2.0),
    ]
    with hold(tmp_path / ".lock"), (tmp_path / "events.jsonl").open("w") as stream:
        stream.write("".join(json.dumps(one) + "\n" for one in written))
        stream.flush()
        progress = follower.look()
    wanted = {"state": "running", "iteration": 7, "utility": -2.0, "labelled": 5, "tokens": 30, "seconds": 0.75}
    assert progress == {**nothing, **wanted}
    assert follower.held == {"a": "yes", "c": "no"}
    # Resumed: the last event has been cut.
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(one) + "\n" for one in written[:1]))
    assert follower.look()["labelled"] == 2
    assert follower.held == {"a": "yes", "b": "no"}
    (tmp_path / "metrics.json").touch()
    assert follower.look()["state"] == "finished"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "holds a line that is not JSON"),
        ("[1]", "Input should be a valid dictionary"),
        (json.dumps(event(labels=["a"])), "labels: Input should be"),
        (json.dumps(event(batch=10**12)), "batch: Input should be less than"),
        (json.dumps({"kind": "proposed"}), "'accepted' is missing"),
    ],
)
def test_events_that_are_none_are_named(tmp_path, line, message):
    (tmp_path / "manifest.json").write_text('{"schema": 1, "examples": 9}')
    (tmp_path / "events.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=message):
        follow(tmp_path).look()


def test_where_a_training_stands(tmp_path):
    with pytest.raises(ConfigError, match="holds no run and no training"):
        follow(tmp_path)
    (tmp_path / "training.yaml").touch()
    follower = follow(tmp_path)
    assert isinstance(follower, TrainingFollower)
    assert follower.look() == {"state": "idle", "asked": None, "step": 0, "steps": 0, "loss": None}
    (tmp_path / "progress.json").write_text('{"step": 3, "steps": 8, "loss": 0.5}')
    assert follower.look() == {"state": "idle", "asked": None, "step": 3, "steps": 8, "loss": 0.5}
