import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicitor.spool import Spool

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(values, max_size=8), st.data())
def test_what_was_added_is_read_by_its_number_in_any_order(added, data):
    spool = Spool()
    for value in added:
        spool.append(value)
    for number in data.draw(st.permutations(range(len(added)))):
        assert spool[number] == added[number]
    assert list(spool) == added


def test_reading_while_it_grows_and_while_it_is_iterated_over():
    spool = Spool()
    for number in range(100):
        spool.append([number, "é\u2028\n"])
        assert spool[number // 2] == [number // 2, "é\u2028\n"]
    assert [(left[0], right[0]) for left, right in zip(spool, spool, strict=True)] == [(k, k) for k in range(100)]


def test_there_is_nothing_before_the_first_and_behind_the_last():
    spool = Spool()
    spool.append("x")
    for number in (-1, 1):
        with pytest.raises(IndexError):
            spool[number]
