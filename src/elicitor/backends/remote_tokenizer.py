"""The tokenizer of a model behind a server: the server's own, or one that is loaded here by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from elicitor.backends.base import Part, TokenIds, Tokenizer
from elicitor.backends.http_client import Answer, Call, HttpClient, RefusedError
from elicitor.errors import BackendError, reason_of
from elicitor.notices import warn

SAMPLE = "The 3 quick foxes: zebra, quiz! (x=7)\nLabel: True"
"""Text of many different tokens, to find out whether two tokenizers are the same and what a server understands."""
_SHORT = 64
"""Tokens up to which a text is worth remembering: label words are asked for again and again, whole prompts are not."""
_MANY = 100
"""Texts from which on tokenising takes long enough to say so."""
_CONTROL = re.compile(r"<\|[\w -]{1,40}\|>|</?s>|<(?:bos|eos|pad|unk|start_of_turn|end_of_turn)>|\[/?INST\]")
"""Texts of control tokens of well-known models; a server does not tell its own."""
_TOKENIZE, _DETOKENIZE = "/tokenize", "/detokenize"


class ServerTokenizer:
    """A server's ``/tokenize`` and ``/detokenize``; each text is asked for once.

    Args:
        client: Sends the requests.
        root: The server's address, without ``/v1``.
        model: Model name on the server.
        is_llama_cpp: Speak as llama.cpp's server does, rather than vLLM, SGLang and ``elicitor serve-hf``.

    Raises:
        RefusedError: If the server has no such route.
    """

    def __init__(self, client: HttpClient, root: str, model: str, *, is_llama_cpp: bool = False) -> None:
        self._client = client
        self._root = root
        self._model = model
        self._is_llama_cpp = is_llama_cpp
        self._ids: dict[str, TokenIds] = {"": ()}
        self._texts: dict[TokenIds, str] = {(): ""}
        self._warned = False
        (framed,) = client.send([self._tokenize_call("x", special=True)])
        self.max_model_len = window_tokens(framed.get("max_model_len"))
        special, plain = _ids(framed), self.encode("x")
        if not plain:
            raise RefusedError(f"{root}{_TOKENIZE} gives no tokens for a text", status=200)
        places = [at for at in range(len(special)) if special[at : at + len(plain)] == plain]
        self._start = special[: places[0]] if places else ()

    @property
    def start_ids(self) -> TokenIds:
        """What the server puts before a text when asked for special tokens."""
        return self._start

    def encode(self, text: str) -> TokenIds:
        """Token ids of a text without special tokens."""
        self.encode_all([text])
        return self._ids[text]

    def encode_all(self, texts: Sequence[str]) -> None:
        """Ask for many texts at once, so that `encode` knows them."""
        new = [text for text in dict.fromkeys(texts) if text not in self._ids]
        if new:
            if len(new) > _MANY and self._client.on_stage:
                self._client.on_stage(f"tokenising {len(new):,} texts")
            answers = self._client.send([self._tokenize_call(text, special=False) for text in new])
            self._ids |= {text: _ids(answer) for text, answer in zip(new, answers, strict=True)}

    def encode_parts(self, parts: Sequence[Part]) -> TokenIds:
        """Token ids of the parts' joint text; what is a control token in it, the server decides."""
        seen = next((found for part in parts if part.is_data and (found := _CONTROL.search(part.text))), None)
        if seen and not self._warned:
            self._warned = True
            warn(
                f"the data holds {seen[0]!r}, which the server's tokenizer may read as a control token; set "
                "backend.remote.tokenizer to the model's own, with which it stays text"
            )
        return self.encode("".join(part.text for part in parts))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids."""
        key = tuple(ids)
        text = self._texts.get(key)
        if text is None:
            body = {"tokens": list(key)} if self._is_llama_cpp else {"model": self._model, "tokens": list(key)}
            (answer,) = self._client.send([Call(self._root + _DETOKENIZE, body)])
            # vLLM calls it prompt, llama.cpp content, SGLang text.
            texts = [answer[name] for name in ("prompt", "content", "text") if isinstance(answer.get(name), str)]
            if not texts:
                raise BackendError(
                    f"{self._root}{_DETOKENIZE} answered without a text", fix="set backend.remote.tokenizer"
                )
            text = texts[0]
            if len(key) <= _SHORT:
                self._texts[key] = text
        return text

    def chat(self, message: str) -> None:
        """Chat templates need a tokenizer that is loaded here."""

    def _tokenize_call(self, text: str, *, special: bool) -> Call:
        if self._is_llama_cpp:
            body: dict[str, Any] = {"content": text, "add_special": special}
        else:
            body = {"model": self._model, "prompt": text, "add_special_tokens": special}
        return Call(self._root + _TOKENIZE, body)


def load_tokenizer(
    client: HttpClient, root: str, model: str, *, name: str | None, trust_remote_code: bool
) -> tuple[Tokenizer, int | None]:
    """The tokenizer that the settings name, else the server's.

    Args:
        client: Sends the requests.
        root: The server's address, without ``/v1``.
        model: Model name on the server.
        name: Hub name, folder, ``gguf:FILE`` or ``bundled``; None for the server's own.
        trust_remote_code: Run Python code that the tokenizer's repository carries.

    Returns:
        The tokenizer, and the model's window if the server tells it here.

    Raises:
        BackendError: If there is neither, it cannot be loaded, or the named one differs from the server's.
    """
    served = _server_tokenizer(client, root, model)
    window = served.max_model_len if served else None
    if name is None:
        if served is None:
            raise BackendError(
                f"{root} has no {_TOKENIZE}, so the model's tokenizer must be known here",
                fix="set backend.remote.tokenizer to its hub name or folder",
            )
        return served, window
    local = _local_tokenizer(name, trust_remote_code=trust_remote_code)
    if served and local.encode(SAMPLE) != served.encode(SAMPLE):
        raise BackendError(
            f"tokenizer {name!r} is not that of the model behind {root}",
            fix="set backend.remote.tokenizer to the model's own, or leave it out",
        )
    return local, window


def _server_tokenizer(client: HttpClient, root: str, model: str) -> ServerTokenizer | None:
    for is_llama_cpp in (False, True):
        try:
            return ServerTokenizer(client, root, model, is_llama_cpp=is_llama_cpp)
        except RefusedError:
            continue
    return None


def _local_tokenizer(name: str, *, trust_remote_code: bool) -> Tokenizer:
    try:
        from transformers import AutoTokenizer

        from elicitor.backends.hf_load import quiet
        from elicitor.backends.hf_tokenizer import HfTokenizer
    except ImportError as error:
        raise BackendError(
            f"backend.remote.tokenizer needs {error.name}", fix="pip install 'elicitor[hf,openai]'"
        ) from error
    from elicitor.models import locate

    # A hub name or a folder is taken as it is; what has a form of its own, such as gguf:FILE, is found as a model would be.
    place = locate(name).files(dtype="float32")[0] if name == "bundled" or ":" in name else name
    try:
        with quiet():
            return HfTokenizer(AutoTokenizer.from_pretrained(place, trust_remote_code=trust_remote_code))
    except Exception as error:  # readers of a damaged file fail in many ways
        raise BackendError(
            f"tokenizer {name!r} could not be loaded: {reason_of(error)}", fix="check its name"
        ) from error


def window_tokens(value: Any) -> int | None:
    """A server's window in tokens; None where it tells nothing of use."""
    return value if type(value) is int and value > 0 else None


def _ids(answer: Answer) -> TokenIds:
    tokens = answer.get("tokens")
    if not isinstance(tokens, list) or not all(type(token) is int and token >= 0 for token in tokens):
        raise RefusedError("a tokenizer's answer holds no token ids", status=200)
    return tuple(tokens)
