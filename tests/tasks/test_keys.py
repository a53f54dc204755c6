import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicitor.tasks.keys import final_answer, normalize_text


@given(st.text(max_size=20))
def test_normalising_twice_changes_nothing_more(text):
    once = normalize_text(text)
    assert normalize_text(once) == once
    if any(c.isalnum() for c in once):
        assert normalize_text(f"  {once}... ") == once


@given(
    st.lists(st.text("abcé1", min_size=1, max_size=4), min_size=1, max_size=4), st.sampled_from([" ", "  ", ", ", "\n"])
)
def test_normalising_keeps_the_words(words, between):
    assert normalize_text(between.join(words).upper() + "!") == " ".join(words)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("It's raining.", "its  RAINING", True),
        ("A well-known fact", "a well known fact!", True),
        ("\u2019tis", "'tis", True),
        ("No.", "Not", False),
        ("3.5", "35", False),
        ("-5", "5", False),
        ("It is \u22125 degrees.", "It is -5 degrees", True),
        ("C++", "C#", False),
        ("C++", "C", False),
        ("?", "!", False),
        ("O-", "O+", False),
        ("\u0915\u093f", "\u0915\u0940", False),  # two Hindi syllables that differ in a combining mark
        ("caf\u00e9", "cafe\u0301", True),
        ("3.5", "3 5", False),
        (".5", "5", False),
        ("1,000", "1 000", False),
        ("f(2)", "f2", False),
        ("a \u2013 b", "a b", True),
        ("Yes, it is", "yes it is", True),
        ("\u201cYes.\u201d", "yes", True),
        ("50%", "50", False),
        ("2\u2075 is 32", "25 is 32", False),
        ("The area is 10\u00b2 m.", "The area is 102 m.", False),
        ("H\u2082O", "H2O", False),
        ("3\u00bd", "31/2", False),
        ("5' long", '5" long', False),
        ("6'2\" tall", "62 tall", False),
        ("\uff15 \ufb01sh", "5 fish", True),
    ],
)
def test_only_what_cannot_change_a_meaning_is_folded(left, right, same):
    assert (normalize_text(left) == normalize_text(right)) is same


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("3 x 9 = 27. The answer is $27.", "27"),
        ("The answer is 3,000.", "3000"),
        ("The answer is 28.00", "28"),
        ("#### 1,234,567", "1234567"),
        ("So it is \\boxed{42}.", "42"),
        ("Answer: 46.5 minutes", "93/2"),
        ("the ANSWER is -5 degrees", "-5"),
        ("The answer is -$5.", "-5"),
        ("The answer is $ -5.", "-5"),
        ("The answer is \u22125.", "-5"),
        ("The answer is 1/7.", "1/7"),
        ("The answer is 2/14.", "1/7"),
        ("The answer is .5", "1/2"),
        ("The answer is 20kg.", "20"),
        ("The answer is 50%.", "50"),
        ("The answer is 3 * 4 = 12.", "12"),
        ("The answer is 5. No, the answer is 6.", "6"),
        ("The answer is approximately 46.7 minutes.", "467/10"),
        ("The answer is 8.\n\nThat was easy.", "8"),
        ("They have 27 sheep.", None),
        ("The answer is ten cents.", None),
        ("The answer is 1 hour and 35 minutes.", None),
        ("The answer is 2:30.", None),
        ("The answer is 3-4.", None),
        ("The answer is 2 million.", None),
        ("The answer is 118 000.", None),
        ("The answer is 1e5.", None),
        ("The answer is 10+John's age.", None),
        ("The answer is 1/0.", None),
        ("The answer is x9.", None),
        ("The answer is 3,00.", None),
        ("The answer is 9.\nThen 5 more came: 14 in all.", None),
        ("The answer is \\frac{1}{2}", None),
        ("The answer is 5\u00bd", None),
        ("The answer is 3k", None),
        ("The answer is $1.5M.", None),
        ("The answer is \u221a16", None),
        ("The answer is 2\u03c0", None),
        ("The answer is 10\u00b2", None),
        ("The answer is 5 km", "5"),
        ("The answer is 5km", "5"),
        ("The answer is", None),
        ("", None),
    ],
)
def test_final_answers(text, answer):
    assert final_answer(text) == answer


@given(st.integers(-(10**9), 10**9), st.sampled_from(["{}", "${}", "{:,}", "{}.00", "{} apples", "{}."]))
def test_one_number_has_one_key_however_it_is_written(number, form):
    text = form.format(abs(number))
    assert final_answer(f"Because. The answer is {'-' if number < 0 else ''}{text}") == str(number)


@given(st.text(max_size=60))
def test_any_text_has_an_answer_or_none(text):
    found = final_answer(f"The answer is {text}")
    assert found is None or any(c.isdigit() for c in text)


def test_a_long_row_of_dots_costs_no_more_than_its_length():
    dots = "." * 200_000
    assert normalize_text(f"a {dots}b") == f"a {dots}b"
    assert normalize_text(f"a {dots} b") == "a b"
