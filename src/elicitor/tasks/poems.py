"""Which of two poems is better: a negative control (Wen et al. 2025, section 4.2 and figure 5).

Gold calls the poem better that mentions the sun: a taste of one person, which no model can know without being told. Labels
found for it may be coherent, but they cannot agree with gold beyond chance; a method that does better has seen gold.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from elicitor.data import LabelSpace
from elicitor.tasks.table import Task

TASK = Task(
    name="poems",
    template=(
        "Poem A:\n{choice}\n\nPoem B:\n{choice_2}\n\nClaim: Poem A is a better poem than Poem B.\nI think this claim is"
    ),
    label_space=LabelSpace(("False", "True"), (" False", " True"), positive=1),
    separator="\n\n\n",
    constraint=("asymmetric",),
    mirror=("choice", "choice_2"),
)

SUN = "sun"
OTHERS = ("fog", "cat", "hen", "owl", "fox", "dog", "bee", "cow")
"""What stands where the other poem has the sun, as short as that."""

_WITH_SLOT = (
    ("The {w} came slowly past the gate,", "and nothing there was early or was late."),
    ("I asked the {w} to wait a while,", "it answered with a kind of smile."),
    ("Above the lane we met the {w},", "as we had met it once before."),
    ("We tell our secrets to the {w},", "and no one hears another word."),
    ("The {w} looked in, the {w} looked out,", "not knowing what it was about."),
    ("A painter tried to draw the {w},", "and stopped before the page was done."),
    ("Old Martha says she knows the {w}", "as well as any living one."),
    ("By noon the {w} had found our street,", "and rested near the baker's feet."),
    ("Let no one say the {w} is proud,", "it never speaks its thoughts aloud."),
    ("The child drew only one small {w}", "and wrote below it: now I'm done."),
)
"""Couplets with a place for the sun or for something else."""
_PLAIN = (
    (
        "The {a} stands on the {b} shelf,",
        "and keeps its stories to itself.",
        ("clock", "lamp", "jug"),
        ("top", "old", "long"),
    ),
    (
        "We mend the {a} beside the wall,",
        "the {b} boards, the gate and all.",
        ("fence", "bench", "cart"),
        ("loose", "bent", "last"),
    ),
    (
        "My aunt puts {a} into her tea,",
        "and {b} the kettle home to me.",
        ("mint", "milk", "salt"),
        ("sends", "lends", "waves"),
    ),
    (
        "The {a} goes by at half past four,",
        "and {b} the windows and the door.",
        ("train", "tram", "truck"),
        ("taps", "shakes", "stirs"),
    ),
    (
        "A {a} lay upon the stair,",
        "the {b} had put it there.",
        ("glove", "letter", "spoon"),
        ("porter", "cook", "twins"),
    ),
    (
        "They sold the {a} and bought a {b},",
        "and sang the whole way up the track.",
        ("boat", "piano", "goat"),
        ("sack", "tent", "map"),
    ),
    (
        "The {a} was cold, the {b} was thin,",
        "my brother let the neighbours in.",
        ("bread", "room", "soup"),
        ("wine", "rope", "broth"),
    ),
    (
        "I count the {a} along the quay,",
        "and {b} them as they put to sea.",
        ("masts", "crates", "ropes"),
        ("name", "greet", "draw"),
    ),
    (
        "Her {a} hangs in the {b} hall,",
        "it is the best coat of them all.",
        ("coat", "cape", "cloak"),
        ("dim", "narrow", "back"),
    ),
    (
        "We {a} the field from end to end,",
        "a {b} for each and every friend.",
        ("walked", "swept", "mapped"),
        ("song", "stone", "plum"),
    ),
    (
        "The {a} are ripe, the {b} are low,",
        "the ladder leans where apples grow.",
        ("pears", "figs", "plums"),
        ("boughs", "walls", "clouds"),
    ),
    (
        "He folds the {a} in two, in three,",
        "and leaves a {b} on it for me.",
        ("sheet", "page", "shirt"),
        ("note", "coin", "leaf"),
    ),
)
"""Couplets about everyday things, with words to choose from."""


def generate_poems(n: int, *, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Pairs of four-line poems of which one mentions the sun; nothing else tells them apart.

    Both poems of a pair are made alike: a plain couplet and one with a place that holds either the sun or another noun of
    three letters, in either order. The sun's side is dealt equally often by lot.

    Args:
        n: Pairs.
        rng: Chooses couplets, words and sides.

    Returns:
        Rows with ``id``, ``choice``, ``choice_2`` and ``label`` (1: the first poem mentions the sun), all pairs different.

    Raises:
        ValueError: If ``n`` is below 1.
    """
    if n < 1:
        raise ValueError(f"need at least 1 pair, got {n}")
    first = rng.permutation(np.arange(n) % 2)
    rows: list[dict[str, Any]] = []
    seen: set[tuple[str, str]] = set()
    while len(rows) < n:
        slots, plains = rng.permutation(len(_WITH_SLOT))[:2], rng.permutation(len(_PLAIN))[:2]
        turned = bool(rng.integers(2))
        words = (SUN, str(rng.choice(OTHERS)))
        poems = tuple(
            _poem(_WITH_SLOT[slot], word, _PLAIN[plain], turned=turned, rng=rng)
            for slot, word, plain in zip(slots, words, plains, strict=True)
        )
        if (poems[0], poems[1]) in seen:
            continue
        seen.add((poems[0], poems[1]))
        label = int(first[len(rows)])
        left, right = poems if label else poems[::-1]
        rows.append({"id": f"poems-{len(rows) + 1:04d}", "choice": left, "choice_2": right, "label": label})
    return rows


def _poem(
    slot: tuple[str, str],
    word: str,
    plain: tuple[str, str, tuple[str, ...], tuple[str, ...]],
    *,
    turned: bool,
    rng: np.random.Generator,
) -> str:
    """One poem; ``turned`` puts the plain couplet last."""
    about = [line.replace("{w}", word) for line in slot]
    chosen = {"{a}": str(rng.choice(plain[2])), "{b}": str(rng.choice(plain[3]))}
    everyday = [line.replace("{a}", chosen["{a}"]).replace("{b}", chosen["{b}"]) for line in plain[:2]]
    return "\n".join(about + everyday if turned else everyday + about)
