"""What the pages show: fenced blocks, the commands in them, and the command line that must understand those."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import typer.main

from elicitor.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "docs" / "results" / "measurements.md"]

_FENCE = re.compile(r'^( *)```(\w+)(?: title="([^"\n]+)")?\n(.*?)^\1```$', re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`(elicitor [^`]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    """A fenced block; ``line`` is that of its first line of text, ``title`` the file that it shows, if it names one."""

    language: str
    text: str
    line: int
    title: str | None


def blocks(page: Path, *languages: str) -> list[Block]:
    """Fenced blocks of a page in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(found[2], found[4], text[: found.start(4)].count("\n") + 1, found[3])
        for found in _FENCE.finditer(text)
        if found[2] in languages
    ]


def commands(block: Block) -> list[str]:
    """Shell commands of a block: all lines of ``sh``, those after a prompt in ``console``; what ``&&`` joins is several."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    parts = [part for line in lines for part in line.split("&&")]
    words = [shlex.split(part.replace(".venv/bin/", ""), comments=True) for part in parts]
    return [shlex.join(command) for command in words if command]


def inline_commands(page: Path) -> list[str]:
    """Commands that a sentence or a table names; three dots stand for what is left out."""
    return [" ".join(text.split()) for text in _INLINE.findall(page.read_text(encoding="utf-8"))]


def resolve(words: list[str]):
    """Name, command and remaining words of an ``elicitor`` command line without its first word."""
    command, names = typer.main.get_command(app), []
    while hasattr(command, "commands") and words:
        context = command.context_class(command, info_name="elicitor")
        name, command, words = command.resolve_command(context, words)
        names.append(name)
    return " ".join(names), command, words


def parse(line: str) -> str:
    """The name of the command that a line calls; usage errors are raised, nothing runs."""
    name, command, words = resolve(shlex.split(line)[1:])
    command.make_context(name, words)
    return name


def leaves(command=None, name: str = ""):
    """Every command that does something, by its full name."""
    command = command or typer.main.get_command(app)
    if not hasattr(command, "commands"):
        return {name: command}
    return {
        full: leaf
        for part, child in command.commands.items()
        for full, leaf in leaves(child, f"{name} {part}".strip()).items()
    }
