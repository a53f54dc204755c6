"""What a backend is: token ids in, label log-probabilities and their cost out. It knows nothing of tasks or labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

TokenIds = tuple[int, ...]
Progress = Callable[[int], None]
"""Called with the number of prompt tokens computed since the last call."""
OnStage = Callable[[str], None]
"""Called with what begins now and may take long, such as loading a model."""
OnPart = Callable[[int, int], None]
"""Called with the number of parts that are done, and of all parts."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question to the model: how likely is each candidate as the continuation of these segments?

    Attributes:
        segments: Token ids in reading order: start, demonstrations, query. The text is their concatenation; where one
            segment ends never changes what it tokenises to, so prompts can share any number of leading segments.
        candidates: Token ids of each label's verbalizer, at least one token each, none a prefix of another.
    """

    segments: tuple[TokenIds, ...]
    candidates: tuple[TokenIds, ...]

    def __len__(self) -> int:
        """Number of prompt tokens, candidates left out."""
        return sum(map(len, self.segments))


@dataclass(frozen=True, slots=True)
class Cost:
    """What scoring cost.

    Attributes:
        prompts: Queries answered.
        tokens_computed: Prompt and candidate tokens that went through the model.
        tokens_reused: Tokens of those prompts that were shared with another prompt and not computed again.
        seconds: Wall time inside the backend.
        bounded: Label log-probabilities that are upper bounds, because a server lists only the most probable tokens.
    """

    prompts: int = 0
    tokens_computed: int = 0
    tokens_reused: int = 0
    seconds: float = 0.0
    bounded: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Sum two costs field by field."""
        return Cost(
            self.prompts + other.prompts,
            self.tokens_computed + other.tokens_computed,
            self.tokens_reused + other.tokens_reused,
            self.seconds + other.seconds,
            self.bounded + other.bounded,
        )

    def __sub__(self, other: Cost) -> Cost:
        """What was spent since ``other``, field by field."""
        return Cost(
            self.prompts - other.prompts,
            self.tokens_computed - other.tokens_computed,
            self.tokens_reused - other.tokens_reused,
            self.seconds - other.seconds,
            self.bounded - other.bounded,
        )


@dataclass(frozen=True, slots=True)
class Scores:
    """Answer to a list of prompts.

    Attributes:
        log_probs: Shape (prompts, candidates), natural log of the full probability of each candidate's tokens after
            the prompt, over the whole vocabulary (not normalised over the candidates), float64, always finite; those that
            ``cost.bounded`` counts are upper bounds that do not decide which candidate is the most probable.
        cost: What it cost.
    """

    log_probs: NDArray[np.float64]
    cost: Cost


@dataclass(frozen=True, slots=True)
class States:
    """What a model holds inside at the last token of each sequence.

    Attributes:
        values: Shape (sequences, layers + 1, width), float32, always finite: the residual stream after each layer. Index 0
            holds the embeddings; behind the last layer most models apply their final norm first.
        cost: What it cost.
    """

    values: NDArray[np.float32]
    cost: Cost


class Tokenizer(Protocol):
    """The part of a tokenizer that prompts need."""

    @property
    def start_ids(self) -> TokenIds:
        """Ids that every sequence begins with (a BOS token where the model expects one), possibly none."""
        ...

    def encode(self, text: str) -> TokenIds:
        """Token ids of a text without special tokens."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids."""
        ...

    def chat(self, message: str) -> TokenIds | None:
        """Ids of a whole prompt that ends where the model's reply to a user's message begins; None without a template."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a prompt's text.

    Attributes:
        text: The text.
        is_data: Whether it is data, in which nothing is a control token, rather than a template that its author wrote.
    """

    text: str
    is_data: bool


@runtime_checkable
class PartsTokenizer(Protocol):
    """A tokenizer in which texts can look like control tokens, such as ``<|im_end|>``."""

    def encode_parts(self, parts: Sequence[Part]) -> TokenIds:
        """Token ids of the parts' joint text without special tokens, data in it without any control token."""
        ...


@runtime_checkable
class BatchTokenizer(Protocol):
    """A tokenizer to which many texts at once are cheaper than one after the other."""

    def encode_all(self, texts: Sequence[str]) -> None:
        """Get ready to encode these texts without special tokens."""
        ...


class Backend(Protocol):
    """A model that can score prompts."""

    @property
    def name(self) -> str:
        """Model name as the user gave it."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identifies weights and numeric settings: equal fingerprints give equal scores."""
        ...

    @property
    def max_context_tokens(self) -> int:
        """Longest prompt plus candidate, in tokens."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        ...

    @property
    def reusable_tokens(self) -> int:
        """Prompt tokens whose computation can be kept for later calls, 0 if none."""
        ...

    def score(self, prompts: Sequence[Prompt], *, keep: bool = False, on_progress: Progress | None = None) -> Scores:
        """Score every prompt, computing each shared prefix once.

        Args:
            prompts: Queries; their order is free, but prompts that share prefixes are cheapest next to each other.
            keep: Reuse what earlier calls with ``keep`` computed, and keep what this one does, as far as
                `reusable_tokens` allow. Worth its memory where later prompts will begin with these.
            on_progress: Called after each forward pass with the tokens it computed.

        Returns:
            Label log-probabilities in the order of ``prompts``.

        Raises:
            ContextOverflowError: If a prompt and its longest candidate exceed `max_context_tokens`.
            BackendError: If the model fails or returns numbers that are not finite.
        """
        ...

    def forget(self) -> None:
        """Drop what was kept for later calls, so that what comes next costs what it would cost alone."""
        ...


@runtime_checkable
class RemoteBackend(Protocol):
    """A model behind a server: every prompt may cost money, and its speed is not this machine's."""

    @property
    def price_per_million(self) -> float | None:
        """Price of a million prompt tokens, in the user's own currency; None if it was not told."""
        ...

    @property
    def where(self) -> str:
        """What tells this model from others of its fingerprint: the address, where the server tells nothing of the weights."""
        ...


@runtime_checkable
class StatesBackend(Protocol):
    """A model whose hidden states can be read."""

    def hidden_states(self, sequences: Sequence[TokenIds], *, on_progress: Progress | None = None) -> States:
        """Residual stream at the last token of each sequence.

        Args:
            sequences: Token ids, at least one token each; at least one sequence.
            on_progress: Called after each forward pass with the tokens it computed.

        Returns:
            States in the order of ``sequences``.

        Raises:
            ContextOverflowError: If a sequence exceeds the model's window.
            BackendError: If there is nothing to read, or the model returns numbers that are not finite.
        """
        ...


@dataclass(frozen=True, slots=True)
class NextTokens:
    """What a model expects after each of some prompts.

    Attributes:
        top_ids: Shape (prompts, top), int64: the most probable tokens, best first.
        top_log_probs: Shape (prompts, top), float64: their log-probabilities over the whole vocabulary, finite.
        log_probs: Shape (prompts, tokens), float64: the same for the tokens that were asked for.
        cost: What it cost.
    """

    top_ids: NDArray[np.int64]
    top_log_probs: NDArray[np.float64]
    log_probs: NDArray[np.float64]
    cost: Cost


@runtime_checkable
class NextTokenBackend(Protocol):
    """A model that can be asked about flat prompts, as a server gets them."""

    @property
    def vocabulary_size(self) -> int:
        """Token ids are below this."""
        ...

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end a text."""
        ...

    def next_tokens(
        self, prompts: Sequence[TokenIds], *, top: int, tokens: Sequence[int] = (), on_progress: Progress | None = None
    ) -> NextTokens:
        """Distribution of the token after each prompt, with what earlier calls computed reused as far as memory allows.

        Prompts need not tell where their parts end: what they share with one another and with earlier ones is found.

        Args:
            prompts: Token ids, at least one each.
            top: Number of most probable tokens to name, at most the vocabulary.
            tokens: Further tokens whose log-probabilities are wanted.
            on_progress: Called after each forward pass with the tokens it computed.

        Returns:
            Log-probabilities in the order of ``prompts``.

        Raises:
            ContextOverflowError: If a prompt and one token exceed the model's window.
            BackendError: If a prompt is empty, or the model fails or returns numbers that are not finite.
        """
        ...


@dataclass(frozen=True, slots=True)
class Generations:
    """Continuations of one prompt.

    Attributes:
        texts: Text of each, without what ended it.
        finished: Whether each ended by itself, rather than at the limit of tokens.
        cost: What they cost.
        lengths: Tokens drawn for each, with the one that ended it.
    """

    texts: list[str]
    finished: list[bool]
    cost: Cost
    lengths: list[int]


@runtime_checkable
class GenerationBackend(Protocol):
    """A model that can continue a prompt."""

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
        """Draw one continuation for each generator.

        Args:
            prompt: Token ids.
            max_new_tokens: Tokens of a continuation at most.
            temperature: Divides the logits; positive.
            stop: Texts before which a continuation ends.
            rngs: One generator a continuation.
            on_progress: Called after each forward pass with its tokens.

        Returns:
            The continuations, in the order of the generators.

        Raises:
            ContextOverflowError: If the prompt and its continuation exceed the model's window.
        """
        ...
