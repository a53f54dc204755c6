"""Mappings out of YAML files and values out of ``--set``, with errors that name file and line.

Safe in what YAML allows: only plain values are made, and what aliases multiply is counted before anything is made of it, so a
file of a few lines cannot become more than memory holds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from elicitor.errors import ConfigError, ElicitorError

MOST_BYTES = 2**20
"""Bytes of a YAML file at most; settings, tasks and suites have thousands."""
MOST_VALUES = 100_000
"""Values in a file at most, each counted as often as its aliases stand for it."""
_NULLS = ("", "~", "null", "Null", "NULL")
_SENSELESS = (ValueError, RecursionError, KeyError, IndexError, AttributeError, TypeError, OverflowError)
"""What PyYAML raises, beside its own errors, where a tag or a form promises a value that the text does not hold."""


def read_mapping(file: Path, *, error: type[ElicitorError], hint: str, as_text: bool = False) -> dict[str, Any]:
    """Read a YAML file that holds keys and values.

    Args:
        file: The file.
        error: What to raise.
        hint: What the file should hold, for the error when it does not.
        as_text: Keep every scalar as text: YAML's own rules would turn the labels no and yes into truth values. A key
            whose value is null is left out.

    Returns:
        Its content.

    Raises:
        ElicitorError: If it cannot be read, is too large, is not YAML, holds a key twice or is no mapping; of the type
            ``error``.
    """
    try:
        with file.open("rb") as stream:
            raw = stream.read(MOST_BYTES + 1)
        text = raw.decode("utf-8")
    except FileNotFoundError as cause:
        raise error(f"{file} does not exist", fix="check the path") from cause
    except (OSError, UnicodeDecodeError) as cause:
        raise error(f"{file} cannot be read: {cause}", fix="save it as a UTF-8 text file") from cause
    if len(raw) > MOST_BYTES:
        raise error(f"{file} is larger than {MOST_BYTES:,} bytes", fix="give a file of settings; is this one of data?")
    content = _load(text, _TextLoader if as_text else _Loader, place=str(file), error=error)
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise error(f"{file} does not hold keys and values", fix=hint)
    return content


def read_value(text: str, *, place: str) -> Any:
    """The value of a text such as ``0.5`` or ``[1, 2]``, by YAML's rules.

    Args:
        text: The text.
        place: Where it was given, for the error, such as ``--set seed``.

    Raises:
        ConfigError: If it is not YAML.
    """
    try:
        return _load(text, _Loader, place=place, error=ConfigError)
    except ConfigError as cause:
        raise ConfigError(f"{place}: {text[:80]!r} is not a YAML value", fix="quote it") from cause


def _load(text: str, loader: Any, *, place: str, error: type[ElicitorError]) -> Any:
    try:
        return yaml.load(text, Loader=loader)
    except yaml.MarkedYAMLError as cause:
        mark = cause.problem_mark
        where = f" line {mark.line + 1}" if mark else ""
        raise error(
            f"{place}{where} is not valid YAML: {cause.problem}", fix="check indentation and quotes there"
        ) from cause
    except yaml.YAMLError as cause:
        raise error(
            f"{place} is not valid YAML: {' '.join(str(cause).split())}", fix="save it as a UTF-8 text file"
        ) from cause
    except _SENSELESS as cause:
        reason = "it is nested too deeply" if isinstance(cause, RecursionError) else str(cause)
        raise error(f"{place} holds a value that YAML cannot make sense of: {reason}", fix="quote it") from cause


class _Careful(yaml.constructor.BaseConstructor):
    """Refuses a key that stands twice, of which YAML would quietly keep the last, and what aliases blow up."""

    def construct_document(self, node: yaml.Node) -> Any:
        _count(node, {})
        return super().construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands there for the second time", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Values that a node stands for; a node that holds itself, half a surrogate pair and too many values are refused."""
    size = known.get(id(node))
    if size is not None:
        if size:
            return size
        raise yaml.constructor.ConstructorError(None, None, "an alias stands for what it is in", node.start_mark)
    known[id(node)], size = 0, 1
    if isinstance(node, yaml.ScalarNode):
        if any("\ud800" <= sign <= "\udfff" for sign in node.value):
            raise yaml.constructor.ConstructorError(
                None, None, "a text holds half of a surrogate pair; write the character itself", node.start_mark
            )
    else:
        for part in node.value:
            size += sum(_count(each, known) for each in (part if isinstance(part, tuple) else (part,)))
    if size > MOST_VALUES:
        raise yaml.constructor.ConstructorError(
            None, None, f"aliases make it more than {MOST_VALUES:,} values", node.start_mark
        )
    known[id(node)] = size
    return size


class _Loader(_Careful, yaml.SafeLoader):
    pass


def _whole_number(loader: _Loader, node: yaml.ScalarNode) -> int:
    number = int(loader.construct_yaml_int(node))
    if abs(number) >= 2**63:
        # Nothing here counts so far, and Python refuses to write out very long ones.
        raise yaml.constructor.ConstructorError(None, None, "a whole number is beyond 64 bits", node.start_mark)
    return number


_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)


class _TextLoader(_Careful, yaml.BaseLoader):
    def construct_document(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            node.value = [(key, value) for key, value in node.value if not _is_null(value)]
        return super().construct_document(node)


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.style is None and node.value in _NULLS
