import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicitor.backends.fake import ByteTokenizer, FakeBackend
from elicitor.batching import fit_batches
from elicitor.data import Assignment, Dataset, Example, load_dataset
from elicitor.errors import ContextOverflowError, LabelTokenError
from elicitor.plan import Context
from elicitor.prompts import PromptEncoder, encode_after_word
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


def batches(made, window, *, size=256, policy="batch", shots=None, seed=0):
    return fit_batches(
        made.dataset,
        made.sizes(),
        batch_size=size,
        max_context_tokens=window,
        policy=policy,
        max_demonstrations=shots,
        rng=np.random.default_rng(seed),
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
        for target in part:
            others = sum(made.longest_demonstration(i) for i in part if i != target)
            assert others + len(made.query(target)) + made.longest_candidate <= window


@pytest.mark.parametrize(
    ("n", "size", "sizes"), [(9, 8, [4, 5]), (25, 8, [8, 8, 4, 5]), (16, 8, [8, 8]), (8, 8, [8]), (3, 1, [1, 1, 1])]
)
def test_the_last_batch_is_not_what_others_left(tmp_path, n, size, sizes):
    assert [len(part) for part in batches(encoder(tmp_path, ["x"] * n), 10_000, size=size)] == sizes


def test_the_last_batch_is_no_leftover_of_the_window_either(tmp_path):
    made = encoder(tmp_path, ["x" * 10] * 9)
    window = 8 * made.longest_demonstration(0) + len(made.query(0)) + made.longest_candidate
    assert [len(part) for part in batches(made, window)] == [9]
    assert [len(part) for part in batches(made, window - 20)] == [4, 5]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.integers(1, 6), st.integers(0, 3))
def test_even_batches_hold_every_group_whole_and_no_more_than_they_may(groups, size, seed):
    numbers = [number for number, members in enumerate(groups) for _ in range(members)]
    parts = batches(built(["x"] * len(numbers), groups=numbers), 10_000, size=size, seed=seed)
    assert sorted(i for part in parts for i in part) == list(range(len(numbers)))
    owners = [{numbers[i] for i in part} for part in parts]
    assert sum(map(len, owners)) == len(groups)
    assert all(len(part) <= size or len(owner) == 1 for part, owner in zip(parts, owners, strict=True))


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


def built(texts, *, tokenizer=None, groups=None, **declared):
    """An encoder of "{text}:" with " no" and " yes": a query of k + 1 bytes, a demonstration of at most k + 7."""
    task = load_task({"template": "{text}:", "labels": ["no", "yes"], **declared})
    groups = groups or range(len(texts))
    examples = tuple(
        Example(f"e{k}", {"text": text}, str(group), None, f"here {k}")
        for k, (text, group) in enumerate(zip(texts, groups, strict=True))
    )
    return PromptEncoder(tokenizer or ByteTokenizer(), task, Dataset(examples, task.label_space, "here", "print"))


@given(st.text(st.sampled_from("ab no:yes\n"), max_size=30), st.sampled_from([ByteTokenizer, Greedy, Sentencepiece]))
def test_what_follows_a_query_is_what_follows_it_in_a_demonstration(text, kind):
    tokenizer = kind()
    made = built([text], tokenizer=tokenizer, labels={"no": " no", "yes": " yes", "other": "b, ab"})
    query = made.query(0)
    assert query == tokenizer.encode(text + ":")
    ends = set()
    for label, candidate in enumerate(made.candidates):
        demonstration = made.demonstration(0, label)
        assert demonstration[: len(query) + len(candidate)] == query + candidate
        ends.add(demonstration[len(query) + len(candidate) :])
    assert len(ends) == 1
    assert made.prompt(Context(0, ()), Assignment((None,))).candidates == made.candidates


def test_tokens_never_merge_across_the_seam():
    made = built(["x"], tokenizer=Greedy(), template="{text} a", labels={"b": "b", "c": "c"}, separator="\n")
    whole = Greedy().encode("x ab\n")
    assert whole == (ord("x"), 1002, 1005)
    assert made.query(0) == (ord("x"), ord(" "), ord("a"))
    assert made.demonstration(0, 0) == (ord("x"), ord(" "), ord("a"), ord("b"), 1005)


def test_a_sentencepiece_blank_stands_before_queries_only():
    made = built(["x"], tokenizer=Sentencepiece())
    assert made.candidates == ((1001,), (1000,))
    assert made.demonstration(0, 1) == (ord(" "), ord("x"), ord(":"), 1000, 1004)


def test_a_tokenizer_that_swallows_the_letter_before_is_asked_without_it():
    class Pairs(Greedy):
        pieces = ("x\n", *Greedy.pieces)

    assert encode_after_word(Pairs(), "\n\n") == Pairs().encode("\n\n")
    assert encode_after_word(Pairs(), "yes") == tuple(map(ord, "yes"))


def test_no_separator_and_no_preamble_leave_nothing_behind():
    made = built(["x", "y"], separator="")
    assert made.start == ()
    assert made.demonstration(0, 1) == tuple(b"x: yes")
    prompt = made.prompt(Context(1, (0,)), Assignment((1, None)))
    assert prompt.segments == (tuple(b"x: yes"), tuple(b"y:"))
    assert built(["x"], tokenizer=Greedy()).prompt(Context(0, ()), Assignment((None,))).segments[0] == (0,)


def test_demonstrations_stand_in_the_order_of_the_context():
    made = built(list("abcd"))
    for order in ((0, 1, 2), (2, 0, 1), (1,)):
        prompt = made.prompt(Context(3, order), Assignment((0, 1, 0, 1)))
        assert prompt.segments == (*(made.demonstration(i, i % 2) for i in order), made.query(3))


def test_demonstrations_of_another_data_set_stand_before_a_query():
    train, test = built(["a", "b"], preamble="P"), built(["z"], preamble="P")
    prompt = test.prompt_with([train.demonstration(1, 0), train.demonstration(0, 1)], 0)
    assert b"".join(map(bytes, prompt.segments)) == b"Pb: no\n\na: yes\n\nz:"


def test_the_longest_demonstration_has_the_longest_label_and_the_separator():
    made = built(["four"], labels={"a": " b", "c": " much longer"}, separator="--")
    assert (made.longest_candidate, made.longest_demonstration(0)) == (12, 5 + 12 + 2)
    assert made.longest_demonstration(0) == max(len(made.demonstration(0, label)) for label in (0, 1))


@pytest.mark.parametrize("labels", [{"a": " un", "b": " under"}, {"b": " under", "a": " un"}])
def test_whichever_verbalizer_begins_the_other_is_named_first(labels):
    with pytest.raises(
        LabelTokenError, match=r"' un' begin those of ' under'.*; choose verbalizers of which none begins"
    ):
        built(["x"], labels=labels)


def test_verbalizers_whose_tokens_are_the_same_are_refused():
    class Folding(ByteTokenizer):
        def encode(self, text):
            return super().encode(text.lower())

    with pytest.raises(LabelTokenError, match=r"' Us' begin those of ' US'"):
        built(["x"], tokenizer=Folding(), labels={"a": " Us", "b": " US"})


def test_a_verbalizer_without_tokens_is_refused():
    with pytest.raises(LabelTokenError, match=r"verbalizer '' has no tokens; choose a text that is not empty"):
        built(["x"], labels={"a": " a", "b": ""})


@given(st.lists(st.text("abc", min_size=1, max_size=5), min_size=2, max_size=4, unique=True))
def test_exactly_the_sets_in_which_none_begins_another_are_accepted(words):
    labels = {str(n): word for n, word in enumerate(words)}
    if any(left != right and right.startswith(left) for left in words for right in words):
        with pytest.raises(LabelTokenError, match="begin those of"):
            built(["x"], labels=labels)
    else:
        assert [bytes(c).decode() for c in built(["x"], labels=labels).candidates] == words


sizes = st.lists(st.integers(0, 40), min_size=1, max_size=12)


@given(sizes, st.data())
def test_batches_are_whole_groups_that_fit_whatever_the_labels(lengths, data):
    groups = data.draw(st.lists(st.integers(0, 4), min_size=len(lengths), max_size=len(lengths)))
    size, window = data.draw(st.integers(1, 8)), data.draw(st.integers(60, 600))
    made = built(
        ["x" * length for length in lengths], groups=groups, preamble=data.draw(st.sampled_from(["", "P" * 9]))
    )
    try:
        parts = batches(made, window, size=size)
    except ContextOverflowError:
        # Refusing is right only where a query behind all others does not fit.
        total = sum(made.longest_demonstration(i) for i in range(len(lengths)))
        assert total + len(made.start) - len(made.separator) > window
        return
    assert sorted(i for part in parts for i in part) == list(range(len(lengths)))
    backend = FakeBackend(context=window)
    for part in parts:
        assert list(part) == sorted(part)
        within = {groups[i] for i in part}
        assert set(part) == {i for i in range(len(lengths)) if groups[i] in within}
        assert len(part) <= size or len(within) == 1
        longest = Assignment((1,) * len(lengths))
        backend.score([made.prompt(Context(i, tuple(j for j in part if j != i)), longest) for i in part])


def test_the_window_is_used_up_to_its_last_token():
    # Query 11, longest demonstration 17, longest label 4: a context is four demonstrations, a query and a label.
    made = built(["x" * 10] * 5)
    assert batches(made, 4 * 17 + 11 + 4) == ((0, 1, 2, 3, 4),)
    assert len(batches(made, 4 * 17 + 11 + 4 - 1)) > 1
    with_start = built(["x" * 10] * 5, preamble="P" * 40)
    assert batches(with_start, 4 * 17 + 11 + 4 + 40) == ((0, 1, 2, 3, 4),)
    assert len(batches(with_start, 4 * 17 + 11 + 4 + 40 - 1)) > 1


def test_policy_error_does_not_blame_the_window_for_the_sizes_of_groups():
    made = built(["x"] * 9, groups="aaabbbccc")
    assert sorted(map(len, batches(made, 10_000, size=5, policy="error"))) == [3, 3, 3]


def test_an_example_need_not_fit_behind_its_own_demonstration():
    alone = built(["x" * 50])
    # Query 51, longest label 4.
    assert batches(alone, 51 + 4) == ((0,),)
    with pytest.raises(ContextOverflowError, match="example 'e0' needs 55 tokens"):
        batches(alone, 51 + 4 - 1)


def test_an_example_fits_behind_the_shortest_demonstration_or_is_refused():
    made = built(["x" * 50, "y"])
    # Query 51, shortest demonstration 8, longest label 4; contexts of one demonstration.
    assert batches(made, 57 + 51 + 4, shots=1) == ((0, 1),)
    with pytest.raises(
        ContextOverflowError, match=r"^here 0: example 'e0' needs 63 tokens .* context holds 62; shorten"
    ):
        batches(made, 62, shots=1)


def test_bounded_contexts_of_a_window_hold_their_longest_demonstrations():
    made = built(["x" * 10] * 8 + ["x" * 30] * 2)
    # Demonstrations of 17 and 37, queries of 11 and 31, a label of 4.
    assert batches(made, 37 + 37 + 31 + 4, shots=2) == (tuple(range(10)),)
    with pytest.raises(ContextOverflowError, match=r"^2 demonstrations and a query .* leaves 84; set plan\.max"):
        batches(made, 37 + 17 + 31 + 4 - 1, shots=2)
    assert [len(part) for part in batches(made, 109, shots=2, size=4)] == [4, 3, 3]


def test_a_group_larger_than_a_batch_is_a_batch_of_its_own():
    made = built(["x"] * 7, groups="abbbbbc")
    parts = batches(made, 10_000, size=2)
    assert (1, 2, 3, 4, 5) in parts
    assert {i for part in parts for i in part} == set(range(7))


def test_a_group_too_long_for_the_window_is_named_under_either_policy():
    made = built(["x" * 20, "y" * 50, "y" * 50, "y" * 50], groups="abbb")
    for policy in ("batch", "error"):
        with pytest.raises(
            ContextOverflowError, match=r"^here 1: group 'b' takes 171 tokens, .* leaves 157 .*split the group"
        ):
            batches(made, 51 + 4 + 100, policy=policy)


def test_the_generator_alone_deals_groups_into_batches():
    made = built(["x"] * 40)

    def deal(seed):
        return batches(made, 10_000, size=10, policy="error", seed=seed)

    assert deal(1) == deal(1) != deal(2)
    assert [len(part) for part in deal(1)] == [10, 10, 10, 10]
    assert deal(1) != tuple(tuple(range(k, k + 10)) for k in (0, 10, 20, 30))
