import numpy as np
import pytest

from elicitor.backends.pacing import FIRST_PAUSE, LONGEST_PAUSE, Pace, asked_pause, pause


def test_a_limit_spaces_what_is_sent_by_its_size():
    # 120 tokens a minute are 2 a second: what follows 10 tokens waits 5 seconds.
    pace = Pace(120)
    assert pace.reserve(10, now=100) == 0
    assert pace.reserve(4, now=100) == 5
    assert pace.reserve(1, now=103) == 4
    assert pace.reserve(1, now=200) == 0


def test_no_limit_never_waits():
    pace = Pace(None)
    assert [pace.reserve(10**9, now=0) for _ in range(3)] == [0, 0, 0]


def test_pauses_double_up_to_a_limit_with_jitter_below():
    rng = np.random.default_rng(0)
    for failures, most in ((1, 0.5), (2, 1), (3, 2), (6, 16), (7, LONGEST_PAUSE), (5000, LONGEST_PAUSE)):
        drawn = [pause(failures, rng=rng) for _ in range(200)]
        assert most / 2 <= min(drawn) < max(drawn) <= most
        assert max(drawn) - min(drawn) > 0.4 * most
    assert FIRST_PAUSE == 0.5


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ({}, 0),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 1970 00:02:00 GMT"}, 20),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:10 GMT"}, 0),
        ({"retry-after": "soon"}, 0),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "inf"}, 0),
        ({"retry-after": "nan"}, 0),
    ],
)
def test_what_a_server_asks_for(header, seconds):
    assert asked_pause(header, wall_time=100) == seconds
