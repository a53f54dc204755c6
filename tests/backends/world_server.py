"""A real HTTP server that answers ``/v1/completions`` from the fake world, with every fault that tests need.

Run as a program it is a server that can be killed: ``python world_server.py --port 8123``.
"""

import argparse
import json
import math
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from elicitor.backends.base import Prompt
from elicitor.backends.fake import FakeBackend

SEPARATOR = b"\n\n"
FILLER = -40.0
"""Log-probability of every token that begins no label."""


@dataclass
class World:
    """What the server knows and how it behaves.

    ``fault(number, path)`` is asked before each answer, ``number`` counting from 1; it may return a dict with ``status``,
    ``headers``, ``body``, ``delay``, ``cut``, ``type`` or ``drop``.
    """

    labels: tuple[bytes, ...] = (b" no", b" yes")
    backend: FakeBackend = field(default_factory=FakeBackend)
    model: str = "world"
    window: int | None = 1_000_000
    fingerprint: str | None = None
    build: str | None = None
    token_prompts: bool = True
    several: bool = True
    exact: bool = True
    id_keys: bool = True
    tokenizer: str | None = "vllm"
    style: str = "vllm"
    unknown_fields: str = "ignored"
    max_top: int = 20
    ahead: int = 0
    usage: bool = True
    cached: bool = False
    max_read: int | None = None
    echoes_key: bool = False
    answers_as: str | None = None
    delay: float = 0.0
    fault: object = None
    served: int = 0
    failed: int = 0
    requests: list = field(default_factory=list)
    lock: object = field(default_factory=threading.Lock)

    def next_token(self, tokens):
        """Log-probability by token that follows a text; the labels' probabilities are the world's."""
        *before, last = bytes(tokens).split(SEPARATOR)
        place = last.rfind(b":") + 1
        query, begun = last[:place], last[place:]
        if not any(label.startswith(begun) for label in self.labels):
            return {}
        demonstrations = tuple(tuple(part + SEPARATOR) for part in before)
        prompt = Prompt((*demonstrations, tuple(query)), tuple(tuple(label) for label in self.labels))
        label_log_probs = self.backend.score([prompt]).log_probs[0]
        total, found = [], {}
        for label, value in zip(self.labels, label_log_probs, strict=True):
            if label.startswith(begun) and len(label) > len(begun):
                total.append(value)
                found.setdefault(label[len(begun)], []).append(value)
        return {token: _log_sum(values) - _log_sum(total) for token, values in found.items()}

    def listed(self, tokens, top, wanted):
        known = self.next_token(tokens)
        if wanted and self.exact:
            best = max(known, key=known.get, default=0)
            return {token: known.get(token, FILLER) for token in dict.fromkeys([best, *wanted])}
        fillers = [token for token in range(65, 256) if token not in known]
        # Tokens that stand above every label, for tests of labels that are not listed.
        ranked = [(token, -1e-9) for token in fillers[: self.ahead]]
        ranked += sorted(known.items(), key=lambda item: -item[1])
        ranked += [(token, FILLER) for token in fillers[self.ahead :]]
        return dict(ranked[: min(top, self.max_top)])


def _log_sum(values):
    return math.log(sum(math.exp(value) for value in values))


def prompts(candidates, n=3):
    """Prompts of 0 to n demonstrations, as the world understands them."""
    words = [word.decode() for word in candidates]
    demonstrations = [tuple(f"text {i}:{words[i % 2]}\n\n".encode()) for i in range(n)]
    return [
        Prompt((*demonstrations[:k], tuple(f"text {k}:".encode())), tuple(map(tuple, candidates))) for k in range(n + 1)
    ]


class Refusal(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.answer(None)

    def do_POST(self):
        self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def answer(self, body):
        world = self.server.world
        with world.lock:
            world.served += 1
            number = world.served
            world.requests.append((self.path, body, dict(self.headers)))
        time.sleep(world.delay)
        fault = (world.fault(number, self.path) if world.fault else None) or {}
        world.failed += bool(fault)
        time.sleep(fault.get("delay", 0))
        if fault.get("drop"):
            self.close_connection = True
            return
        status, said = fault.get("status", 200), fault.get("body")
        if said is None:
            try:
                if status != 200 or (world.echoes_key and self.path == "/v1/completions"):
                    raise Refusal(status if status != 200 else 400, "told to fail")
                said = self.route(world, body)
            except Refusal as refusal:
                message = f"{refusal} {self.headers['Authorization']}" if world.echoes_key else str(refusal)
                status, said = refusal.status, {"error": {"message": message, "code": refusal.status}}
        text = said.encode() if isinstance(said, str) else json.dumps(said).encode()
        if fault.get("cut"):
            text = text[: len(text) // 2]
        try:
            self.send_response(status)
            self.send_header("Content-Type", fault.get("type", "application/json"))
            self.send_header("Content-Length", str(len(text)))
            for name, value in fault.get("headers", {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)
        except ConnectionError:
            self.close_connection = True

    def route(self, world, body):
        if self.path == "/v1/models":
            card = {"id": world.model, "object": "model"}
            if world.window and world.style == "vllm":
                card["max_model_len"] = world.window
            if world.fingerprint:
                card["fingerprint"] = world.fingerprint
            return {"object": "list", "data": [card]}
        if self.path == "/props" and world.style == "llama_cpp":
            return {"default_generation_settings": {"n_ctx": world.window}}
        if self.path in ("/tokenize", "/detokenize") and world.tokenizer:
            return self.tokens(world, body)
        if self.path == "/v1/completions":
            return self.completions(world, body)
        raise Refusal(404, f"no route {self.path}")

    def tokens(self, world, body):
        if self.path == "/detokenize":
            name = {"vllm": "prompt", "llama_cpp": "content", "sglang": "text"}[world.tokenizer]
            return {name: bytes(body["tokens"]).decode(errors="replace")}
        if world.tokenizer == "llama_cpp":
            return {"tokens": list(body.get("content", "").encode())}
        ids = list(body["prompt"].encode())
        return {"tokens": ids, "count": len(ids), "max_model_len": world.window}

    def completions(self, world, body):
        if world.unknown_fields == "refused" and {"logprob_token_ids", "return_tokens_as_token_ids"} & body.keys():
            raise Refusal(400, "unknown field")
        prompts = body["prompt"]
        single = isinstance(prompts, str) or isinstance(prompts[0], int)
        if not single and not world.several:
            raise Refusal(400, "one prompt only")
        prompts = [prompts] if single else prompts
        if not world.token_prompts and not isinstance(prompts[0], str):
            raise Refusal(400, "prompt must be a string")
        if body["logprobs"] > world.max_top:
            raise Refusal(400, f"logprobs must be at most {world.max_top}")
        texts = [tuple(prompt.encode()) if isinstance(prompt, str) else tuple(prompt) for prompt in prompts]
        answer = {
            "id": "cmpl-1",
            "object": "text_completion",
            "model": world.answers_as or body["model"],
            "system_fingerprint": world.build,
        }
        listed = [world.listed(text, body["logprobs"], body.get("logprob_token_ids")) for text in texts]
        answer["choices"] = [self.choice(world, body, index, found) for index, found in enumerate(listed)]
        if world.usage:
            read = [min(len(text), world.max_read or len(text)) for text in texts]
            answer["usage"] = {"prompt_tokens": sum(read), "completion_tokens": len(texts)}
            if world.cached:
                answer["usage"]["prompt_tokens_details"] = {"cached_tokens": sum(read) - len(read)}
        # The order of choices is nobody's promise; their index is.
        answer["choices"].reverse()
        return answer

    def choice(self, world, body, index, listed):
        if world.style == "no_logprobs":
            return {"index": index, "text": "x", "logprobs": None}
        if world.style == "llama_cpp":
            items = [{"id": token, "token": chr(token), "logprob": value} for token, value in listed.items()]
            return {"index": index, "text": "x", "logprobs": {"content": [{**items[0], "top_logprobs": items}]}}
        as_ids = world.id_keys and body.get("return_tokens_as_token_ids")
        top = {f"token_id:{token}" if as_ids else chr(token): value for token, value in listed.items()}
        return {"index": index, "text": "x", "logprobs": {"tokens": ["x"], "top_logprobs": [top]}}


class Server(ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # A client that went away is what the tests are about.


def serve(world, port=0):
    """A server on a free port of this machine, not yet running."""
    server = Server(("127.0.0.1", port), Handler)
    server.world = world
    return server


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", default="world")
    parser.add_argument("--delay", type=float, default=0.0)
    options = parser.parse_args()
    serve(World(model=options.model, delay=options.delay), options.port).serve_forever()
