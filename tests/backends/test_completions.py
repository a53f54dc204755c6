import math

import numpy as np
import pytest

from elicitor.backends.completions import (
    Dialect,
    NextToken,
    cached_tokens,
    prompt_tokens,
    read_choices,
    read_drawn,
    request_body,
    settle,
)
from elicitor.errors import BackendError


def test_requests_say_what_the_dialect_allows():
    full = Dialect(token_prompts=True, several=True, exact=True, extensions=True, top_k=20)
    assert request_body("m", [(1, 2), (3,)], [7, 8], full) == {
        "model": "m",
        "prompt": [[1, 2], [3]],
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": 1,
        "logprob_token_ids": [7, 8],
        "return_tokens_as_token_ids": True,
    }
    plain = Dialect(token_prompts=False, several=False, exact=False, extensions=False, top_k=5)
    assert request_body("m", ["text"], [7, 8], plain) == {
        "model": "m",
        "prompt": "text",
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": 5,
    }


def choice(top, index=0):
    return {"index": index, "logprobs": {"top_logprobs": [top]}}


def test_answers_are_put_into_the_order_of_their_prompts():
    answer = {"choices": [choice({"token_id:5": -0.5}, 1), choice({"token_id:5": -0.25}, 0)]}
    assert [found.by_id[5] for found in read_choices(answer, 2)] == [-0.25, -0.5]


def test_the_three_forms_of_answers():
    (vllm,) = read_choices({"choices": [choice({"token_id:5": -0.5, "token_id:12": -1})]}, 1)
    assert vllm == NextToken({5: -0.5, 12: -1.0}, {})
    (openai,) = read_choices({"choices": [choice({" yes": -0.5, "token_id:": -3})]}, 1)
    assert openai == NextToken({}, {" yes": -0.5, "token_id:": -3.0})
    content = [{"id": 5, "top_logprobs": [{"id": 5, "token": " yes", "logprob": -0.5}]}]
    (llama,) = read_choices({"choices": [{"index": 0, "logprobs": {"content": content}}]}, 1)
    assert llama == NextToken({5: -0.5}, {})
    assert vllm.get(12, str) == -1
    assert vllm.get(6, str) is None
    assert openai.get(6, lambda token: " yes") == -0.5


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({}, "no choices to 1 prompts; set backend.remote.batch_prompts=1"),
        ({"choices": [choice({"a": -1}), choice({"a": -1})]}, "2 choices to 1 prompts"),
        ({"choices": [{"index": 0}]}, "without log-probabilities"),
        ({"choices": [{"index": 0, "logprobs": None}]}, "without log-probabilities"),
        ({"choices": [{"index": 0, "logprobs": {"top_logprobs": []}}]}, "without log-probabilities"),
        ({"choices": [choice({})]}, "without log-probabilities"),
        ({"choices": [choice({"a": float("nan")})]}, "not a number"),
        ({"choices": [choice({"a": None})]}, "unknown form"),
        ({"choices": [choice(["a"])]}, "unknown form"),
        ({"choices": [choice({"a": 10**400})]}, "unknown form"),
        ({"choices": [choice({"a": 12.5})]}, "12.5 as a log-probability, which is none above 0"),
        ({"choices": [{"index": 0, "logprobs": {"content": [{"top_logprobs": [{"id": 1}]}]}}]}, "unknown form"),
    ],
)
def test_broken_answers_are_errors(answer, message):
    with pytest.raises(BackendError, match=message):
        read_choices(answer, 1)


def test_an_unlisted_token_is_bounded_by_the_last_listed_and_by_what_is_left():
    # 0.5 + 0.3 + 0.1 are listed, so 0.1 is left: the last listed and the rest are alike.
    listed = {1: math.log(0.5), 2: math.log(0.3), 3: math.log(0.1)}
    assert NextToken(listed, {}).bound == pytest.approx(math.log(0.1), abs=1e-4)
    # 0.6 + 0.3 are listed: 0.1 is left, less than the last listed.
    assert NextToken({1: math.log(0.6), 2: math.log(0.3)}, {}).bound == pytest.approx(math.log(0.1), abs=1e-4)
    # 0.2 + 0.01 are listed: no other is more probable than 0.01.
    assert NextToken({}, {"a": math.log(0.2), "b": math.log(0.01)}).bound == math.log(0.01)
    # All is listed, as far as single precision tells.
    assert -15 < NextToken({1: 0.0, 2: -10.0}, {}).bound < -10


def test_bounds_are_accepted_where_they_decide_nothing():
    log_probs = np.asarray([[-1.0, -3.0, -3.0], [-2.0, -2.0, -5.0], [-0.1, -4.0, -2.0]])
    is_bound = np.asarray([[False, True, True], [True, False, False], [False, False, False]])
    assert settle(log_probs, is_bound, top_k=5) == 3
    assert settle(np.zeros((0, 2)), np.zeros((0, 2), bool), top_k=5) == 0


@pytest.mark.parametrize(
    ("log_probs", "is_bound"),
    [
        ([[-3.0, -3.0]], [[True, True]]),
        # A label of several tokens may be listed at first and still be less probable than what another could be.
        ([[-3.0, -4.0]], [[True, False]]),
    ],
)
def test_bounds_that_may_hide_the_label_are_errors(log_probs, is_bound):
    with pytest.raises(BackendError, match=r"1 of 1 prompts: the label is unknown.* among the 5 tokens"):
        settle(np.asarray(log_probs), np.asarray(is_bound), top_k=5)


def test_counts_are_read_if_they_are_there():
    assert prompt_tokens({}) is cached_tokens({}) is None
    assert prompt_tokens({"usage": None}) is cached_tokens({"usage": {"prompt_tokens_details": None}}) is None
    usage = {"usage": {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4}}}
    assert (prompt_tokens(usage), cached_tokens(usage)) == (9, 4)


def test_answers_that_are_numbered_twice_are_not_taken_for_one_another():
    with pytest.raises(BackendError, match=r"numbered 2 choices \[0, 0\]"):
        read_choices({"choices": [choice({"a": -1}, 0), choice({"a": -2}, 0)]}, 2)


@pytest.mark.parametrize(
    "usage", [[], "x", 5, {"prompt_tokens": True, "completion_tokens": -1}, {"prompt_tokens": "9"}]
)
def test_counts_that_are_none_are_not_told(usage):
    answer = {"choices": [{"text": "a"}], "usage": usage}
    assert (prompt_tokens(answer), cached_tokens(answer), read_drawn(answer).tokens) == (None, None, None)


def test_a_part_of_a_character_is_not_found_by_its_text():
    listed = NextToken(by_id={}, by_text={"\ufffd": -0.05, " yes": -3.5})
    assert listed.get(7, {7: "\ufffd"}.__getitem__) is None
    assert listed.get(8, {8: " yes"}.__getitem__) == -3.5
