"""Labels through HTTP are those of the same model without it, whatever the server understands."""

import itertools
import json

import numpy as np
import pytest

from elicitor.backends.fake import FakeBackend
from elicitor.dry_run import estimate
from elicitor.errors import BackendError, ConfigError, ContextOverflowError, LabelTokenError, ResumeMismatchError
from elicitor.labelling import prepare, run
from elicitor.models import load_backend

pytest.importorskip("httpx")
from world_server import World, prompts

from elicitor.backends.completions import Dialect
from elicitor.backends.openai import OpenAIBackend
from elicitor.backends.remote_server import Served
from elicitor.config import RemoteConfig

pytestmark = pytest.mark.filterwarnings("ignore:the server does not tell how many prompt tokens")

SHORT = (b"N", b"Y")
SECRET = 'sk-not"for\\anyone-8f1c'

KINDS = {
    "vllm": {},
    "serve_hf": {"fingerprint": "abc", "cached": True},
    "vllm_without_exact": {"exact": False},
    "sglang": {"exact": False, "id_keys": False, "tokenizer": "sglang"},
    "llama_cpp": {"style": "llama_cpp", "exact": False, "several": False, "tokenizer": "llama_cpp"},
    "hosted": {"unknown_fields": "refused", "max_top": 5, "id_keys": False, "exact": False},
    "text_only": {"token_prompts": False, "exact": False, "id_keys": False, "usage": False},
    "text_one_by_one": {"token_prompts": False, "several": False, "exact": False, "id_keys": False},
}


def shared_tokens(left, right):
    return next((k for k, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def labels(done):
    return [(item.id, item.label) for item in done.labels]


@pytest.mark.parametrize("words", [(b" no", b" yes"), (b"N", b"Y"), (b" maybe", b" may not", b" never")])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_model_itself(start, kind, words):
    backend = load_backend(start(World(labels=words, **KINDS[kind])))
    scores = backend.score(prompts(words))
    np.testing.assert_allclose(scores.log_probs, FakeBackend().score(prompts(words)).log_probs, atol=1e-9)
    assert (scores.cost.prompts, scores.cost.bounded) == (4, 0)


@pytest.mark.parametrize("kind", ["vllm", "llama_cpp", "hosted", "text_only"])
def test_labels_are_those_of_the_model_itself(start, settings, tmp_path, kind):
    wanted = run(settings("fake"), tmp_path / "fake")
    done = run(settings(start(World(labels=SHORT, **KINDS[kind]))), tmp_path / "remote")
    assert labels(done) == labels(wanted)
    assert done.metrics["batches"][0]["utility"] == pytest.approx(wanted.metrics["batches"][0]["utility"])
    # The server told no count of what it had cached, so the cost is that of a cache which shares every prefix.
    assert done.metrics["cost"]["tokens_computed"] == wanted.metrics["cost"]["tokens_computed"]


@pytest.mark.parametrize(
    ("kind", "requests", "dialect"),
    [
        ("vllm", 1, Dialect(True, True, True, True, 20)),
        ("vllm_without_exact", 2, Dialect(True, True, False, True, 20)),
        ("llama_cpp", 5, Dialect(True, False, False, True, 20)),
        ("hosted", 3, Dialect(True, True, False, False, 5)),
    ],
)
def test_what_a_server_understands_is_found_out_with_few_short_requests(start, kind, requests, dialect):
    world = World(labels=SHORT, **KINDS[kind])
    backend = load_backend(start(world))
    asked = [body for path, body, _ in world.requests if path == "/v1/completions"]
    assert len(asked) == requests
    assert backend.dialect == dialect
    assert sum(len(json.dumps(body)) for body in asked) < 1500 * requests


def test_prompts_of_one_request_stand_in_plan_order_and_are_asked_once(start):
    world = World(labels=SHORT)
    backend = load_backend(start(world), remote={"batch_prompts": 3, "concurrency": 1})
    world.requests.clear()
    backend.score(prompts(SHORT, 6), keep=True)
    sent = [tuple(prompt) for _, body, _ in world.requests for prompt in body["prompt"]]
    # In the tree of prefixes an end comes before what goes on, and the texts share ever longer beginnings.
    assert sorted(sent) == sorted(
        tuple(token for part in prompt.segments for token in part) for prompt in prompts(SHORT, 6)
    )
    shared = [shared_tokens(*pair) for pair in itertools.pairwise(sent)]
    assert shared == sorted(shared)
    assert [len(body["prompt"]) for _, body, _ in world.requests] == [3, 3, 1]
    world.requests.clear()
    again = backend.score(prompts(SHORT, 6), keep=True)
    assert world.requests == []
    assert again.cost.tokens_computed == 0


def test_cost_is_the_servers_own_count_where_it_tells_one_for_each_prompt(start):
    each = load_backend(start(World(labels=SHORT, cached=True)), remote={"batch_prompts": 1})
    # This server takes all but the last token of any prompt from its cache.
    assert each.score(prompts(SHORT)).cost.tokens_computed == 4
    own = load_backend(start(World(labels=SHORT, cached=True, fingerprint="abc")))
    assert own.score(prompts(SHORT)).cost.tokens_computed == 4
    # Of several prompts vLLM tells the last one's only, so that count is not used.
    together = load_backend(start(World(labels=SHORT, cached=True)))
    fake = FakeBackend().score(prompts(SHORT)).cost
    counted = together.score(prompts(SHORT)).cost
    assert (counted.tokens_computed, counted.tokens_reused) == (fake.tokens_computed, fake.tokens_reused)


def test_a_label_that_is_not_listed_gets_its_bound_and_is_counted(start, settings, tmp_path):
    # With one token listed of two labels, what is left to 1 is the other label's probability.
    model = start(World(labels=SHORT, exact=False, max_top=1))
    done = run(settings(model, top_k=1), tmp_path / "remote")
    wanted = run(settings("fake"), tmp_path / "fake")
    assert labels(done) == labels(wanted)
    assert done.metrics["cost"]["bounded"] > 20
    assert wanted.metrics["cost"]["bounded"] == 0


def test_no_listed_label_is_an_error_and_never_a_number(start):
    backend = load_backend(start(World(labels=SHORT, exact=False, max_top=3, ahead=3)), remote={"top_k": 3})
    with pytest.raises(BackendError, match=r"the label is unknown.*top_k higher.*logprob_token_ids"):
        backend.score(prompts(SHORT))


@pytest.mark.parametrize(
    ("world", "remote", "message"),
    [
        ({"style": "no_logprobs"}, {}, "answered without log-probabilities"),
        ({"tokenizer": None}, {}, r"has no /tokenize.*set backend.remote.tokenizer"),
        ({"window": None}, {}, r"does not tell the context window.*backend.remote.context"),
        ({"several": False, "exact": False, "max_top": 4}, {}, r"HTTP 400: logprobs must be at most 4"),
        ({"token_prompts": False}, {"prompts": "tokens"}, r"HTTP 400: prompt must be a string"),
    ],
)
def test_a_server_that_will_not_do_is_refused_in_one_line(start, world, remote, message):
    with pytest.raises(BackendError, match=message) as caught:
        load_backend(start(World(**world)), remote=remote)
    assert "\n" not in str(caught.value)


def test_a_server_that_cuts_prompts_without_a_word_is_found_out(start):
    backend = load_backend(start(World(labels=SHORT, max_read=40)))
    with pytest.raises(BackendError, match=r"read \d+ prompt tokens where \d+ were sent"):
        backend.score(prompts(SHORT, 6))


def test_the_window_is_the_servers_or_the_settings(start):
    model = start(World(labels=SHORT, window=30))
    with pytest.raises(ContextOverflowError, match="does not fit the 30 of openai:world"):
        load_backend(model).score(prompts(SHORT))
    assert load_backend(model, remote={"context": 500}).max_context_tokens == 500
    llama = World(labels=SHORT, window=123, style="llama_cpp", tokenizer="llama_cpp", exact=False, several=False)
    assert load_backend(start(llama)).max_context_tokens == 123


def test_a_server_of_another_model_is_refused(start):
    with pytest.raises(BackendError, match=r"serves 'world', not 'moon'; use openai:world@http"):
        load_backend(start(World(), model="moon"))


def test_the_fingerprint_follows_the_model_and_not_the_address(start):
    def fingerprint(**world):
        return load_backend(start(World(**world)))

    same = [fingerprint(build="b1"), fingerprint(build="b1")]
    assert same[0].fingerprint == same[1].fingerprint
    others = [
        fingerprint(),
        fingerprint(build="b2"),
        fingerprint(fingerprint="f"),
        fingerprint(model="m"),
        fingerprint(exact=False),
    ]
    assert len({backend.fingerprint for backend in (same[0], *others)}) == 6
    assert "127.0.0.1" not in same[0].fingerprint + same[0].name


def test_a_run_goes_on_behind_another_address_but_not_with_another_model(start, settings, tmp_path):
    class Stop(Exception):
        pass

    def stop(step):
        if step.state.iteration == 5:
            raise Stop

    whole = run(settings(start(World(labels=SHORT))), tmp_path / "whole")
    with pytest.raises(Stop):
        run(settings(start(World(labels=SHORT))), tmp_path / "run", observer=stop)
    with pytest.raises(ResumeMismatchError, match="model = 'openai:world', now it is 'openai:moon'"):
        run(settings(start(World(labels=SHORT, model="moon"))), tmp_path / "run", resume=True)
    with pytest.raises(ResumeMismatchError, match=r"served as unknown.*served as b2"):
        run(settings(start(World(labels=SHORT, build="b2"))), tmp_path / "run", resume=True)
    with pytest.raises(ResumeMismatchError, match=r"backend\.remote\.top_k"):
        run(settings(start(World(labels=SHORT)), top_k=7), tmp_path / "run", resume=True)
    elsewhere = start(World(labels=SHORT))
    done = run(settings(elsewhere, concurrency=2, timeout=9, batch_prompts=4), tmp_path / "run", resume=True)
    assert labels(done) == labels(whole)
    assert elsewhere in (tmp_path / "run" / "config.yaml").read_text()


def test_a_dry_run_sends_no_prompts_and_prices_them(start, settings):
    world = World(labels=SHORT)
    workload = prepare(settings(start(world), price_per_million=2.0))
    before = sum(path == "/v1/completions" for path, _, _ in world.requests)
    plan = estimate(workload)
    assert sum(path == "/v1/completions" for path, _, _ in world.requests) == before == 1
    assert plan.tokens_per_second is plan.seconds is None
    assert plan.price == (plan.tokens_sent[0] * 2 / 1e6, plan.tokens_sent[1] * 2 / 1e6)
    assert plan.tokens_sent[0] > plan.tokens[0] > 0
    assert estimate(prepare(settings("fake"))).tokens_sent == plan.tokens_sent


@pytest.mark.parametrize("search", ["icm", "bootstrap"])
@pytest.mark.parametrize("plan", ["tree", "in_order"])
def test_what_a_run_sends_lies_within_what_the_dry_run_said(start, settings, tmp_path, search, plan):
    world = World(labels=SHORT)
    config = settings(start(world))
    config = config.model_copy(update={"search": search, "plan": config.plan.model_copy(update={"kind": plan})})
    workload = prepare(config)
    told = estimate(workload)
    world.requests.clear()
    run(config, tmp_path / "run", backend=workload.backend)
    sent = sum(
        len(prompt) for path, body, _ in world.requests if path == "/v1/completions" for prompt in body["prompt"]
    )
    # The filling at the end is not part of the estimate; questions that were asked before are not sent again.
    assert told.tokens_sent[0] * 0.8 <= sent <= told.tokens_sent[1] * 1.1


class Merging:
    """A tokenizer of bytes for which ``ab`` is one token."""

    start_ids = (256,)

    def encode(self, text):
        return tuple(text.replace("ab", "\xff").encode("latin-1"))

    def decode(self, ids):
        return bytes(ids).decode("latin-1").replace("\xff", "ab")


def test_text_that_would_be_read_as_other_tokens_is_refused(start):
    dialect = Dialect(False, False, False, False, 5)
    backend = OpenAIBackend(
        None, "", Merging(), served=Served("m", "", 99, False), dialect=dialect, settings=RemoteConfig()
    )
    assert backend._text((256, *b"ba")) == "ba"
    with pytest.raises(LabelTokenError, match="'ab' does not tokenise to the 2 tokens"):
        backend._text((256, *b"ab"))


@pytest.mark.parametrize("address", ["http://me:pw@host/v1", "https://host/v1?key=s3", "http://pw@host/v1"])
def test_addresses_with_secrets_are_refused_without_repeating_them(address):
    with pytest.raises(ConfigError, match="carries a user, a password or a query") as caught:
        load_backend(f"openai:m@{address}")
    assert "pw" not in str(caught.value)
    assert "s3" not in str(caught.value)


def test_the_key_is_sent_and_shown_nowhere(start, settings, tmp_path, monkeypatch, caplog):
    caplog.set_level("DEBUG")
    monkeypatch.setenv("OPENAI_API_KEY", SECRET + "\n")
    world = World(labels=SHORT)
    done = run(settings(start(world)), tmp_path / "run")
    assert all(headers["Authorization"] == f"Bearer {SECRET}" for _, _, headers in world.requests)
    assert done.labels
    world.echoes_key = True
    with pytest.raises(BackendError, match=r"HTTP 400: told to fail Bearer \[key\]") as caught:
        load_backend(start(World(echoes_key=True)))
    shown = [str(caught.value), repr(caught.value), caplog.text, *(repr(record.args) for record in caplog.records)]
    shown += [path.read_text() for path in (tmp_path / "run").iterdir()]
    for form in (SECRET, json.dumps(SECRET)[1:-1], repr(SECRET)[1:-1]):
        assert all(form not in text for text in shown)


def test_header_compression_of_http2_logs_no_key(caplog):
    hpack = pytest.importorskip("hpack")
    from elicitor.backends.http_client import HttpClient

    caplog.set_level("DEBUG")
    HttpClient(RemoteConfig(http2=True), key=SECRET)
    hpack.Encoder().encode([("authorization", "Bearer sk-plain")])
    # Besides the value it logs the encoded bytes, from which anybody can read it.
    assert not [record for record in caplog.records if record.name.startswith("hpack")]


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel"])
def test_keys_that_cannot_be_sent_are_not_shown_either(monkeypatch, key):
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(ConfigError, match="MY_KEY holds blanks or signs") as caught:
        load_backend("openai:m@http://127.0.0.1:9/v1", remote={"api_key_env": "MY_KEY"})
    assert key not in str(caught.value)


def test_a_key_that_was_named_must_be_there(monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ConfigError, match="MY_KEY is not set"):
        load_backend("openai:m@http://127.0.0.1:9/v1", remote={"api_key_env": "MY_KEY"})
