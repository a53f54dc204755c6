from hypothesis import given
from hypothesis import strategies as st

from elicitor.backends.base import Prompt
from elicitor.backends.questions import Question, questions
from elicitor.backends.trie import token_cost


def test_labels_that_begin_alike_share_their_questions():
    # Labels 5 6 7, 5 6 8 and 9 after the prompt 1 2.
    prompt = Prompt(((1,), (2,)), ((5, 6, 7), (5, 6, 8), (9,)))
    assert questions([prompt]) == [
        Question((1, 2), ((0, 0, 5), (0, 1, 5), (0, 2, 9)), fresh=2),
        Question((1, 2, 5), ((0, 0, 6), (0, 1, 6)), fresh=1),
        Question((1, 2, 5, 6), ((0, 0, 7), (0, 1, 8)), fresh=1),
    ]
    assert questions([prompt])[0].wanted == (5, 9)


def test_prompts_that_begin_alike_stand_next_to_each_other_and_equal_ones_are_one():
    labels = ((7,), (8,))
    prompts = [Prompt(((1, 2), (3,)), labels), Prompt(((4,),), labels), Prompt(((1, 2), (5, 6)), labels)]
    asked = questions([*prompts, prompts[0]])
    assert [(question.tokens, question.fresh) for question in asked] == [((1, 2, 3), 3), ((1, 2, 5, 6), 2), ((4,), 1)]
    assert asked[0].reads == ((0, 0, 7), (0, 1, 8), (3, 0, 7), (3, 1, 8))


SEGMENTS = st.lists(st.integers(0, 2), min_size=1, max_size=3).map(tuple)
CANDIDATES = st.sampled_from([((10,), (11,)), ((10, 12), (10, 13)), ((10, 12, 14), (11,)), ((10, 12), (10, 13, 10))])


@given(st.lists(st.tuples(st.lists(SEGMENTS, min_size=1, max_size=4), CANDIDATES), min_size=1, max_size=6))
def test_every_label_token_is_asked_for_behind_its_own_prompt(drawn):
    prompts = [Prompt(tuple(segments), candidates) for segments, candidates in drawn]
    asked = questions(prompts)
    seen = {}
    for question in asked:
        for prompt, candidate, token in question.reads:
            seen.setdefault((prompt, candidate), []).append((question.tokens, token))
    for index, prompt in enumerate(prompts):
        text = tuple(token for segment in prompt.segments for token in segment)
        for number, candidate in enumerate(prompt.candidates):
            assert seen[index, number] == [(text + candidate[:k], candidate[k]) for k in range(len(candidate))]
    assert sum(question.fresh for question in asked) == token_cost(prompts).tokens_computed
