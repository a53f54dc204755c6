import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicitor.backends.fake import ByteTokenizer
from elicitor.data import Assignment, Dataset, Example, load_dataset
from elicitor.errors import ContextOverflowError, LabelTokenError
from elicitor.plan import Context
from elicitor.prompts import PromptEncoder, encode_after_word, fit_batches
from elicitor.tasks import load_task


def encoder(folder, texts, *, tokenizer=None, groups=None, **declared):
    declared = {"labels": {"no": " no", "yes": " yes"}, **({"group": "g"} if groups else {}), **declared}
    task = load_task({"template": "Q: {text}\nA:", **declared})
    rows = [{"text": text, "g": groups[k] if groups else str(k)} for k, text in enumerate(texts)]
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return PromptEncoder(tokenizer or ByteTokenizer(), task, load_dataset(str(folder / "x.jsonl"), task))


class Greedy:
    """Joins a blank to the word after it and merges "ab" across any seam it can see, as byte-pair encoders do."""

    start_ids = (0,)
    pieces = (" yes", " no", " ab", "ab", "\n\n", "\n")

    def encode(self, text):
        ids = []
        while text:
            piece = next((p for p in self.pieces if text.startswith(p)), text[0])
            ids.append(1000 + self.pieces.index(piece) if piece in self.pieces else ord(piece))
            text = text[len(piece) :]
        return tuple(ids)

    def decode(self, ids):
        return "".join(self.pieces[i - 1000] if i >= 1000 else chr(i) for i in ids)


class Sentencepiece(Greedy):
    """Puts a blank of its own before any text, as SentencePiece does."""

    def encode(self, text):
        return Greedy.encode(self, text if text.startswith(" ") else " " + text) if text else ()


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), Greedy()])
def test_a_query_tokenises_as_it_does_inside_a_demonstration(tmp_path, tokenizer):
    made = encoder(tmp_path, ["xa", "b?"], tokenizer=tokenizer)
    for position, label in ((0, 0), (0, 1), (1, 1)):
        demonstration = made.demonstration(position, label)
        query = made.query(position)
        assert demonstration[: len(query)] == query
        after = demonstration[len(query) :]
        assert after[: len(made.candidates[label])] == made.candidates[label]
        assert tokenizer.decode(demonstration) == f"Q: {['xa', 'b?'][position]}\nA:{[' no', ' yes'][label]}\n\n"


def test_a_prompt_is_start_demonstrations_query(tmp_path):
    made = encoder(tmp_path, ["one", "two", "three"], tokenizer=Greedy(), preamble="P\n")
    prompt = made.prompt(Context(2, (1, 0)), Assignment((1, 0, None)))
    assert Greedy().decode(prompt.segments[0][1:]) == "P\n"
    text = "".join(Greedy().decode(segment) for segment in prompt.segments[1:])
    assert text == "Q: two\nA: no\n\nQ: one\nA: yes\n\nQ: three\nA:"
    assert prompt.segments[1] is made.prompt(Context(0, (1,)), Assignment((None, 0, None))).segments[1]
    with pytest.raises(ValueError, match="no label"):
        made.prompt(Context(0, (2,)), Assignment((1, 0, None)))


@given(st.text(max_size=200))
def test_nothing_is_ever_cut(text):
    task = load_task({"template": "{text}:", "labels": ["no", "yes"]})
    made = PromptEncoder(ByteTokenizer(), task, _one(task, text))
    assert bytes(made.query(0)).decode() == text + ":"


def _one(task, text):
    return Dataset((Example("a", {"text": text}, "a", None, "here"),), task.label_space, "here", "print")


def test_verbalizers_of_several_tokens_may_share_their_first(tmp_path):
    made = encoder(tmp_path, ["x"], labels={"a": " not at all", "b": " not bad"})
    assert made.candidates[0][:5] == made.candidates[1][:5]
    assert [bytes(ids).decode() for ids in made.candidates] == [" not at all", " not bad"]
    assert made.longest_candidate == 11


def test_a_verbalizer_that_begins_another_is_refused(tmp_path):
    with pytest.raises(LabelTokenError, match=r"' no' begin those of ' none'"):
        encoder(tmp_path, ["x"], labels={"no": " no", "none": " none"})


def test_sentencepiece_adds_no_blank_before_a_separator():
    assert encode_after_word(Sentencepiece(), "\n\n") == (1004,)
    assert encode_after_word(Sentencepiece(), " yes") == (1000,)
    assert encode_after_word(Greedy(), " yes") == (1000,)


def batches(made, window, *, size=256, policy="batch", shots=None):
    return fit_batches(
        made,
        batch_size=size,
        max_context_tokens=window,
        policy=policy,
        max_demonstrations=shots,
        rng=np.random.default_rng(0),
    )


def test_what_fits_is_one_batch_in_order(tmp_path):
    assert batches(encoder(tmp_path, ["x"] * 5), 10_000) == ((0, 1, 2, 3, 4),)


def test_batches_hold_whole_groups_and_fit_the_window(tmp_path):
    groups = list("aabbccddee")
    made = encoder(tmp_path, ["x" * 10] * 10, groups=groups)
    parts = batches(made, 10_000, size=4)
    assert sorted(i for part in parts for i in part) == list(range(10))
    assert all(len(part) <= 4 for part in parts)
    for part in parts:
        assert {groups[i] for i in part}.isdisjoint({groups[i] for other in parts if other is not part for i in other})
    window = 150
    for part in batches(made, window):
        longest = sum(made.longest_demonstration(i) for i in part) + len(made.query(0)) + made.longest_candidate
        assert longest <= window


def test_an_example_too_long_is_named_not_cut(tmp_path):
    made = encoder(tmp_path, ["x", "y" * 300, "z"])
    with pytest.raises(
        ContextOverflowError, match=r"x\.jsonl line 2: example 'row-2' needs 323 tokens.*shorten or drop"
    ):
        batches(made, 200)


def test_a_group_too_long_is_named(tmp_path):
    made = encoder(tmp_path, ["x" * 50] * 4 + ["y"], groups=list("aaaab"))
    with pytest.raises(ContextOverflowError, match=r"line 1: group 'a' takes"):
        batches(made, 200)


def test_policy_error_stops_where_smaller_batches_would_be_needed(tmp_path):
    made = encoder(tmp_path, ["x" * 50] * 8)
    assert len(batches(made, 200)) > 1
    with pytest.raises(ContextOverflowError, match="batch_size lower"):
        batches(made, 200, policy="error")


def test_sampled_contexts_must_fit_at_their_longest(tmp_path):
    made = encoder(tmp_path, ["x" * 50] * 8)
    assert batches(made, 300, shots=2) == (tuple(range(8)),)
    with pytest.raises(ContextOverflowError, match=r"plan\.max_demonstrations lower"):
        batches(made, 300, shots=6)
