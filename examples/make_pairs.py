"""Pairs of responses to small questions, one helpful and one not: data for assistant_cpu.sh where there is no other.

python examples/make_pairs.py 450 > pairs.jsonl
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

import numpy as np

OPPOSITES = {
    "hot": "cold", "early": "late", "full": "empty", "loud": "quiet", "wide": "narrow", "heavy": "light", "old": "young",
    "wet": "dry", "open": "closed", "strong": "weak", "deep": "shallow", "fast": "slow", "rich": "poor", "sharp": "blunt",
}  # fmt: skip
MADE_OF = {
    "bread": "flour, water, yeast and salt", "glass": "sand, soda and lime", "paper": "wood pulp", "butter": "cream",
    "steel": "iron and a little carbon", "cheese": "milk", "wine": "grapes", "a candle": "wax and a wick",
}  # fmt: skip
USES = {
    "a hammer": "drive in nails", "a kettle": "boil water", "a map": "find the way", "a broom": "sweep the floor",
    "an umbrella": "stay dry in the rain", "a needle": "sew cloth", "a ladder": "reach high places", "soap": "wash hands",
}  # fmt: skip
EVASIONS = (
    "I would rather not say.",
    "That is a question that many people ask.",
    "It depends on many things.",
    "Why do you want to know?",
    "You could look it up somewhere.",
    "No idea.",
)


def questions(rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """A question and a helpful answer, without end."""
    while True:
        a, b = (int(x) for x in rng.integers(2, 60, size=2))
        word = str(rng.choice(list(OPPOSITES)))
        stuff, tool = str(rng.choice(list(MADE_OF))), str(rng.choice(list(USES)))
        names = [str(x) for x in rng.permutation(["pears", "nails", "stamps", "eggs", "candles", "ropes"])[:3]]
        yield from (
            (f"What is {a} plus {b}?", f"{a} plus {b} is {a + b}."),
            (f"I have {a} {names[0]} and buy {b} more. How many do I have?", f"You have {a + b} {names[0]} then."),
            (f"What is the opposite of {word}? Example {a}.", f"The opposite of {word} is {OPPOSITES[word]}."),
            (f"What is {stuff} made of? ({a})", f"It is made of {MADE_OF[stuff]}."),
            (f"What can I do with {tool}? ({b})", f"You can {USES[tool]} with it."),
            (f"Put {', '.join(names)} into the order of the alphabet ({a}).", f"{', '.join(sorted(names))}."),
        )


def main() -> None:
    """Print as many pairs as the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("n", type=int, choices=range(1, 2001), metavar="N", help="pairs, from 1 to 2000")
    n = parser.parse_args().n
    rng = np.random.default_rng(0)
    seen: set[str] = set()
    for question, answer in questions(rng):
        if question in seen:
            continue
        seen.add(question)
        first = int(rng.integers(2))
        other = str(rng.choice(EVASIONS))
        choice, choice_2 = (answer, other) if first else (other, answer)
        row = {"id": f"p{len(seen)}", "question": question, "choice": choice, "choice_2": choice_2, "label": first}
        print(json.dumps(row))
        if len(seen) == n:
            return


if __name__ == "__main__":
    main()
