import pytest

pytest.importorskip("transformers")

from transformers import AutoTokenizer

from elicitor.errors import DataError
from elicitor.train.rendering import Rendering, chat_ids, first_turn, messages, plain_prompt

DIALOGUE = "Human: hi\n\nAssistant: yes?\n\nHuman: why"


@pytest.mark.parametrize(
    ("prompt", "roles"),
    [
        ("why", ["user"]),
        (DIALOGUE, ["user", "assistant", "user"]),
        ("Human: hi\n\nAssistant: yes?", ["user"]),
        ("Assistant: a\n\nHuman: b", ["user"]),
        ("what does Human: mean\n\nHuman: here", ["user"]),
        ("Human: a\n\nHuman: b\n\nHuman: c", ["user"]),
    ],
)
def test_only_whole_dialogues_are_split_into_turns(prompt, roles):
    turns = messages(prompt)
    assert [turn["role"] for turn in turns] == roles
    if len(turns) == 1:
        assert turns[0]["content"] == prompt


def test_chat_rendering_to_the_letter(tiny):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    ids, cut = Rendering.of(tokenizer, max_length=100).tokens(tokenizer, DIALOGUE, "so")
    assert tokenizer.decode(ids) == "<u>hi</s><a>yes?</s><u>why</s><a>so</s>"
    assert not cut
    opened = chat_ids(tokenizer, messages(DIALOGUE), ends=False)
    assert tokenizer.decode(opened) == "<u>hi</s><a>yes?</s><u>why</s><a>"


def test_plain_rendering_continues_the_prompt_and_ends_in_eos(plain):
    tokenizer = AutoTokenizer.from_pretrained(plain)
    rendering = Rendering.of(tokenizer, max_length=100)
    assert rendering.kind == "plain"
    ids, _ = rendering.tokens(tokenizer, "why", "so")
    assert tokenizer.decode(ids).replace("<s>", "") == "Human: why\n\nAssistant: so</s>"
    assert plain_prompt(DIALOGUE) == "Human: hi\n\nAssistant: yes?\n\nHuman: why\n\nAssistant:"
    assert first_turn(" so\n\nHuman: and then?") == "so"


def test_too_long_prompts_lose_their_oldest_tokens_and_say_so(tiny):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    ids, cut = Rendering("chat", 8).tokens(tokenizer, "a long question", "short")
    assert tokenizer.decode(ids).endswith("<a>short</s>")
    assert (len(ids), cut) == (8, True)


def test_unknown_renderings_are_refused():
    assert Rendering.from_json(Rendering("chat", 9).to_json()) == Rendering("chat", 9)
    with pytest.raises(DataError, match="unknown rendering"):
        Rendering.from_json({"kind": "poem", "max_length": 9})
