"""Progress where there is no terminal: a log that says where the work is."""

import pytest

from elicitor import progress
from elicitor.progress import Display


@pytest.fixture
def clock(monkeypatch):
    """Seconds of working time, which tests set."""
    now = [0.0]
    monkeypatch.setattr(progress, "working_time", lambda: now[0])
    return now


def test_steps_are_told_every_ten_seconds_with_rate_and_time_left(clock, capsys):
    with Display("label icm") as display:
        for step in range(1, 9):
            clock[0] = 4.0 * step
            display.tokens(100)
            display.update(step, 24, f"U {step}.00")
    assert capsys.readouterr().err.splitlines() == [
        "label icm: 3/24 U 3.00 25 tok/s elapsed 12 s, left at most 84 s",
        "label icm: 6/24 U 6.00 25 tok/s elapsed 24 s, left at most 72 s",
    ]


@pytest.mark.parametrize("steps", [(21, 22, 23), (10, 15, 20)], ids=["resumed", "several at once"])
def test_the_time_left_is_foretold_by_what_was_watched(clock, capsys, steps):
    with Display("label icm") as display:
        for step in steps:
            clock[0] += 10.0
            display.update(step, 30, "")
    pace = 10.0 / (steps[1] - steps[0])
    assert [line.partition(" elapsed ")[2] for line in capsys.readouterr().err.splitlines()] == [
        "10 s",
        f"20 s, left at most {pace * (30 - steps[1]):.0f} s",
        f"30 s, left at most {pace * (30 - steps[2]):.0f} s",
    ]


def test_what_a_resumed_run_finds_done_does_not_count(clock, capsys):
    with Display("suite") as display:
        clock[0] = 20.0
        display.stage("poems: search with seed 0")
        display.part(1, 4)
        clock[0] += 300.0
        display.part(2, 4)
    assert capsys.readouterr().err.splitlines()[1:] == [
        "suite: 1/4 elapsed 0 s",
        "suite: 2/4 elapsed 300 s, left at most 600 s",
    ]


def test_a_step_that_takes_long_is_told_of_while_it_is_under_way(clock, capsys):
    stage = "a task whose name alone is as long as many a line is, and longer than a terminal: search with seed 1"
    with Display("suite") as display:
        clock[0] = 10.0
        display.part(1, 6)
        display.stage(stage)
        for _ in range(7):
            clock[0] += 10.0
            display.tokens(1000)
    assert capsys.readouterr().err.splitlines() == [
        "suite: 1/6 elapsed 10 s, left at most 50 s",
        "suite: " + stage,
        f"suite: {stage}: 1/6 3,000 tokens 75 tok/s elapsed 40 s",
        f"suite: {stage}: 1/6 6,000 tokens 86 tok/s elapsed 70 s",
    ]


def test_work_that_counts_no_tokens_has_no_rate_and_one_clock(clock, capsys):
    with Display("train rl") as display:
        clock[0] = 30.0
        display.stage("training")
        for step in (1, 2):
            clock[0] += 20.0
            display.update(step, 4, "loss 0.500")
            display.stage(f"step {step}: held-out reward 0.1")
    assert capsys.readouterr().err.splitlines()[1::2] == [
        "train rl: 1/4 loss 0.500 elapsed 20 s, left at most 60 s",
        "train rl: 2/4 loss 0.500 elapsed 40 s, left at most 40 s",
    ]


def test_nothing_is_told_of_short_work(clock, capsys):
    with Display("label icm") as display:
        clock[0] = 9.0
        display.tokens(100)
        display.update(1, 1, "")
    assert capsys.readouterr().err == ""
