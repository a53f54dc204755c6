"""The server, over real connections."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tiny_models import REVIEWS, byte_tokenizer, tiny_llama

httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

from processes import running  # noqa: E402

from elicitor.backends.base import Prompt  # noqa: E402
from elicitor.backends.fake import FakeBackend  # noqa: E402
from elicitor.errors import ConfigError  # noqa: E402
from elicitor.serving import Limits, create_app  # noqa: E402

SCORING = {"max_tokens": 1, "temperature": 0, "logprobs": 0, "return_tokens_as_token_ids": True}


def complete(client, prompt, **options):
    return client.post("/v1/completions", json={"prompt": prompt, **SCORING, **options})


def top(answer):
    assert answer.status_code == 200, answer.text
    return [choice["logprobs"]["top_logprobs"][0] for choice in answer.json()["choices"]]


def assert_close(one, other):
    """The same tokens in the same order, with the same log-probabilities up to rounding."""
    for left, right in zip(top(one), top(other), strict=True):
        assert list(left) == list(right)
        np.testing.assert_allclose(list(left.values()), list(right.values()), atol=1e-4)


def cached(answer):
    return answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]


def error(answer, status):
    assert answer.status_code == status, answer.text
    content = answer.json()
    assert set(content) == {"error"}
    assert content["error"]["code"] == status
    return content["error"]["message"]


def metrics(client):
    text = client.get("/metrics").text
    return {name: float(value) for name, value in re.findall(r"^elicitor_(\w+?)(?:_total)? ([\d.]+)$", text, re.M)}


@pytest.fixture(scope="module")
def model():
    """A tiny random model, and one of its own for comparison."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    from elicitor.backends.hf import HfBackend

    words = byte_tokenizer(REVIEWS, vocab_size=280, special=["<unk>", "<s>", "</s>"])
    words.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>")
    config = tiny_llama(len(fast), window=256, initializer_range=0.3, bos_token_id=1, eos_token_id=2)
    torch.manual_seed(0)
    network = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()

    def make(**options):
        return HfBackend(network, fast, name="tiny", weights="x", **options)

    return make


def test_scores_over_http_are_those_of_score(serve, model):
    client, alone = serve(model()), model()
    rng = np.random.default_rng(0)
    demonstrations = [tuple(rng.integers(3, 250, size=rng.integers(4, 9)).tolist()) for _ in range(12)]
    candidates = ((5,), (60,), (9,))
    previous = 0
    for n in (6, 9, 12):
        prompts = [
            Prompt(((1,), *(demonstrations[j] for j in range(n) if j != i), demonstrations[i][:-1]), candidates)
            for i in range(n)
        ]
        wanted = alone.score(prompts, keep=True).log_probs
        flat = [[token for segment in prompt.segments for token in segment] for prompt in prompts]
        answer = complete(client, flat, logprobs=3, logprob_token_ids=[5, 60, 9])
        rows = top(answer)
        found = [[row[f"token_id:{token}"] for (token,) in candidates] for row in rows]
        np.testing.assert_allclose(found, wanted, atol=1e-4)
        for row, tokens in zip(rows, flat, strict=True):
            whole = alone.score([Prompt((tuple(tokens),), tuple((t,) for t in range(280)))]).log_probs[0]
            best = {f"token_id:{token}" for token in np.argsort(-whole)[:3]}
            assert best | {"token_id:5", "token_id:60", "token_id:9"} == set(row)
            assert next(iter(row)) == f"token_id:{whole.argmax()}"
        usage = answer.json()["usage"]
        assert usage["prompt_tokens"] == sum(map(len, flat))
        assert usage["completion_tokens"] == n
        # Every request shares more with itself and with the ones before.
        assert cached(answer) / usage["prompt_tokens"] > previous
        previous = cached(answer) / usage["prompt_tokens"]
        assert [choice["index"] for choice in answer.json()["choices"]] == list(range(n))
    assert metrics(client)["prompt_tokens"] > metrics(client)["prompt_tokens_computed"] > 0


def test_a_second_request_reuses_the_first_ones_prefix(serve, model):
    client = serve(model())
    first = complete(client, [*range(3, 100)])
    assert cached(first) == 0
    second = complete(client, [*range(3, 100), 7, 8])
    assert cached(second) == 96
    again = complete(client, [*range(3, 100), 7, 8])
    assert cached(again) == 98
    assert metrics(client)["prompt_tokens_reused"] == 96 + 98
    assert metrics(client)["prompt_tokens_computed"] == 97 + 3 + 1
    assert_close(second, again)


def test_memory_is_bounded_and_the_least_recently_used_goes(serve, model):
    one = 2 * 2 * 32 * 4 / 1e9  # gigabytes of a token's keys and values in two layers
    backend = model(cache_gb=100.5 * one)
    assert backend.reusable_tokens == 100
    client = serve(backend)
    texts = [[number, *range(3, 45)] for number in (50, 51, 52)]
    for text in texts:
        complete(client, text)
        assert backend._prefix_cache.tokens <= 100
    assert cached(complete(client, texts[2])) == 42
    assert cached(complete(client, texts[1])) == 42
    assert cached(complete(client, texts[0])) == 0


def test_the_fake_world_served_labels_as_it_does_in_process(serve):
    world = FakeBackend(verbalizers=("0", "1"))
    client = serve(world)
    parts = [f"text {i}:{i % 2}\n\n" for i in range(6)]
    prompts = ["".join(parts[:k]) + f"text {k}:" for k in range(6)]
    wanted = world.score(
        [
            Prompt((*(tuple(p.encode()) for p in parts[:k]), tuple(f"text {k}:".encode())), ((48,), (49,)))
            for k in range(6)
        ]
    ).log_probs
    rows = top(complete(client, prompts, logprob_token_ids=[48, 49], return_tokens_as_token_ids=False))
    np.testing.assert_allclose([[row["0"], row["1"]] for row in rows], wanted, atol=1e-12)


def test_models_tokenize_detokenize_and_health(serve, model):
    backend = model()
    client = serve(backend)
    assert client.get("/health").status_code == 200
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    (card,) = listed["data"]
    assert (card["id"], card["object"], card["max_model_len"]) == ("tiny", "model", 256)
    assert card["fingerprint"] == backend.fingerprint
    text = "Review: good\nSentiment: ünïcode"
    tokens = client.post("/tokenize", json={"prompt": text}).json()
    assert tokens == {"count": len(tokens["tokens"]), "max_model_len": 256, "tokens": tokens["tokens"]}
    plain = client.post("/tokenize", json={"prompt": text, "add_special_tokens": False}).json()["tokens"]
    assert tokens["tokens"] == [1, *plain]
    assert plain == list(backend.tokenizer.encode(text))
    assert client.post("/detokenize", json={"tokens": plain, "model": "tiny"}).json() == {"prompt": text}
    assert "vocabulary" in error(client.post("/detokenize", json={"tokens": [280]}), 400)
    # A text prompt is tokenised the same way.
    assert_close(complete(client, text), complete(client, tokens["tokens"]))
    assert_close(complete(client, text, add_special_tokens=False), complete(client, [plain]))


def test_a_completion_has_openais_form(serve, model):
    backend = model()
    client = serve(backend)
    answer = complete(client, [[5, 6], [7, 8, 9]], n=2, logprobs=2, model="tiny", seed=3, top_p=1, stream=False).json()
    assert answer["object"] == "text_completion"
    assert answer["model"] == "tiny"
    assert answer["system_fingerprint"] == backend.fingerprint
    assert answer["id"].startswith("cmpl-")
    assert answer["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 4,
        "total_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    first, second, third, _ = answer["choices"]
    assert {**first, "index": 1} == second
    assert first["logprobs"]["tokens"][0] == next(iter(first["logprobs"]["top_logprobs"][0]))
    assert first["logprobs"]["token_logprobs"] == [max(first["logprobs"]["top_logprobs"][0].values())]
    assert first["text"] == backend.tokenizer.decode([int(first["logprobs"]["tokens"][0].split(":")[1])])
    assert third["finish_reason"] == "length"
    warm = complete(client, [5, 6, 7, 8], max_tokens=0).json()
    assert (warm["choices"][0]["text"], warm["usage"]["completion_tokens"]) == ("", 0)


def test_texts_are_drawn_by_seed_and_place(serve, model):
    client = serve(model())
    options = {"prompt": [[5, 6], [7, 8]], "max_tokens": 6, "n": 2, "seed": 4, "temperature": 1.0}
    one = client.post("/v1/completions", json=options).json()
    two = client.post("/v1/completions", json=options).json()
    assert one["choices"] == two["choices"]
    texts = [choice["text"] for choice in one["choices"]]
    assert len(set(texts)) == 4
    assert 4 <= one["usage"]["completion_tokens"] <= 24
    other = client.post("/v1/completions", json={**options, "seed": 5}).json()
    assert [choice["text"] for choice in other["choices"]] != texts
    greedy = {"prompt": [5, 6], "max_tokens": 5, "temperature": 0}
    drawn = [client.post("/v1/completions", json={**greedy, "seed": seed}).json() for seed in (0, 1)]
    assert drawn[0]["choices"] == drawn[1]["choices"]
    step, tokens = [5, 6], []
    for _ in range(5):
        (row,) = top(complete(client, step))
        tokens.append(int(next(iter(row)).split(":")[1]))
        step = [5, 6, *tokens]
    backend = model()
    assert drawn[0]["choices"][0]["text"] == backend.tokenizer.decode(tokens)
    mark = backend.tokenizer.decode(tokens)[2:4]
    cut = client.post("/v1/completions", json={**greedy, "stop": mark}).json()["choices"][0]
    assert cut["finish_reason"] == "stop"
    assert backend.tokenizer.decode(tokens).startswith(cut["text"])
    assert mark not in cut["text"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stream": True}, "'stream' is not supported"),
        ({"echo": True}, "'echo' is not supported"),
        ({"top_p": 0.5}, "'top_p' is not supported"),
        ({"surprise": 1}, "'surprise': Extra inputs"),
        ({"prompt": None}, "'prompt': Field required"),
        ({"prompt": []}, "a prompt is empty"),
        ({"prompt": ["x", ""]}, "a prompt is empty"),
        ({"prompt": [[3], []]}, "a prompt is empty"),
        ({"prompt": [-1]}, "'prompt': Input should be"),
        ({"prompt": [256]}, "the vocabulary ends at 255"),
        ({"prompt": [[True]]}, "'prompt': Input should be"),
        ({"max_tokens": -1}, "'max_tokens': Input should be greater"),
        ({"max_tokens": "1"}, "'max_tokens': Input should be a valid integer"),
        ({"logprob_token_ids": [256], "logprobs": 1}, "the vocabulary ends at 255"),
        ({"logprob_token_ids": [5], "logprobs": None}, "needs 'logprobs'"),
        ({"temperature": 0.7}, "cannot write texts"),
        ({"prompt": "x" * 101}, "does not fit the 100"),
    ],
)
def test_wrong_requests_are_refused_in_openais_form(serve, change, message):
    client = serve(FakeBackend(context=100))
    assert message in error(complete(client, **{"prompt": "x", **change}), 400)
    assert metrics(client)["requests_refused"] == 1


@pytest.mark.parametrize("place", ["/v1/completions", "/tokenize"])
def test_half_of_a_surrogate_pair_is_the_clients_mistake(serve, place):
    body = b'{"prompt": "x\\ud800"}'
    answer = serve(FakeBackend()).post(place, content=body, headers={"Content-Type": "application/json"})
    assert "holds half of a surrogate pair" in error(answer, 400)


def test_what_is_no_request_is_refused(serve):
    client = serve(FakeBackend())
    for content in (b"{", b"[" * 100_000, b'{"prompt": NaN', b"\xff\xfe"):
        assert "not valid JSON" in error(client.post("/v1/completions", content=content), 400)
    assert "must be a JSON object" in error(client.post("/v1/completions", content=b"[]"), 400)
    assert "'gpt-4' is not served here" in error(complete(client, "x", model="gpt-4"), 404)
    error(client.get("/v1/chat"), 404)
    error(client.get("/v1/completions"), 405)
    secret = "a secret review"
    assert secret not in complete(client, secret, max_tokens="x").text


def test_a_model_that_cannot_answer_flat_prompts_is_refused():
    class Remote:
        name = "remote"

    with pytest.raises(ConfigError, match="model remote cannot be served"):
        create_app(Remote())


def test_a_key_is_asked_for_everywhere_but_for_health(serve):
    client = serve(FakeBackend(), key="s3cret")
    assert client.get("/health").status_code == 200
    for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "s3cret"}, {"Authorization": "Bearer é"}):
        headers = {name: value.encode() for name, value in given.items()}
        assert "key is needed" in error(client.get("/v1/models", headers=headers), 401)
        error(client.get("/metrics", headers=headers), 401)
        error(client.post("/v1/completions", json={"prompt": "x", **SCORING}, headers=headers), 401)
    right = {"Authorization": "Bearer s3cret"}
    assert client.post("/v1/completions", json={"prompt": "x", **SCORING}, headers=right).status_code == 200


def test_foreign_host_names_are_refused(serve):
    client = serve(FakeBackend(), allowed_hosts=["127.0.0.1", "localhost"])
    assert client.get("/v1/models").status_code == 200
    assert client.get("/v1/models", headers={"Host": "evil.example"}).status_code == 400


def test_large_bodies_are_refused(serve):
    client = serve(FakeBackend(), limits=Limits(body_bytes=1000))
    assert "1,000 bytes" in error(complete(client, "x" * 1000), 413)

    def chunks():
        for _ in range(20):
            yield b"x" * 100

    error(client.post("/v1/completions", content=chunks()), 413)
    assert complete(client, "x").status_code == 200


def test_slow_bodies_are_refused(serve):
    client = serve(FakeBackend(), limits=Limits(body_seconds=0.3))
    with socket.create_connection((client.base_url.host, client.base_url.port)) as raw:
        raw.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
        raw.settimeout(100)
        assert raw.recv(100).startswith(b"HTTP/1.1 408")


def test_fifty_clients_at_once_get_their_own_answers(serve, model):
    client, alone = serve(model()), model()
    texts = [[*range(3, 60), 100 + k, 7] for k in range(50)]

    def ask(text):
        return top(complete(client, text, logprob_token_ids=[5, 6]))[0]

    with ThreadPoolExecutor(50) as pool:
        rows = list(pool.map(ask, texts))
    wanted = alone.score([Prompt((tuple(text),), ((5,), (6,))) for text in texts]).log_probs
    np.testing.assert_allclose([[row["token_id:5"], row["token_id:6"]] for row in rows], wanted, atol=1e-4)
    assert metrics(client)["prompt_tokens"] == 50 * 59
    assert metrics(client)["prompt_tokens_computed"] == 57 + 50 * 2


class Gated(FakeBackend):
    """Answers once its gate is open, and notes what it is asked."""

    def __init__(self):
        super().__init__()
        object.__setattr__(self, "gate", threading.Event())
        object.__setattr__(self, "asked", [])

    def next_tokens(self, prompts, **options):
        self.asked.extend(bytes(tokens).decode() for tokens in prompts)
        assert self.gate.wait(300)
        return super().next_tokens(prompts, **options)


async def waiting(client, n):
    """Until so many requests are in work or waiting."""
    while metrics(client)["requests_waiting"] != n:
        await asyncio.sleep(0.01)


def post(client, text):
    return asyncio.create_task(client.post("/v1/completions", json={"prompt": text, **SCORING}))


def test_a_full_queue_says_come_again(serve):
    backend = Gated()
    client = serve(backend, limits=Limits(waiting=2))

    async def scenario():
        async with httpx.AsyncClient(base_url=client.base_url, timeout=300) as own:
            taken = [post(own, "first"), post(own, "second")]
            await waiting(client, 2)
            refused = await post(own, "third")
            backend.gate.set()
            return refused, [(await task).status_code for task in taken]

    refused, codes = asyncio.run(scenario())
    assert "2 requests are waiting" in error(refused, 429)
    assert int(refused.headers["Retry-After"]) >= 1
    assert codes == [200, 200]
    assert complete(client, "third").status_code == 200


def test_a_client_that_goes_away_frees_its_place(serve):
    backend = Gated()
    client = serve(backend, limits=Limits(waiting=2))

    async def scenario():
        async with httpx.AsyncClient(base_url=client.base_url, timeout=300) as own:
            first = post(own, "first")
            await waiting(client, 1)
            leaving = post(own, "leaving")
            await waiting(client, 2)
            leaving.cancel()
            await waiting(client, 1)
            third = post(own, "third")
            await waiting(client, 2)
            backend.gate.set()
            return [(await task).status_code for task in (first, third)]

    assert asyncio.run(scenario()) == [200, 200]
    assert backend.asked == ["first", "third"]
    assert metrics(client)["requests_cancelled"] == 1


def test_the_command_serves_until_it_is_told_to_stop(tmp_path):
    start = [sys.executable, "-m", "elicitor", "serve-hf", "--model", "fake:verbalizers=0/1", "--port", "0"]
    for number in (signal.SIGTERM, signal.SIGINT):
        with running(start, stderr=subprocess.PIPE, text=True, env={**os.environ}) as process:
            lines = iter(process.stderr.readline, "")
            ready = next(line for line in lines if line.startswith("ready: "))
            address = re.search(r"http://127\.0\.0\.1:\d+", ready).group()
            body = {"prompt": ["text 1:"] * 2, **SCORING, "logprob_token_ids": [48, 49]}
            answer = httpx.post(f"{address}/v1/completions", json=body)
            assert set(answer.json()["choices"][0]["logprobs"]["top_logprobs"][0]) == {"token_id:48", "token_id:49"}
            process.send_signal(number)
            _, rest = process.communicate(timeout=120)
            assert process.returncode == 0
            assert re.fullmatch(
                r"stopped: 1 requests in \d+ s; prompt tokens: 14 asked, 7 computed, 7 reused \(50\.0%\)\n", rest
            )


def test_mistakes_at_the_start_are_one_line(tmp_path):
    def fail(*words):
        start = [sys.executable, "-m", "elicitor", "serve-hf", "--model", "fake", *words]
        done = subprocess.run(start, capture_output=True, text=True, timeout=300)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        return done.stderr

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "cannot listen on 127.0.0.1 port" in fail("--port", str(taken.getsockname()[1]))
    assert "write backend.KEY=VALUE" in fail("--set", "seed=3")
    assert "did you mean 'backend.dtype'" in fail("--set", "backend.dtyp=float32")


def test_other_hosts_want_a_key_and_bring_a_warning():
    start = [sys.executable, "-m", "elicitor", "serve-hf", "--model", "fake", "--port", "0", "--host", "0.0.0.0"]
    environment = {key: value for key, value in os.environ.items() if key != "ELICITOR_SERVER_KEY"}
    refused = subprocess.run(start, capture_output=True, text=True, env=environment, timeout=100)
    assert refused.returncode == 2
    assert "--host 0.0.0.0 lets the network in, and there is no key; set the environment variable" in refused.stderr
    with running(
        start, stderr=subprocess.PIPE, text=True, env={**environment, "ELICITOR_SERVER_KEY": "hidden-key"}
    ) as process:
        warning, line = process.stderr.readline(), process.stderr.readline()
        assert "whoever reaches 0.0.0.0 and has the key can use this model" in warning
        assert "hidden-key" not in warning + line
        port = re.search(r":(\d+)/v1", line).group(1)
        assert httpx.get(f"http://127.0.0.1:{port}/v1/models").status_code == 401
        process.terminate()
