"""Backend for models behind an OpenAI-compatible ``/v1/completions``: vLLM, SGLang, llama.cpp's server, hosted ones.

Reading order: `load` asks the server who it is and what it understands (`remote_server`), `OpenAIBackend.score` turns prompts
into questions (`questions`) and answers into label log-probabilities (`completions`). Questions are sent in the order of their
prefix tree, which is the plan's, so that the server's own prefix cache finds what they share.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from elicitor.backends.base import Cost, Generations, OnStage, Progress, Prompt, Scores, TokenIds, Tokenizer
from elicitor.backends.completions import (
    IMPOSSIBLE,
    Dialect,
    NextToken,
    cached_tokens,
    drawing_body,
    prompt_tokens,
    read_choices,
    read_drawn,
    request_body,
    settle,
)
from elicitor.backends.http_client import Answer, Call, HttpClient
from elicitor.backends.prefix_cache import PrefixCache
from elicitor.backends.questions import Question, questions
from elicitor.backends.remote_server import (
    Served,
    answering_model,
    api_key,
    check_url,
    find_dialect,
    llama_cpp_window,
    model_card,
)
from elicitor.backends.remote_tokenizer import ServerTokenizer, load_tokenizer
from elicitor.backends.trie import check_fit, check_room, cost, schedule, unshared_tokens
from elicitor.config import BackendConfig, RemoteConfig
from elicitor.errors import BackendError, LabelTokenError
from elicitor.notices import warn

_SEEDS = 2**31
"""Seeds below this are taken by every server."""


class OpenAIBackend:
    """Scores prompts by asking a server for next-token log-probabilities.

    Args:
        client: Sends requests.
        url: Address of the completions route.
        tokenizer: The model's tokenizer.
        served: What the server says about the model, its window known.
        dialect: What the server understands.
        settings: How to ask it.
    """

    def __init__(
        self,
        client: HttpClient,
        url: str,
        tokenizer: Tokenizer,
        *,
        served: Served,
        dialect: Dialect,
        settings: RemoteConfig,
    ) -> None:
        self._client = client
        self._url = url
        self._tokenizer = tokenizer
        self._served = served
        self.dialect = dialect
        self._settings = settings
        self._cache = PrefixCache(settings.reusable_tokens)
        self._texts: dict[int, str] = {}

    @property
    def name(self) -> str:
        """``openai:MODEL``, without the address."""
        return f"openai:{self._served.model}"

    @property
    def fingerprint(self) -> str:
        """Model name, the server's own fingerprint, and in which form it gives scores; never its address."""
        scores = "exact" if self.dialect.exact else f"top {self.dialect.top_k}"
        prompts = "tokens" if self.dialect.token_prompts else "text"
        known = [self._served.fingerprint or "unknown"]
        if self._served.answers_as not in ("", self._served.model):
            known.append(self._served.answers_as)
        return f"{self.name}, served as {' by '.join(known)}, {scores}, {prompts}"

    @property
    def where(self) -> str:
        """Address of a server that tells no fingerprint, else nothing: another one may call another model by the same name."""
        return "" if self._served.fingerprint else self._url

    @property
    def max_context_tokens(self) -> int:
        """Longest prompt and answer, in tokens."""
        return self._served.window or 0

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self._tokenizer

    @property
    def reusable_tokens(self) -> int:
        """Tokens that the server's prefix cache is taken to hold, as the settings say."""
        return self._settings.reusable_tokens

    @property
    def price_per_million(self) -> float | None:
        """Price of a million prompt tokens, as the settings say."""
        return self._settings.price_per_million

    def describe(self) -> dict[str, str]:
        """Facts about how this model is asked."""
        several = self._settings.batch_prompts if self.dialect.several else 1
        listed = f"the {self.dialect.top_k} most probable tokens"
        return {
            "prompts": "token ids" if self.dialect.token_prompts else "text",
            "prompts a request": str(several),
            "label log-probabilities": "exact" if self.dialect.exact else f"from {listed}",
            "window": f"{self.max_context_tokens:,} tokens",
        }

    def score(self, prompts: Sequence[Prompt], *, keep: bool = False, on_progress: Progress | None = None) -> Scores:
        """Score every prompt; see `elicitor.backends.base.Backend.score`.

        With ``keep``, what was asked before is not asked again; keeping keys and values is the server's business.
        """
        started = time.perf_counter()
        check_fit(prompts, max_context_tokens=self.max_context_tokens, name=self.name)
        cache = self._cache if keep and self.reusable_tokens else None
        known = cache.begin(prompts) if cache else [None] * len(prompts)
        todo = [index for index, answer in enumerate(known) if answer is None]
        asked = [prompts[index] for index in todo]
        log_probs = np.zeros((len(prompts), len(prompts[0].candidates) if prompts else 0))
        bounded, computed = 0, None
        if asked:
            log_probs[todo], bounded, computed = self._ask(asked, on_progress=on_progress)
        for index, answer in enumerate(known):
            if answer is not None:
                log_probs[index] = answer
        counted = self._own_count(prompts, asked, cache)
        if cache:
            for index in todo:
                cache.remember(prompts[index], log_probs[index].copy())
        if computed is not None:
            reused = max(0, unshared_tokens(prompts) - computed)
            counted = replace(counted, tokens_computed=computed, tokens_reused=reused)
        return Scores(log_probs, replace(counted, bounded=bounded, seconds=time.perf_counter() - started))

    def generate(
        self,
        prompt: TokenIds,
        *,
        max_new_tokens: int,
        temperature: float,
        stop: Sequence[str],
        rngs: Sequence[np.random.Generator],
        on_progress: Progress | None = None,
    ) -> Generations:
        """Draw continuations, one request each; see `elicitor.backends.base.GenerationBackend.generate`.

        Each generator gives the seed of its request, so draws can be repeated where the server heeds it.
        """
        started = time.perf_counter()
        check_room(prompt, max_new_tokens=max_new_tokens, max_context_tokens=self.max_context_tokens, name=self.name)
        sent = prompt if self.dialect.token_prompts else self._text(prompt)
        options = {"max_tokens": max_new_tokens, "temperature": temperature, "stop": stop}
        bodies = [
            drawing_body(self._served.model, sent, **options, seed=int(rng.integers(_SEEDS)))  # type: ignore[arg-type]
            for rng in rngs
        ]
        calls = [Call(self._url, body, tokens=len(prompt) + max_new_tokens) for body in bodies]
        drawn = [read_drawn(answer) for answer in self._client.send(calls)]
        lengths = [len(self._tokenizer.encode(one.text)) if one.tokens is None else one.tokens for one in drawn]
        computed = len(prompt) + sum(lengths)
        if on_progress:
            on_progress(computed)
        # A server that keeps prefixes computes the prompt once.
        reused = len(prompt) * (len(rngs) - 1)
        return Generations(
            texts=[one.text for one in drawn],
            finished=[one.finished for one in drawn],
            lengths=lengths,
            cost=Cost(len(rngs), computed, reused, time.perf_counter() - started),
        )

    def forget(self) -> None:
        """Forget which prompts were asked before; what the server holds is its own."""
        self._cache = PrefixCache(self.reusable_tokens)

    def _ask(self, prompts: Sequence[Prompt], *, on_progress: Progress | None) -> tuple[np.ndarray, int, int | None]:
        """Log-probabilities, how many of them are bounds, and the tokens computed if the server tells."""
        log_probs = np.zeros((len(prompts), len(prompts[0].candidates)))
        is_bound = np.zeros(log_probs.shape, dtype=bool)
        size = self._settings.batch_prompts if self.dialect.several else 1
        requests = list(_chunks(questions(prompts), size))
        computed: list[int | None] = []

        def take(index: int, answer: Answer) -> None:
            self._check_model(answer)
            for question, found in zip(requests[index], read_choices(answer, len(requests[index])), strict=True):
                self._read(question, found, log_probs, is_bound)
            self._check_count(requests[index], answer)
            computed.append(self._computed(requests[index], answer))
            if on_progress:
                on_progress(sum(question.fresh for question in requests[index]))

        self._client.send([self._call(request) for request in requests], on_answer=take)
        bounded = settle(log_probs, is_bound, top_k=self.dialect.top_k)
        told = [count for count in computed if count is not None]
        return log_probs, bounded, sum(told) if len(told) == len(computed) else None

    def _call(self, request: Sequence[Question]) -> Call:
        wanted = list(dict.fromkeys(token for question in request for token in question.wanted))
        sent = [question.tokens if self.dialect.token_prompts else self._text(question.tokens) for question in request]
        body = request_body(self._served.model, sent, wanted, self.dialect)
        return Call(self._url, body, tokens=sum(len(question.tokens) for question in request))

    def _read(self, question: Question, found: NextToken, log_probs: np.ndarray, is_bound: np.ndarray) -> None:
        for prompt, candidate, token in question.reads:
            value = found.get(token, self._piece)
            if value is None and self.dialect.exact:
                raise BackendError(f"the server left out token {token} that it was asked for", fix="look into its log")
            if value is not None and value <= IMPOSSIBLE:
                raise BackendError(
                    f"the server says that token {token} of a label is impossible",
                    fix="start it without masks on tokens, or choose other verbalizers",
                )
            log_probs[prompt, candidate] += found.bound if value is None else value
            is_bound[prompt, candidate] |= value is None

    def _piece(self, token: int) -> str:
        """Text of a label's token as it stands after a word; alone, some tokenizers drop its blank."""
        if token not in self._texts:
            anchor = self._tokenizer.encode("x")
            whole = self._tokenizer.decode((*anchor, token))
            self._texts[token] = whole[1:] if whole.startswith("x") else self._tokenizer.decode((token,))
        return self._texts[token]

    def _text(self, tokens: TokenIds) -> str:
        """A prompt as text, without the start that servers add to text themselves.

        Raises:
            LabelTokenError: If the text does not tokenise to these tokens, so that the model would read something else.
        """
        start = self._tokenizer.start_ids
        body = tokens[len(start) :] if start and tokens[: len(start)] == start else tokens
        text = self._tokenizer.decode(body)
        # A tokenizer behind the same server would cost a request a prompt; there the server's count of tokens is checked.
        if not isinstance(self._tokenizer, ServerTokenizer) and self._tokenizer.encode(text) != body:
            raise LabelTokenError(
                f"the text {text[-40:]!r} does not tokenise to the {len(body)} tokens that it is made of",
                fix="end template and verbalizers at word boundaries, or use a server that takes token ids (vLLM, SGLang)",
            )
        return text

    def _check_count(self, request: Sequence[Question], answer: Answer) -> None:
        """A server that cuts long prompts, as some do without a word, is found by its own count of their tokens."""
        told, sent = prompt_tokens(answer), sum(len(question.tokens) for question in request)
        if told is not None and abs(told - sent) > len(request):
            raise BackendError(
                f"the server read {told} prompt tokens where {sent} were sent",
                fix="give it a longer context, or set backend.remote.context to the one that it has",
            )

    def _check_model(self, answer: Answer) -> None:
        """An alias that moves on to another model, or a server that was started anew with one, is found by its answers."""
        told = answering_model(answer)
        if told != self._served.answers_as:
            raise BackendError(
                f"the server answers as model {told!r} now, it answered as {self._served.answers_as!r} when it was asked first",
                fix="name one model that does not change, such as its dated version, and start the run again",
            )

    def _computed(self, request: Sequence[Question], answer: Answer) -> int | None:
        # vLLM's count of cached tokens is that of the request's last prompt alone.
        cached = cached_tokens(answer) if len(request) == 1 or self._served.is_own else None
        told = prompt_tokens(answer)
        return None if cached is None or told is None else told - cached

    def _own_count(self, prompts: Sequence[Prompt], asked: Sequence[Prompt], cache: PrefixCache | None) -> Cost:
        """What a server would compute that shares every prefix and holds `reusable_tokens`.

        It stands in the place of the server's own count where that is not told.
        """
        passes = schedule(asked, pack_tokens=0, cache=cache)
        for item in passes:
            for entry, _ in item.fills:
                if cache and cache.has_room(entry):
                    cache.hold(entry, True)
        return cost(prompts, passes)


def load(model: str, base_url: str, *, config: BackendConfig, on_stage: OnStage | None = None) -> OpenAIBackend:
    """Ask a server about a model and what it understands.

    Args:
        model: Model name on the server.
        base_url: Address up to and including ``/v1``.
        config: Settings.
        on_stage: Told how the server is asked, when it stops answering and when it answers again.

    Returns:
        The backend.

    Raises:
        BackendError: If the server cannot be reached, does not know the model or cannot give label log-probabilities.
        ConfigError: If the address or the key cannot be used.
    """
    settings = config.remote
    base_url = check_url(base_url)
    client = HttpClient(settings, key=api_key(settings), on_stage=on_stage)
    root = base_url.removesuffix("/v1")
    card = model_card(client, base_url, model)
    tokenizer, window = load_tokenizer(
        client, root, model, name=settings.tokenizer, trust_remote_code=config.trust_remote_code
    )
    window = settings.context or card.window or window or llama_cpp_window(client, root)
    if window is None:
        raise BackendError(f"{base_url} does not tell the context window of {model}", fix="set backend.remote.context")
    url = f"{base_url}/completions"
    first = find_dialect(client, url, tokenizer, model, settings)
    served = replace(card, window=window, fingerprint=card.fingerprint or first.build, answers_as=first.answers_as)
    if first.answers_as not in ("", model):
        warn(
            f"the server answers as model {first.answers_as!r} where {model!r} was asked for; the run is bound to that one"
        )
    if not first.counts:
        warn(
            "the server does not tell how many prompt tokens it reads: if it cuts long prompts, that cannot be noticed here"
        )
    backend = OpenAIBackend(client, url, tokenizer, served=served, dialect=first.dialect, settings=settings)
    if on_stage:
        on_stage("; ".join(f"{name}: {fact}" for name, fact in backend.describe().items()))
    return backend


def _chunks(items: Sequence[Question], size: int) -> Iterator[Sequence[Question]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
