import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicitor.config import ObjectiveConfig
from elicitor.objective import normalize, offset_of, predictability
from elicitor.search.sequential import Change, Terms, change, is_decided

OBJECTIVE = ObjectiveConfig(alpha=10.0)


def rows(*odds):
    """Distributions over two labels with these log-odds of the second."""
    return normalize(np.stack([np.zeros(len(odds)), np.asarray(odds, dtype=float)], axis=1))


def terms(before, after, *, others, labels=None, proposed=2.0, label_before=None):
    return Terms(
        before=rows(*before),
        after=rows(*after),
        labels=tuple(labels or [1] * len(before)),
        others=others,
        proposed=rows(proposed)[0],
        label_before=label_before,
        label_after=1,
    )


def test_with_all_terms_read_the_change_is_exact():
    """Before: mean of 1 and 3. After: mean of 2, 3 and the proposal's own 2, so 7/3 - 2 times alpha."""
    found = change(terms([1, 3], [2, 3], others=2), OBJECTIVE)
    assert found.value == pytest.approx(10 * (7 / 3 - 2))
    assert found.error == 0


def test_a_changed_label_counts_on_both_sides():
    """The example's log-odds turn from -2 to 2: (1 + 3 - 2) / 3 before, (2 + 3 + 2) / 3 after."""
    found = change(terms([1, 3], [2, 3], others=2, label_before=0), OBJECTIVE)
    assert found.value == pytest.approx(10 * (7 / 3 - 2 / 3))


def test_terms_read_stand_for_all_others():
    """Two of ten read: P rises from 2 to (10 * 2.5 + 2) / 11."""
    found = change(terms([1, 3], [2, 3], others=10), OBJECTIVE)
    assert found.value == pytest.approx(10 * (27 / 11 - 2))


def test_the_error_of_a_mean_is_the_textbook_one():
    """With a changed label, no calibration and equal terms before, the change is linear in the terms after."""
    after = [1.0, 2.0, 4.0, 5.0]
    found = change(terms([0] * 4, after, others=16, label_before=0), OBJECTIVE)
    standard = np.std(after, ddof=1) / 2 * np.sqrt(1 - 4 / 16)
    assert found.error == pytest.approx(10 * 16 / 17 * standard)


def test_sum_counts_every_other_example():
    found = change(terms([1, 3], [2, 3], others=10), ObjectiveConfig(alpha=10.0, reduce="sum"))
    assert found.value == pytest.approx(10 * (10 * 2.5 + 2 - 10 * 2))


@given(
    st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5), st.booleans()), min_size=3, max_size=12), st.floats(-5, 5)
)
def test_all_terms_give_the_objective_s_own_change(read, proposed):
    """Against U computed as `Problem` does, calibration included."""
    config = ObjectiveConfig(calibration="batch")
    before, after, labels = zip(*read, strict=True)
    labels = [int(y) for y in labels]
    found = change(terms(before, after, others=len(read), labels=labels, proposed=proposed, label_before=0), config)

    def utility(odds, own):
        stacked = rows(*odds, proposed)
        return config.alpha * predictability(normalize(stacked - offset_of(stacked, config)), [*labels, own], config)

    assert found.value == pytest.approx(utility(after, 1) - utility(before, 0), abs=1e-9)


def test_one_term_never_decides_by_itself():
    found = change(terms([1], [2], others=5), OBJECTIVE)
    assert not is_decided(found, 0.0, read=1, level=0.05)


def test_a_test_errs_as_often_as_its_level_says():
    """At the threshold itself a test of noise decides for one side or the other in twice the level of all cases."""
    rng = np.random.default_rng(0)
    decided = 0
    for _ in range(4000):
        sample = rng.normal(size=8)
        estimate = Change(float(sample.mean()), float(sample.std(ddof=1) / np.sqrt(8)))
        decided += is_decided(estimate, 0.0, read=8, level=0.05)
    assert decided / 4000 == pytest.approx(0.1, abs=0.015)
