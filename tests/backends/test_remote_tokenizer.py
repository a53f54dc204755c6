"""Tokenizers behind a server, and tokenizers that stand in for one."""

import json

import pytest

from elicitor.backends.fake import FakeBackend
from elicitor.errors import BackendError
from elicitor.labelling import run
from elicitor.models import load_backend

pytest.importorskip("httpx")
from world_server import World, prompts

from elicitor.backends.http_client import HttpClient, RefusedError
from elicitor.backends.remote_tokenizer import ServerTokenizer
from elicitor.config import RemoteConfig

SHORT = (b"N", b"Y")


def root(address):
    return address.partition("@")[2].removesuffix("/v1")


def test_each_text_is_asked_for_once_and_many_at_once(start):
    world = World()
    tokenizer = ServerTokenizer(HttpClient(RemoteConfig()), root(start(world)), "world")
    world.requests.clear()
    tokenizer.encode_all(["a", "bé", "a", ""])
    assert tokenizer.encode("bé") == tuple("bé".encode())
    assert (tokenizer.encode(""), tokenizer.start_ids, tokenizer.chat("hi")) == ((), (), None)
    assert tokenizer.decode(tokenizer.encode("bé")) == tokenizer.decode(tuple("bé".encode())) == "bé"
    assert [path for path, _, _ in world.requests] == ["/tokenize", "/tokenize", "/detokenize"]


def test_what_the_server_puts_before_a_text_is_the_start(start):
    bos = {"tokens": [1, 120, 2], "max_model_len": 9}
    world = World(fault=lambda number, path: {"body": json.dumps(bos)} if number == 1 else None)
    tokenizer = ServerTokenizer(HttpClient(RemoteConfig()), root(start(world)), "world")
    assert (tokenizer.start_ids, tokenizer.max_model_len) == ((1,), 9)


@pytest.mark.parametrize("body", ['{"tokens": []}', '{"tokens": ["a"]}', '{"tokens": 3}', "{}"])
def test_an_answer_without_tokens_is_no_tokenizer(start, body):
    world = World(fault=lambda number, path: {"body": body})
    with pytest.raises(RefusedError):
        ServerTokenizer(HttpClient(RemoteConfig()), root(start(world)), "world")


def test_a_data_set_is_tokenised_with_many_requests_under_way(start, settings, tmp_path):
    world = World(labels=SHORT)
    run(settings(start(world)), tmp_path / "run")
    asked = [body["prompt"] for path, body, _ in world.requests if path == "/tokenize"]
    assert len(asked) == len({(text, i) for i, text in enumerate(asked)})
    assert {f"text {i}:" for i in range(10)} <= set(asked)
    assert sum(text == "text 3:" for text in asked) == 1


@pytest.fixture
def bytes_folder(tmp_path):
    """A tokenizer without merges: each byte is a token, under other ids than the server's."""
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    inner = tokenizers.Tokenizer(tokenizers.models.BPE({sign: i for i, sign in enumerate(alphabet)}, []))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=inner)
    fast.chat_template = "{% for m in messages %}<{{ m['content'] }}>{% endfor %}"
    fast.save_pretrained(tmp_path / "tokenizer")
    return str(tmp_path / "tokenizer")


def test_a_local_tokenizer_stands_in_where_the_server_has_none(start, settings, tmp_path, bytes_folder):
    world = World(
        labels=SHORT, tokenizer=None, token_prompts=False, exact=False, id_keys=False, unknown_fields="refused"
    )
    model = start(world)
    backend = load_backend(model, remote={"tokenizer": bytes_folder})
    assert backend.tokenizer.decode(backend.tokenizer.chat("hi")) == "<hi>"
    words = tuple(backend.tokenizer.encode(word.decode())[0] for word in SHORT)
    assert words != tuple(word[0] for word in SHORT)
    done = run(settings(model, tokenizer=bytes_folder), tmp_path / "remote")
    wanted = run(settings("fake"), tmp_path / "fake")
    assert [(item.id, item.label) for item in done.labels] == [(item.id, item.label) for item in wanted.labels]


def test_a_local_tokenizer_that_is_not_the_models_is_refused(start, bytes_folder):
    with pytest.raises(BackendError, match="is not that of the model behind"):
        load_backend(start(World(labels=SHORT)), remote={"tokenizer": bytes_folder})


def test_a_tokenizer_that_does_not_exist_is_named(start, tmp_path):
    pytest.importorskip("transformers")
    pytest.importorskip("torch")
    with pytest.raises(BackendError, match=r"tokenizer '.*nothing' could not be loaded"):
        load_backend(start(World(tokenizer=None)), remote={"tokenizer": str(tmp_path / "nothing")})


def test_a_tokenizer_that_counts_otherwise_than_the_server_is_found_out(start, bytes_folder):
    """Where the server has no /tokenize, its count of prompt tokens tells."""
    world = World(labels=SHORT, tokenizer=None, max_read=5)
    with pytest.raises(
        BackendError, match=r"counts \d+ tokens where the tokenizer counts \d+; set backend.remote.tokenizer"
    ):
        load_backend(start(world), remote={"tokenizer": bytes_folder})


def test_scores_through_the_server_tokenizer_are_the_models(start):
    backend = load_backend(start(World(labels=SHORT)))
    assert backend.score(prompts(SHORT)).log_probs == pytest.approx(FakeBackend().score(prompts(SHORT)).log_probs)
