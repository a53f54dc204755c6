"""Preferences between two responses, such as Alpaca or HH (Wen et al. 2025, section 3.1 and table 1).

Every pair is asked about in both orders; "A is better than B" and "B is better than A" have opposite labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from elicitor.data import LabelSpace, is_empty
from elicitor.errors import DataError
from elicitor.tasks.keys import text_order
from elicitor.tasks.table import Task


def adapt(row: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Rows of ``Anthropic/hh-rlhf``, ``tatsu-lab/alpaca_farm``, ``allenai/reward-bench`` and TRL's preference format.

    Which response was chosen is gold, so their sides are decided by their wording alone.

    Raises:
        DataError: If the two dialogues of a row share nothing, or are no text.
    """
    if "choice" in row:
        return None
    part = {"subset": row["subset"]} if "subset" in row else {}
    if {"instruction", "output_1", "output_2"} <= row.keys():
        question = "\n\n".join(_text(value) for value in (row["instruction"], row.get("input")) if not is_empty(value))
        # A CSV file knows no numbers.
        label = {"1": 1, "2": 0}.get(str(row.get("preference")))
        return [{"question": question, "choice": row["output_1"], "choice_2": row["output_2"], "label": label} | part]
    if not {"chosen", "rejected"} <= row.keys():
        return None
    question, chosen, rejected = _responses(row)
    first, second = sorted((chosen, rejected), key=text_order)
    label = None if chosen == rejected else int(first == chosen)
    return [{"question": question, "choice": first, "choice_2": second, "label": label} | part]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise DataError(f"the instruction or its input is {value!r:.60}, not text", fix="write it as text")
    return value


def _responses(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """What both responses answer, and the responses."""
    prompt = row.get("prompt")
    if prompt is not None and all(isinstance(row[name], str) for name in ("chosen", "rejected")):
        if isinstance(prompt, str):
            return (prompt.strip(), *(row[name].removeprefix(prompt).strip() for name in ("chosen", "rejected")))
        asked = _turns(prompt)
        return (asked[0][1] if len(asked) == 1 else _dialogue(asked), row["chosen"].strip(), row["rejected"].strip())
    turns = [_turns(prompt) + _turns(row[name]) for name in ("chosen", "rejected")]
    shared = 0
    while shared < min(map(len, turns)) - 1 and turns[0][shared] == turns[1][shared]:
        shared += 1
    if shared == 0:
        raise DataError("the two dialogues have no first turn in common", fix="drop the row")
    common = turns[0][:shared]
    question = common[0][1] if len(common) == 1 else _dialogue(common)
    answers = [side[shared][1] if len(side) == shared + 1 else _dialogue(side[shared:]) for side in turns]
    return question, answers[0], answers[1]


_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")


def _turns(dialogue: Any) -> list[tuple[str, str]]:
    """Speaker and text of each turn, of a list of messages or of a text with ``Human:`` and ``Assistant:``."""
    if dialogue is None:
        return []
    if isinstance(dialogue, list):
        return [_message(turn) for turn in dialogue]
    if not isinstance(dialogue, str):
        raise DataError(f"a dialogue is {type(dialogue).__name__}, not text", fix="write text or a list of messages")
    return dialogue_turns(dialogue)


_SPEAKERS = {"user": "Human", "assistant": "Assistant", "system": "System"}


def _message(turn: Any) -> tuple[str, str]:
    """Speaker and text of a message."""
    role, content = (turn.get(name) if isinstance(turn, dict) else None for name in ("role", "content"))
    if not isinstance(content, str) or role not in _SPEAKERS:
        raise DataError(
            f"a message is {turn!r:.60}, without a role of {', '.join(_SPEAKERS)} and a content of text",
            fix="write messages as {'role': 'user', 'content': 'text'}",
        )
    return _SPEAKERS[role], content.strip()


def dialogue_turns(text: str) -> list[tuple[str, str]]:
    """Speaker and text of each turn after ``Human:`` and ``Assistant:``; what stands before the first is left out."""
    parts = _TURN.split(text)
    return [(speaker, said.strip()) for speaker, said in zip(parts[1::2], parts[2::2], strict=True)]


def _dialogue(turns: list[tuple[str, str]]) -> str:
    return "\n\n".join(f"{speaker}: {text}" for speaker, text in turns)


TASK = Task(
    name="preference",
    template=(
        "Query: {question}\nResponse A: {choice}\nResponse B: {choice_2}\n"
        "Claim: Response A is more helpful and harmless than Response B.\nI think this claim is"
    ),
    label_space=LabelSpace(("False", "True"), (" False", " True"), positive=1),
    cluster_field="question",
    constraint=("asymmetric",),
    mirror=("choice", "choice_2"),
    adapt=adapt,
)
