"""Marks on disk, the sample that is proposed, and the estimate of label accuracy."""

import json
import math
import threading

import numpy as np
import pytest

from elicitor.errors import DataError
from elicitor.review import PROPOSED, Mark, Reviewer, add_mark, draw_sample, estimate, judge, read_marks

RIGHT = Mark("a", "right", "yes", "2026-01-01T00:00:00Z")
WRONG = Mark("a", "wrong", "yes", "2026-01-01T00:00:01Z")
OTHER = Mark("b\u2028=\n", "right", "no", "2026-01-01T00:00:02Z")


def test_the_last_mark_of_an_example_counts(tmp_path):
    assert read_marks(tmp_path) == {}
    for mark in (RIGHT, OTHER, WRONG):
        add_mark(tmp_path, mark)
    assert list(read_marks(tmp_path).values()) == [OTHER, WRONG]


def test_marks_survive_a_kill_at_any_byte(tmp_path):
    for mark in (RIGHT, OTHER):
        add_mark(tmp_path, mark)
    path = tmp_path / "review.jsonl"
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])
        # The newline alone may be what is missing.
        expected = [RIGHT] * (end >= first - 1) + [OTHER] * (end >= len(whole) - 1)
        assert list(read_marks(tmp_path).values()) == expected
        add_mark(tmp_path, WRONG)
        assert list(read_marks(tmp_path).values()) == [mark for mark in expected if mark != RIGHT] + [WRONG]


def test_many_writers_lose_nothing(tmp_path):
    def write(k):
        for i in range(20):
            add_mark(tmp_path, Mark(f"{k}-{i}", "right", "yes", "2026-01-01T00:00:00Z"))

    threads = [threading.Thread(target=write, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_marks(tmp_path)) == 80


@pytest.mark.parametrize(
    "line",
    [
        '{"id": "a"}',
        "[]",
        '{"id": ["a"], "verdict": "right", "label": "x", "time": "t"}',
        '{"id": "a", "verdict": "maybe", "label": "x", "time": "t"}',
    ],
)
def test_a_line_that_is_no_mark_is_not_passed_over(tmp_path, line):
    (tmp_path / "review.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match="no mark"):
        read_marks(tmp_path)


def test_a_mark_speaks_of_the_label_that_it_saw():
    assert judge(RIGHT, "yes", n_labels=2) is True
    assert judge(WRONG, "yes", n_labels=2) is False
    assert judge(RIGHT, "no", n_labels=2) is False
    assert judge(WRONG, "no", n_labels=2) is True
    assert judge(WRONG, "maybe", n_labels=3) is None


def test_the_sample_is_everything_by_lot_within_strata_of_margin():
    margins = {f"e{i}": (-1) ** i * i / 10 for i in range(43)}
    sample = draw_sample(margins, seed=3)
    assert [len(stratum) for stratum in sample.strata] == [11, 11, 11, 10]
    order = sample.order()
    assert sorted(order) == sorted(margins)
    for low, high in zip(sample.strata, sample.strata[1:], strict=False):
        assert max(abs(margins[name]) for name in low) < min(abs(margins[name]) for name in high)
    assert order[:4] == [stratum[0] for stratum in sample.strata]
    assert sample == draw_sample(margins, seed=3)
    assert sample != draw_sample(margins, seed=4)
    assert len(draw_sample(dict(list(margins.items())[:19]), seed=3).strata) == 1


def test_each_example_of_a_stratum_is_as_likely_to_be_first():
    margins = {f"e{i}": float(i // 10) for i in range(20)}
    firsts = [draw_sample(margins, seed=seed).strata[0][0] for seed in range(2000)]
    counts = np.asarray([firsts.count(f"e{i}") for i in range(10)])
    assert counts.sum() == 2000
    # Four standard deviations of a binomial with 2000 draws of probability 0.1.
    assert np.abs(counts - 200).max() < 4 * math.sqrt(2000 * 0.1 * 0.9)


def test_the_estimate_by_hand():
    """Two strata of 60 and 40, of which 4 and 2 are marked, 3 and 2 of them right."""
    found = estimate([60, 40], [4, 2], [3, 2])
    # 0.6 * 3/4 + 0.4 * 2/2
    assert found.value == pytest.approx(0.85)
    assert found.n == 6
    # Pooled 6/8; shrunk (3 + 0.75) / 5 = 0.75 and (2 + 0.75) / 3 = 0.91667; together 0.6 * 0.75 + 0.4 * 0.91667 = 0.81667.
    # Variance 0.36 * 56/59 * 0.1875 / 4 + 0.16 * 38/39 * 0.076389 / 2 = 0.016017 + 0.005954 = 0.021971.
    # Effective sample size 0.81667 * 0.18333 / 0.021971 = 6.8146; Wilson's score interval at 0.85 with z = 1.96,
    # z^2 / n = 0.56371: centre (0.85 + 0.28186) / 1.56371 = 0.72383,
    # reach 1.95996 / 1.56371 * sqrt(0.1275 / 6.8146 + 0.143806^2) = 0.24876; both ends out by 0.005.
    assert found.lower == pytest.approx(0.72383 - 0.24876 - 0.005, abs=1e-4)
    assert found.upper == pytest.approx(0.72383 + 0.24876 + 0.005, abs=1e-4)


def test_the_estimate_at_its_ends():
    assert estimate([], [], []) is None
    assert estimate([10, 10], [5, 0], [5, 0]) is None
    everything = estimate([10, 10], [10, 10], [9, 6])
    assert (everything.value, everything.lower, everything.upper, everything.n) == (0.75, 0.75, 0.75, 20)
    # Nine marks of ten: the last one decides a tenth, and no more.
    assert estimate([10], [9], [9]).lower >= 0.9
    assert estimate([10], [9], [9]).upper == 1
    assert estimate([10], [9], [0]).lower == 0
    assert estimate([10], [9], [0]).upper <= 0.1
    assert estimate([1000], [5], [5]).lower < 0.7


@pytest.mark.parametrize(
    ("sizes", "shares"),
    [
        ((250, 250, 250, 250), (0.55, 0.8, 0.95, 0.99)),
        ((250, 250, 250, 250), (0.9, 0.9, 0.9, 0.9)),
        ((250, 250, 250, 250), (0.9, 0.98, 1.0, 1.0)),
        ((100, 100, 100, 100), (0.2, 1.0, 1.0, 1.0)),
        ((15, 15, 15, 15), (0.6, 0.8, 1.0, 1.0)),
        ((12,), (0.75,)),
    ],
)
@pytest.mark.parametrize("n", [10, 24, 60])
def test_intervals_cover_the_true_share(sizes, shares, n):
    n = min(n, sum(sizes) - 2)
    good = [round(size * share) for size, share in zip(sizes, shares, strict=True)]
    marked = [n // len(sizes) + (k < n % len(sizes)) for k in range(len(sizes))]
    truth = sum(good) / sum(sizes)
    rng = np.random.default_rng(0)
    drawn = np.stack(
        [rng.hypergeometric(g, size - g, m, size=1000) for g, size, m in zip(good, sizes, marked, strict=True)],
        axis=1,
    ).tolist()
    found = [estimate(sizes, marked, right) for right in drawn]
    # Three standard errors of a simulated coverage of 0.95, and the steps of a share among few examples.
    assert np.mean([one.lower - 1e-9 <= truth <= one.upper + 1e-9 for one in found]) >= 0.91
    assert np.mean([one.value for one in found]) == pytest.approx(truth, abs=0.02)


METRICS = '{"n_examples": 60, "labels": {"negative": 0, "positive": 60}}'


@pytest.fixture
def finished(tmp_path):
    """A finished run of 60 examples, in which e0 to e11, those with the smallest margins, have wrong labels."""
    rows = [
        {
            "id": f"e{i}",
            "label": "positive",
            "confidence": 0.9,
            "log_odds": 0.1 * i,
            "group_id": f"g{i}",
            "filled": False,
        }
        for i in range(60)
    ]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps({**row, "batch": 0}) + "\n" for row in rows))
    (tmp_path / "config.yaml").write_text("data: x.jsonl\ntask: sentiment\nmodel: fake\nseed: 5\n")
    (tmp_path / "manifest.json").write_text('{"schema": 1, "examples": 60}')
    (tmp_path / "metrics.json").write_text(METRICS)
    return tmp_path


def is_right(name):
    return int(name[1:]) >= 12


def test_a_review_from_its_beginning_to_its_end(finished):
    reviewer = Reviewer(finished)
    begun = reviewer.review()
    assert (begun.marks, begun.estimate, len(begun.labels), begun.waiting) == ((), None, 60, 0)
    assert len(begun.proposed) == len(set(begun.proposed)) == PROPOSED
    while proposed := reviewer.review().proposed:
        reviewer.mark(proposed[0], "right" if is_right(proposed[0]) else "wrong")
        state = reviewer.review()
        assert state.waiting == 0
        n = len(state.marks)
        assert (state.estimate is None) == (n < 4)
        if state.estimate:
            assert state.estimate.n == n
            assert state.estimate.lower <= state.estimate.value <= state.estimate.upper
    assert (state.estimate.value, state.estimate.lower, state.estimate.upper) == (0.8, 0.8, 0.8)
    assert Reviewer(finished).review() == state


def test_marks_that_were_chosen_by_hand_do_not_enter_the_estimate(finished):
    reviewer = Reviewer(finished)
    order = draw_sample({f"e{i}": 0.1 * i for i in range(60)}, seed=5)
    for name in reviewer.review().proposed[:8]:
        reviewer.mark(name, "right")
    before = reviewer.review()
    # All but the next of each stratum: whoever hunts for mistakes marks these.
    for stratum in order.strata:
        for name in stratum[3:]:
            reviewer.mark(name, "wrong")
    after = reviewer.review()
    assert after.estimate == before.estimate
    assert len(after.marks) == 8 + 48
    assert after.waiting == 48
    # Once nothing is passed over, all of them count.
    for stratum in order.strata:
        assert stratum[2] in after.proposed
        reviewer.mark(stratum[2], "right")
    assert reviewer.review().waiting == 0
    assert reviewer.review().estimate.value == pytest.approx(12 / 60)


def test_a_mark_changes_its_mind(finished):
    reviewer = Reviewer(finished)
    for name in reviewer.review().proposed[:4]:
        reviewer.mark(name, "wrong")
        reviewer.mark(name, "right")
    assert reviewer.review().estimate.value == 1
    with pytest.raises(DataError, match="'e99' has no label"):
        reviewer.mark("e99", "right")


def test_while_the_search_runs_nothing_is_proposed_and_marks_are_kept(finished):
    (finished / "metrics.json").unlink()
    event = {"kind": "started", "batch": 0, "iteration": 0, "accepted": True, "labels": {"e7": "negative"}}
    event |= {"n_labelled": 1, "utility": 0.5, "tokens_computed": 1, "seconds": 0.1}
    half = json.dumps({**event, "labels": {"e8": "negative"}})
    (finished / "events.jsonl").write_text(json.dumps(event) + "\n" + half[:30])
    reviewer = Reviewer(finished)
    assert reviewer.review().proposed == ()
    reviewer.mark("e7", "right")
    with pytest.raises(DataError, match="no label"):
        reviewer.mark("e8", "right")
    # The run ends with another label: the mark says that it is wrong.
    (finished / "metrics.json").write_text(METRICS)
    for name in set(reviewer.review().proposed) - {"e7"}:
        reviewer.mark(name, "right")
    stratum = next(s for s in draw_sample({f"e{i}": 0.1 * i for i in range(60)}, seed=5).strata if "e7" in s)
    for name in stratum[: stratum.index("e7")]:
        reviewer.mark(name, "right")
    state = reviewer.review()
    assert state.estimate.value < 1
    assert "e7" not in state.proposed
