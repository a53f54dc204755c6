"""Mappings out of YAML files, with errors that name file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from elicitor.errors import ElicitorError

_NULLS = ("", "~", "null", "Null", "NULL")


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
        ElicitorError: If it cannot be read, is not YAML, holds a key twice or is no mapping; of the type ``error``.
    """
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_TextLoader if as_text else _Loader)
    except FileNotFoundError as cause:
        raise error(f"{file} does not exist", fix="check the path") from cause
    except (OSError, UnicodeDecodeError) as cause:
        raise error(f"{file} cannot be read: {cause}", fix="save it as a UTF-8 text file") from cause
    except yaml.MarkedYAMLError as cause:
        mark = cause.problem_mark
        where = f" line {mark.line + 1}" if mark else ""
        raise error(
            f"{file}{where} is not valid YAML: {cause.problem}", fix="check indentation and quotes there"
        ) from cause
    except yaml.YAMLError as cause:
        raise error(f"{file} is not valid YAML: {cause}", fix="save it as a UTF-8 text file") from cause
    except (ValueError, RecursionError) as cause:
        raise error(f"{file} holds a value that YAML cannot make sense of: {cause}", fix="quote it") from cause
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise error(f"{file} does not hold keys and values", fix=hint)
    return content


class _UniqueKeys(yaml.constructor.BaseConstructor):
    """Refuses a key that stands twice, of which YAML would quietly keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands there for the second time", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


class _Loader(_UniqueKeys, yaml.SafeLoader):
    pass


class _TextLoader(_UniqueKeys, yaml.BaseLoader):
    def construct_document(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            node.value = [(key, value) for key, value in node.value if not _is_null(value)]
        return super().construct_document(node)


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.style is None and node.value in _NULLS
