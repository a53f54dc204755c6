"""Prompts as a prefix tree, and the tree as a list of forward passes. Pure Python: token counts need no model.

Reading order: `schedule` builds the tree of `Node`s from the prompts, then walks it depth first and writes down `Pass`es.
A pass says how much of the growing context to keep, which tokens to run and what each of them may see; a backend only
executes. With a `PrefixCache` a pass may instead restore what an earlier call computed, and says what to keep for later ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from elicitor.backends.base import Cost, Prompt, TokenIds
from elicitor.backends.prefix_cache import Entry, PrefixCache
from elicitor.errors import BackendError, ContextOverflowError, LabelTokenError


@dataclass(frozen=True, slots=True)
class Read:
    """One log-probability to take from the model's output.

    Attributes:
        row: Index, within the pass, of the token whose next-token distribution is read.
        prompt: Index of the prompt.
        candidate: Index of its candidate.
        token: Token whose log-probability is added to the candidate's.
    """

    row: int
    prompt: int
    candidate: int
    token: int


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward pass.

    Attributes:
        prefix: Tokens of the context to keep; everything after them is dropped before the pass.
        tokens: Tokens to run, in depth-first order.
        parents: Index within the pass of the token before each token, -1 where that is the prefix's last.
        reads: What to read from the output.
        fills: Entries whose states this pass computes, with the index of each one's first token.
        restore: Entry whose state takes the place of running tokens; such a pass has no tokens.
    """

    prefix: int
    tokens: list[int]
    parents: list[int]
    reads: list[Read]
    fills: list[tuple[Entry, int]] = field(default_factory=list)
    restore: Entry | None = None

    @property
    def is_chain(self) -> bool:
        """Whether each token follows the one before it, so that plain causal attention is right."""
        return all(parent == index - 1 for index, parent in enumerate(self.parents))


@dataclass(slots=True, eq=False)
class Node:
    """A run of tokens that is shared by all prompts below it.

    Attributes:
        tokens: Tokens of this node.
        reads: (prompt, candidate, token) to read after its last token.
        children: What follows.
        total: Tokens to run in this node and below it.
        entry: Place of this node's one segment in a prefix cache.
        fills: Entries to fill, with the index of each one's first token in this node.
        held: Whether the state is restored from ``entry`` instead of running the tokens.
        any_held: Whether this node or one below it is held.
    """

    tokens: list[int] = field(default_factory=list)
    reads: list[tuple[int, int, int]] = field(default_factory=list)
    children: dict[object, Node] = field(default_factory=dict)
    total: int = 0
    entry: Entry | None = None
    fills: list[tuple[Entry, int]] = field(default_factory=list)
    held: bool = False
    any_held: bool = False


def check_candidates(candidates: Sequence[TokenIds]) -> None:
    """Refuse label tokens whose probabilities would overlap.

    Raises:
        LabelTokenError: If there are none, one is empty, or one is equal to or the beginning of another.
    """
    if not candidates or not all(candidates):
        raise LabelTokenError("a label has no tokens", fix="give every label a verbalizer that is not empty")
    for i, left in enumerate(candidates):
        for j, right in enumerate(candidates):
            if i != j and right[: len(left)] == left:
                raise LabelTokenError(
                    f"the tokens {list(left)} of label {i} begin those of label {j}, {list(right)}",
                    fix="choose verbalizers of which none begins another",
                )


def check_fit(prompts: Sequence[Prompt], *, max_context_tokens: int, name: str) -> None:
    """Refuse prompts of one call that cannot be scored together, or at all.

    Args:
        prompts: The prompts.
        max_context_tokens: The model's window.
        name: The model's name, for the error.

    Raises:
        BackendError: If a prompt is empty, or they differ in their number of candidates.
        ContextOverflowError: If a prompt and its longest candidate do not fit the window.
    """
    for prompt in prompts:
        if len(prompt.candidates) != len(prompts[0].candidates):
            raise BackendError("prompts of one call differ in their number of candidates", fix="use two calls")
        length = len(prompt) + max(map(len, prompt.candidates), default=0)
        if len(prompt) == 0:
            raise BackendError("a prompt has no tokens", fix="give the task a template that is not empty")
        if length > max_context_tokens:
            raise ContextOverflowError(
                f"a prompt of {length} tokens does not fit the {max_context_tokens} of {name}",
                fix="use a smaller batch_size, or plan sampled with fewer demonstrations",
            )


def check_room(prompt: TokenIds, *, max_new_tokens: int, max_context_tokens: int, name: str) -> None:
    """Refuse a prompt behind which there is no room for what is to be drawn.

    Args:
        prompt: The prompt.
        max_new_tokens: Tokens to draw, at most.
        max_context_tokens: The model's window.
        name: The model's name, for the error.

    Raises:
        ContextOverflowError: If they do not fit together.
    """
    if len(prompt) + max_new_tokens > max_context_tokens:
        raise ContextOverflowError(
            f"a prompt of {len(prompt)} tokens and {max_new_tokens} new ones do not fit the {max_context_tokens} of {name}",
            fix="ask for fewer new tokens, or leave out the longest questions",
        )


def build(prompts: Sequence[Prompt], *, cache: PrefixCache | None = None) -> Node:
    """Join prompts into a tree whose paths share every common run of leading segments.

    A candidate of several tokens adds all but its last token below the query, shared with candidates that begin alike:
    its probability is the product over its tokens.

    Args:
        prompts: Prompts; equal segments are recognised by value.
        cache: Where nodes find the states of earlier calls.

    Returns:
        The root, with chains merged and totals filled in.

    Raises:
        LabelTokenError: See `check_candidates`.
    """
    root = Node(entry=cache.root if cache else None)
    interned = _Interned()
    checked: set[tuple[TokenIds, ...]] = set()
    for index, prompt in enumerate(prompts):
        if prompt.candidates not in checked:
            check_candidates(prompt.candidates)
            checked.add(prompt.candidates)
        node = root
        for segment in prompt.segments:
            if same := interned(segment):
                node = _child(node, id(same), same, cache=cache)
        for candidate, tokens in enumerate(prompt.candidates):
            below = node
            for position, token in enumerate(tokens):
                below.reads.append((index, candidate, token))
                if position < len(tokens) - 1:
                    below = _child(below, ("candidate", token), (token,), cache=None)
    _merge_chains(root)
    return root


def schedule(prompts: Sequence[Prompt], *, pack_tokens: int, cache: PrefixCache | None = None) -> list[Pass]:
    """Write down the forward passes that score the prompts, each shared prefix computed once.

    Args:
        prompts: Prompts, each with at least one token.
        pack_tokens: Neighbouring subtrees of up to this many tokens together run in one pass; 0 for chains only.
        cache: Restore the states that it holds instead of computing them.

    Returns:
        Passes in depth-first order.

    Raises:
        LabelTokenError: See `check_candidates`.
    """
    passes: list[Pass] = []
    # (prefix length, nodes to run side by side after it); an explicit stack, because contexts can be thousands deep.
    stack = [(0, [node]) for node in reversed(_first_nodes(build(prompts, cache=cache)))]
    while stack:
        prefix, nodes = stack.pop()
        node = nodes[0]
        if len(nodes) > 1 or (node.total <= pack_tokens and not node.any_held):
            passes.append(_packed(prefix, nodes))
            continue
        passes.append(Pass(prefix, [], [], [], restore=node.entry) if node.held else _chain(prefix, node))
        for group in reversed(_grouped(list(node.children.values()), pack_tokens)):
            stack.append((prefix + len(node.tokens), group))
    return passes


def cost(prompts: Sequence[Prompt], passes: Sequence[Pass]) -> Cost:
    """What scoring prompts by these passes costs, with zero seconds."""
    computed = sum(len(item.tokens) for item in passes)
    return Cost(prompts=len(prompts), tokens_computed=computed, tokens_reused=unshared_tokens(prompts) - computed)


def token_cost(prompts: Sequence[Prompt]) -> Cost:
    """Tokens that scoring would compute and reuse with nothing held from earlier calls, without scoring.

    Args:
        prompts: Prompts in any order.

    Returns:
        The exact counts, with zero seconds.

    Raises:
        LabelTokenError: See `check_candidates`.
    """
    # Searches count far more prompts than they score, so this walks the same tree as `build` without making its nodes.
    nodes: dict[tuple[int, int], int] = {}
    interned = _Interned()
    checked: set[tuple[TokenIds, ...]] = set()
    computed = 0

    def below(node: int, step: int, tokens: int) -> int:
        nonlocal computed
        key = (node, step)
        if key not in nodes:
            nodes[key] = len(nodes) + 1
            computed += tokens
        return nodes[key]

    for prompt in prompts:
        if prompt.candidates not in checked:
            check_candidates(prompt.candidates)
            checked.add(prompt.candidates)
        end = 0
        for segment in prompt.segments:
            if same := interned(segment):
                end = below(end, id(same), len(same))
        for candidate in prompt.candidates:
            node = end
            for token in candidate[:-1]:
                # Negative, so that no token is mistaken for the identity of a segment.
                node = below(node, -1 - token, 1)
    return Cost(prompts=len(prompts), tokens_computed=computed, tokens_reused=unshared_tokens(prompts) - computed)


class _Interned:
    """Equal segments become one object, so that identity stands for value.

    Hashing a segment by value costs as much as its length, and callers pass the same object again and again.
    """

    def __init__(self) -> None:
        self._by_object: dict[int, TokenIds] = {}
        self._by_value: dict[TokenIds, TokenIds] = {}

    def __call__(self, segment: TokenIds) -> TokenIds:
        """The one object of this value; the caller keeps every segment alive meanwhile."""
        same = self._by_object.get(id(segment))
        if same is None:
            same = self._by_object[id(segment)] = self._by_value.setdefault(segment, segment)
        return same


def unshared_tokens(prompts: Sequence[Prompt]) -> int:
    """Tokens that would be computed if every prompt were scored on its own.

    Args:
        prompts: Prompts in any order.

    Returns:
        The exact count; the tokens of a prompt's candidates are shared as far as they begin alike.
    """
    extra: dict[tuple[TokenIds, ...], int] = {}
    total = 0
    for prompt in prompts:
        if prompt.candidates not in extra:
            beginnings = {tokens[:end] for tokens in prompt.candidates for end in range(1, len(tokens))}
            extra[prompt.candidates] = len(beginnings)
        total += len(prompt) + extra[prompt.candidates]
    return total


def _child(node: Node, key: object, segment: TokenIds, *, cache: PrefixCache | None) -> Node:
    child = node.children.get(key)
    if child is None:
        child = node.children[key] = Node(tokens=list(segment))
        if cache and node.entry:
            child.entry = cache.child(node.entry, segment)
            child.fills = [(child.entry, 0)]
    return child


def _first_nodes(root: Node) -> list[Node]:
    """The root, or its children where prompts share no first segment."""
    return [root] if root.tokens else list(root.children.values())


def _merge_chains(root: Node) -> None:
    """Join every node with its only child where nothing happens between them, and fill in totals, bottom up."""
    order = [root]
    for node in order:
        order.extend(node.children.values())
    for node in reversed(order):
        # A node that is read from needs its last token's output, so it runs even if its state is held.
        node.held = node.entry is not None and node.entry.state is not None and not node.reads
        if node.held or node.reads:
            # What is held need not be filled, and the state after a prompt's end is of no use to a later prompt.
            node.fills = []
        if len(node.children) == 1 and not node.reads and not node.held:
            (child,) = node.children.values()
            if not child.held:
                node.fills += [(entry, len(node.tokens) + first) for entry, first in child.fills]
                node.tokens, node.reads, node.children = node.tokens + child.tokens, child.reads, child.children
        node.total = (0 if node.held else len(node.tokens)) + sum(child.total for child in node.children.values())
        node.any_held = node.held or any(child.any_held for child in node.children.values())


def _grouped(nodes: list[Node], pack_tokens: int) -> list[list[Node]]:
    """Split siblings, in order, into groups that fit one pass together; one too large or partly held stands alone."""
    groups: list[list[Node]] = []
    room = 0
    for node in nodes:
        if groups and node.total <= room and not node.any_held:
            groups[-1].append(node)
            room -= node.total
        else:
            groups.append([node])
            room = 0 if node.any_held else pack_tokens - node.total
    return groups


def _chain(prefix: int, node: Node) -> Pass:
    last = len(node.tokens) - 1
    return Pass(prefix, node.tokens, list(range(-1, last)), [Read(last, *read) for read in node.reads], node.fills)


def _packed(prefix: int, nodes: list[Node]) -> Pass:
    packed = Pass(prefix, [], [], [])
    stack = [(node, -1) for node in reversed(nodes)]
    while stack:
        node, parent = stack.pop()
        first = len(packed.tokens)
        packed.tokens.extend(node.tokens)
        packed.parents.extend([parent, *range(first, first + len(node.tokens) - 1)])
        last = len(packed.tokens) - 1
        packed.reads.extend(Read(last, *read) for read in node.reads)
        packed.fills.extend((entry, first + begin) for entry, begin in node.fills)
        stack.extend((child, last) for child in reversed(node.children.values()))
    return packed
