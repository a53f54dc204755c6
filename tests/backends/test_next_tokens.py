import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicitor.backends.base import Prompt
from elicitor.backends.next_tokens import NextTokens, next_tokens
from elicitor.backends.trie import unshared_tokens
from elicitor.errors import LabelTokenError


def test_labels_of_one_token_are_read_after_the_prompt():
    asked = next_tokens([Prompt(((1,), (2, 3)), ((7,), (8,)))])
    assert asked == [NextTokens((1, 2, 3), ((0, 0, 7), (0, 1, 8)))]
    assert asked[0].tokens == (7, 8)


def test_a_further_token_needs_a_further_text_which_labels_that_begin_alike_share():
    # " not at all" and " not bad" share 5, and all three first tokens are read in one place.
    asked = next_tokens([Prompt(((1, 2),), ((5, 6, 4), (5, 9), (3,)))])
    assert asked == [
        NextTokens((1, 2), ((0, 0, 5), (0, 1, 5), (0, 2, 3))),
        NextTokens((1, 2, 5), ((0, 0, 6), (0, 1, 9))),
        NextTokens((1, 2, 5, 6), ((0, 0, 4),)),
    ]
    assert asked[0].tokens == (5, 3)


def test_equal_texts_are_asked_once_however_they_are_cut():
    asked = next_tokens([Prompt(((1,), (2,)), ((7,), (8,))), Prompt(((1, 2),), ((7,), (9,)))])
    assert asked == [NextTokens((1, 2), ((0, 0, 7), (0, 1, 8), (1, 0, 7), (1, 1, 9)))]


def test_prompts_stay_in_the_order_of_the_plan():
    prompts = [Prompt(((k,),), ((7,), (8,))) for k in (3, 1, 2)]
    assert [question.text for question in next_tokens(prompts)] == [(3,), (1,), (2,)]
    assert next_tokens([]) == []


def test_labels_that_begin_another_are_refused():
    with pytest.raises(LabelTokenError):
        next_tokens([Prompt(((1,),), ((7,), (7, 8)))])


tokens = st.integers(0, 2)


@given(
    st.lists(st.lists(st.tuples(tokens, tokens).map(tuple), min_size=1, max_size=3), min_size=1, max_size=4),
    st.lists(st.lists(tokens, min_size=1, max_size=3).map(tuple), min_size=2, max_size=4, unique=True),
)
def test_every_label_is_the_product_over_its_tokens(segments, labels):
    if any(a != b and b[: len(a)] == a for a in labels for b in labels):
        return
    prompts = [Prompt(tuple(some), tuple(labels)) for some in segments]
    asked = next_tokens(prompts)
    for number, prompt in enumerate(prompts):
        whole = tuple(token for segment in prompt.segments for token in segment)
        for candidate, label in enumerate(labels):
            read = [(q.text, token) for q in asked for n, c, token in q.reads if (n, c) == (number, candidate)]
            wanted = [(whole + label[:end], token) for end, token in enumerate(label)]
            assert sorted(read, key=lambda pair: len(pair[0])) == wanted
    assert len({question.text for question in asked}) == len(asked) <= unshared_tokens(prompts)
