import pytest

from elicitor.report.trace import BINS, HISTORY, Change, read_trace

LABELS = ("no", "yes")


def event(kind, iteration, labels, *, batch=0, accepted=True, utility=0.0, **more):
    return {
        "kind": kind,
        "batch": batch,
        "iteration": iteration,
        "labels": labels,
        "accepted": accepted,
        "utility": utility,
    } | more


def proposal(iteration, example, label, *, accepted=True, judged=True, **more):
    more = {"labels": {example: label}} | more
    return event(
        "proposed",
        iteration,
        accepted=accepted,
        example=example,
        label_proposed=label,
        utility_proposed=5.0 if judged else None,
        temperature=10.0 / (1 + iteration),
        **more,
    )


EVENTS = [
    event("started", 0, {"a": "no", "b": "yes"}, utility=1.0),
    proposal(1, "c", "yes", utility=2.0),
    proposal(2, "a", "yes", accepted=False, utility=2.0),
    {"kind": "warned", "batch": 0, "iteration": 2, "message": "growth has stalled"},
    proposal(3, "a", "yes", labels={"a": "yes", "b": "no"}, utility=4.0),
    proposal(4, "c", "yes", judged=False, labels={}, utility=4.0),
    event("filled", 4, {"d": "no"}, utility=3.0),
]


def test_curves_follow_the_assignment():
    trace = read_trace(lambda: EVENTS, LABELS, truth={"a": "yes", "b": "no", "c": "no"})
    assert [point.iteration for point in trace.points] == [0, 1, 2, 3, 4]
    assert [point.labelled for point in trace.points] == [2, 3, 3, 3, 4]
    assert [point.utility for point in trace.points] == [1.0, 2.0, 2.0, 4.0, 3.0]
    assert [point.accuracy for point in trace.points] == pytest.approx([0, 0, 0, 2 / 3, 2 / 3])
    assert trace.points[3].shares == pytest.approx({"no": 1 / 3, "yes": 2 / 3})
    assert [(point.judged, point.accepted) for point in trace.points] == [(0, 0), (1, 1), (1, 0), (1, 1), (0, 0)]
    assert [point.temperature for point in trace.points] == [None, 5.0, pytest.approx(10 / 3), 2.5, 2.0]
    assert trace.held == {"a": "yes", "b": "no", "c": "yes", "d": "no"}
    assert trace.warnings == ["growth has stalled"]


def test_histories_tell_refusals_and_repairs():
    trace = read_trace(lambda: EVENTS, LABELS, wanted={"a", "b"})
    assert trace.changes["a"] == [
        Change(0, "started", None, "no", True, 1.0, None),
        Change(2, "proposed", "no", "yes", False, 5.0, pytest.approx(10 / 3)),
        Change(3, "proposed", "no", "yes", True, 5.0, 2.5),
    ]
    assert [change.kind for change in trace.changes["b"]] == ["started", "repaired"]
    assert set(trace.changes) == {"a", "b"}
    assert all(point.accuracy is None for point in trace.points)


def test_batches_are_taken_together_and_one_that_has_ended_stays():
    other = [
        event("started", 0, {"x": "no"}, batch=1, utility=7.0),
        event("relabelled", 1, {"x": None}, batch=1, utility=9.0),
    ]
    points = read_trace(lambda: EVENTS + other, LABELS).points
    assert [point.utility for point in points] == [4.0, 5.5, 5.5, 6.5, 6.0]
    assert [(point.utility_lowest, point.utility_highest) for point in points][-1] == (3.0, 9.0)
    assert [point.labelled for point in points] == [3, 3, 3, 3, 4]


def test_long_searches_give_short_curves_and_histories():
    events = [event("started", 0, {"a": "no"})]
    events += [proposal(i, "a", LABELS[i % 2], utility=float(i)) for i in range(1, 1001)]
    trace = read_trace(lambda: events, LABELS, wanted={"a"})
    assert len(trace.points) == BINS
    assert trace.points[-1].iteration == 1000
    assert trace.points[-1].utility == 1000.0
    assert sum(point.judged for point in trace.points) == 1000
    assert [change.iteration for change in trace.changes["a"]] == list(range(1001 - HISTORY, 1001))


def test_a_search_that_has_not_begun_has_no_points():
    assert read_trace(lambda: [], LABELS).points == []
