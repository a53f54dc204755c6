"""Prompts as a prefix tree, and the tree as a list of forward passes. Pure Python: token counts need no model.

Reading order: `schedule` builds the tree of `Node`s from the prompts, then walks it depth first and writes down `Pass`es.
A pass says how much of the cache to keep, which tokens to run and what each of them may see; a backend only executes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from elicitor.backends.base import Cost, Prompt, TokenIds
from elicitor.errors import LabelTokenError


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
        prefix: Cached tokens to keep; everything after them is dropped before the pass.
        tokens: Tokens to run, in depth-first order.
        parents: Index within the pass of the token before each token, -1 where that is the prefix's last.
        reads: What to read from the output.
    """

    prefix: int
    tokens: list[int]
    parents: list[int]
    reads: list[Read]

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
        total: Tokens of this node and everything below it.
    """

    tokens: list[int] = field(default_factory=list)
    reads: list[tuple[int, int, int]] = field(default_factory=list)
    children: dict[object, Node] = field(default_factory=dict)
    total: int = 0


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


def build(prompts: Sequence[Prompt]) -> Node:
    """Join prompts into a tree whose paths share every common run of leading segments.

    A candidate of several tokens adds all but its last token below the query, shared with candidates that begin alike:
    its probability is the product over its tokens.

    Args:
        prompts: Prompts; equal segments are recognised by value.

    Returns:
        The root, with chains merged and totals filled in.

    Raises:
        LabelTokenError: See `check_candidates`.
    """
    root = Node()
    # Hashing a segment by value costs as much as its length, and callers pass the same object again and again.
    canonical_by_object: dict[int, TokenIds] = {}
    canonical_by_value: dict[TokenIds, TokenIds] = {}
    checked: set[tuple[TokenIds, ...]] = set()
    for index, prompt in enumerate(prompts):
        if prompt.candidates not in checked:
            check_candidates(prompt.candidates)
            checked.add(prompt.candidates)
        node = root
        for segment in prompt.segments:
            same = canonical_by_object.get(id(segment))
            if same is None:
                same = canonical_by_object[id(segment)] = canonical_by_value.setdefault(segment, segment)
            if same:
                node = _child(node, id(same), same)
        for candidate, tokens in enumerate(prompt.candidates):
            below = node
            for position, token in enumerate(tokens):
                below.reads.append((index, candidate, token))
                if position < len(tokens) - 1:
                    below = _child(below, ("candidate", token), (token,))
    _merge_chains(root)
    return root


def schedule(prompts: Sequence[Prompt], *, pack_tokens: int) -> list[Pass]:
    """Write down the forward passes that score the prompts, each shared prefix computed once.

    Args:
        prompts: Prompts, each with at least one token.
        pack_tokens: Neighbouring subtrees of up to this many tokens together run in one pass; 0 for chains only.

    Returns:
        Passes in depth-first order.

    Raises:
        LabelTokenError: See `check_candidates`.
    """
    passes: list[Pass] = []
    # (prefix length, nodes to run side by side after it); an explicit stack, because contexts can be thousands deep.
    stack = [(0, [node]) for node in reversed(list(_first_nodes(build(prompts))))]
    while stack:
        prefix, nodes = stack.pop()
        if len(nodes) > 1 or nodes[0].total <= pack_tokens:
            passes.append(_packed(prefix, nodes))
            continue
        node = nodes[0]
        passes.append(_chain(prefix, node))
        for group in reversed(_grouped(list(node.children.values()), pack_tokens)):
            stack.append((prefix + len(node.tokens), group))
    return passes


def token_cost(prompts: Sequence[Prompt]) -> Cost:
    """Tokens that scoring would compute and reuse, without scoring.

    Args:
        prompts: Prompts in any order.

    Returns:
        The exact counts, with zero seconds.

    Raises:
        LabelTokenError: See `check_candidates`.
    """
    computed = build(prompts).total
    return Cost(prompts=len(prompts), tokens_computed=computed, tokens_reused=_unshared(prompts) - computed)


def _unshared(prompts: Sequence[Prompt]) -> int:
    """Tokens if every prompt were computed on its own (candidates once each, as the tree would)."""
    extra: dict[tuple[TokenIds, ...], int] = {}
    total = 0
    for prompt in prompts:
        if prompt.candidates not in extra:
            beginnings = {tokens[:end] for tokens in prompt.candidates for end in range(1, len(tokens))}
            extra[prompt.candidates] = len(beginnings)
        total += len(prompt) + extra[prompt.candidates]
    return total


def _child(node: Node, key: object, tokens: Sequence[int]) -> Node:
    child = node.children.get(key)
    if child is None:
        child = node.children[key] = Node(tokens=list(tokens))
    return child


def _first_nodes(root: Node) -> list[Node]:
    """The root, or its children where prompts share no first segment."""
    return [root] if root.tokens else list(root.children.values())


def _merge_chains(root: Node) -> None:
    """Join every node that has one child and no read with that child, and fill in totals, bottom up."""
    order = [root]
    for node in order:
        order.extend(node.children.values())
    for node in reversed(order):
        if len(node.children) == 1 and not node.reads:
            (child,) = node.children.values()
            node.tokens, node.reads, node.children = node.tokens + child.tokens, child.reads, child.children
        node.total = len(node.tokens) + sum(child.total for child in node.children.values())


def _grouped(nodes: list[Node], pack_tokens: int) -> list[list[Node]]:
    """Split siblings, in order, into groups that fit one pass together; a node too large stands alone."""
    groups: list[list[Node]] = []
    room = 0
    for node in nodes:
        if groups and node.total <= room:
            groups[-1].append(node)
            room -= node.total
        else:
            groups.append([node])
            room = pack_tokens - node.total
    return groups


def _chain(prefix: int, node: Node) -> Pass:
    last = len(node.tokens) - 1
    return Pass(prefix, node.tokens, list(range(-1, last)), [Read(last, *read) for read in node.reads])


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
        stack.extend((child, last) for child in reversed(node.children.values()))
    return packed
