"""Tasks: what is asked of each example, declared in Python or in a YAML file of a dozen lines.

The template's fields are filled by plain substitution: a field's text is data and is never read as a template again.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from elicitor.backends.base import Part
from elicitor.data import Example, LabelSpace
from elicitor.errors import TaskError
from elicitor.tasks.keys import NORMALIZERS, KeyNormalizer

ConstraintKind = Literal["at_most_one", "equivalent", "exactly_one", "asymmetric", "negation"]
CONSTRAINT_KINDS: tuple[str, ...] = get_args(ConstraintKind)
Adapter = Callable[[Mapping[str, Any]], "list[dict[str, Any]] | None"]


@dataclass(frozen=True)
class Task:
    """What is asked of each example.

    Attributes:
        name: Name of the task.
        template: Prompt with named ``{fields}``; it must not end in white space, which the verbalizer begins with.
        label_space: Labels and their verbalizers.
        separator: Text after each demonstration's label.
        preamble: Text before everything.
        id_column: Column with the example's id; where a file has no such column, ids are ``row-1``, ``row-2``, ...
        group_column: Column that says which examples logic binds together.
        group_field: Field that does so where the group column is absent.
        gold_column: Column with the true label, read by evaluation alone.
        gold_values: Label name by raw gold value, where they differ.
        votes_column: Column with the labels that single annotators gave, read by evaluation alone, which need not be there.
        cluster_field: Field whose equal texts move together when intervals are drawn, where groups are smaller than that.
        constraint: What logic says about a group; see `elicitor.consistency`.
        key_columns: Columns whose text the constraint compares.
        mirror: Two columns of a pair. Each row gives two examples, in either order; the constraint compares the order, and
            gold is turned round with it. Each row is a group.
        optional_columns: Group, key and negation columns that a whole file may lack; its examples then go without.
        negated_column: Column that says whether an example denies what its key says; where it is empty it does not.
        key_normalizer: ``exact``, ``text`` to ignore case, spacing and the punctuation of sentences, or ``final_answer``
            for the number a solution ends in.
        adapt: Turns a raw row of a format that users know from the hub into rows of this task's own; None for a row that
            is one already. It may look at gold to write the gold column, but ids and order must not depend on it.
    """

    name: str
    template: str
    label_space: LabelSpace
    separator: str = "\n\n"
    preamble: str = ""
    id_column: str = "id"
    group_column: str | None = None
    group_field: str | None = None
    gold_column: str = "label"
    gold_values: Mapping[str, str] = field(default_factory=dict)
    votes_column: str = "human_votes"
    cluster_field: str | None = None
    constraint: tuple[ConstraintKind, ...] = ()
    key_columns: tuple[str, ...] = ()
    mirror: tuple[str, str] | None = None
    optional_columns: tuple[str, ...] = ()
    negated_column: str | None = None
    key_normalizer: KeyNormalizer = "text"
    adapt: Adapter | None = None

    def __post_init__(self) -> None:
        """Refuse declarations that contradict themselves or would let gold leak."""
        if self.template != self.template.rstrip():
            raise TaskError(
                f"task {self.name!r}: the template ends in white space",
                fix="move it to the start of the verbalizers, so that a query tokenises like a demonstration",
            )
        if not self.fields:
            raise TaskError(f"task {self.name!r}: the template names no field", fix="write a column as {column} in it")
        used = (*self.fields, self.id_column, self.group_column, *self.key_columns, self.negated_column)
        for what, column in (("gold", self.gold_column), ("votes", self.votes_column)):
            if column in used:
                raise TaskError(
                    f"task {self.name!r}: the {what} column {column!r} is used as a field, id, group or key",
                    fix=f"labels must not be derived from gold; name another {what} column or remove it there",
                )
        for what, name in (("group", self.group_field), ("cluster", self.cluster_field)):
            if name is not None and name not in self.fields:
                raise TaskError(
                    f"task {self.name!r}: the {what} field {name!r} is not in the template",
                    fix=f"use one of {', '.join(self.fields)}",
                )
        unknown = set(self.gold_values.values()) - set(self.label_space.labels)
        if unknown:
            raise TaskError(
                f"task {self.name!r}: gold_values names {sorted(unknown)[0]!r}, which is not a label",
                fix=f"use {', '.join(self.label_space.labels)}",
            )
        opposing = [kind for kind in self.constraint if kind in ("asymmetric", "negation")]
        if opposing and self.label_space.kind != "binary":
            raise TaskError(
                f"task {self.name!r}: constraint {opposing[0]!r} needs exactly two labels",
                fix="use equivalent, at_most_one or exactly_one",
            )
        binary_only = "mirror" if self.mirror else "negated" if self.negated_column else None
        if binary_only and self.label_space.kind != "binary":
            raise TaskError(f"task {self.name!r}: {binary_only!r} needs exactly two labels", fix="leave it out")
        if self.mirror is not None:
            if len(set(self.mirror) & set(self.fields)) != 2:
                raise TaskError(
                    f"task {self.name!r}: mirror {list(self.mirror)} must be two fields of the template",
                    fix=f"use two of {', '.join(self.fields)}",
                )
            if self.key_columns or self.group_column or self.group_field:
                raise TaskError(
                    f"task {self.name!r}: a mirrored row is a group and its order the key",
                    fix="leave out group and key",
                )
        elif self.constraint and (self.group_column is None or not self.key_columns):
            raise TaskError(
                f"task {self.name!r}: a constraint needs a group column and a key column",
                fix="add 'group: COLUMN' and 'key: COLUMN'",
            )

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Fields that the template names, each once.

        Raises:
            TaskError: If the template is not plain text with ``{name}`` fields.
        """
        return tuple(dict.fromkeys(name for _, name in self._parts if name is not None))

    @cached_property
    def _parts(self) -> tuple[tuple[str, str | None], ...]:
        try:
            parts = list(string.Formatter().parse(self.template))
        except ValueError as error:
            raise TaskError(
                f"task {self.name!r}: template: {error}", fix="write fields as {name} and a real brace twice"
            ) from error
        for _, name, spec, conversion in parts:
            if name is not None and (spec or conversion or not name or not name.replace("_", "a").isalnum()):
                raise TaskError(
                    f"task {self.name!r}: the template has the field {{{name}}} with more than a plain name",
                    fix="name the column alone, with letters, digits and underscores",
                )
        return tuple((text, name) for text, name, _, _ in parts)

    def render(self, example: Example) -> str:
        """The prompt of an example, up to where its label begins."""
        return "".join(part.text for part in self.parts(example))

    def parts(self, example: Example) -> list[Part]:
        """The same in pieces: the template's own text, and the example's."""
        pieces = []
        for text, name in self._parts:
            pieces.append(Part(text, is_data=False))
            if name:
                pieces.append(Part(example.fields[name], is_data=True))
        return pieces

    def default_group(self, fields: Mapping[str, str]) -> str | None:
        """Group of an example whose file has no group column."""
        return fields[self.group_field] if self.group_field else None

    def cluster(self, example: Example) -> str:
        """Examples of one cluster are not independent of one another, bound by logic or not."""
        return example.fields[self.cluster_field] if self.cluster_field else example.group_id

    def constraint_key(self, values: Mapping[str, str | None]) -> str | None:
        """What the constraint compares; None if there is no constraint, a column is empty or its key is unclear."""
        normalize = NORMALIZERS[self.key_normalizer]
        texts = [values[name] for name in self.key_columns]
        keys = [None if text is None else normalize(text) for text in texts]
        return json.dumps(keys) if self.constraint and None not in keys else None

    def gold_label(self, value: Any) -> int | None:
        """Label index of a raw gold value, or None if it is outside the set.

        `gold_values` decides where it is given; otherwise a label's name, its verbalizer, or, for two labels, 1/0 and
        true/false with 1 for the positive one. Case counts only where two names differ in nothing else.
        """
        text = str(value).strip()
        names = self.label_space.labels
        if self.gold_values:
            index = _match(text, list(self.gold_values))
            return None if index is None else names.index(list(self.gold_values.values())[index])
        for candidates in (names, self.label_space.verbalizers):
            index = _match(text, candidates)
            if index is not None:
                return index
        plain = _plain(text)
        if self.label_space.kind == "binary" and plain in ("0", "1", "true", "false"):
            positive = self.label_space.positive
            return positive if plain in ("1", "true") else 1 - positive
        return None

    def with_verbalizers(self, verbalizers: Sequence[str] | None) -> Task:
        """The same task with other texts for its labels; the same task where none are given.

        Raises:
            TaskError: If their number is wrong or two are equal.
        """
        if verbalizers is None:
            return self
        space = self.label_space
        return replace(self, label_space=LabelSpace(space.labels, tuple(verbalizers), space.positive))

    def with_gold_column(self, column: str) -> Task:
        """The same task with gold in another column."""
        return replace(self, gold_column=column)


def _match(text: str, candidates: Sequence[str]) -> int | None:
    """Index of the candidate that is this text, or that alone is so but for case and a ``.0``."""
    for equals in (str.strip, _plain):
        found = [index for index, candidate in enumerate(candidates) if equals(candidate) == equals(text)]
        if len(found) == 1:
            return found[0]
    return None


def _plain(text: str) -> str:
    return re.sub(r"^([+-]?\d+)\.0+$", r"\1", text.strip().casefold())


class _Declaration(BaseModel):
    """Schema of a task file."""

    model_config = ConfigDict(extra="forbid")

    name: str = "table"
    template: str
    labels: list[str | bool | int] | dict[str | bool | int, str]
    positive: str | bool | int | None = None
    separator: str = "\n\n"
    preamble: str = ""
    id: str = "id"
    group: str | None = None
    gold: str = "label"
    gold_values: dict[str | bool | int | float, str | bool | int] = {}
    votes: str = "human_votes"
    cluster: str | None = None
    constraint: str | list[str] = "none"
    key: str | list[str] = []
    mirror: tuple[str, str] | None = None
    negated: str | None = None
    normalize: KeyNormalizer = "text"


def declare(values: Mapping[str, Any], *, source: str) -> Task:
    """Make a task from a declaration.

    Args:
        values: Content of a task file; docs/tasks.md lists the keys.
        source: Where it comes from, for errors.

    Returns:
        The task.

    Raises:
        TaskError: If a key is unknown, missing or wrong.
    """
    try:
        declared = _Declaration.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        allowed = ", ".join(_Declaration.model_fields)
        if first["type"] == "extra_forbidden":
            raise TaskError(f"{source}: unknown key {key!r}", fix=f"allowed keys are {allowed}") from error
        if first["type"] == "missing":
            raise TaskError(f"{source}: key {key!r} is missing", fix="add it; docs/tasks.md has an example") from error
        raise TaskError(f"{source}: key {key!r}: {first['msg']}", fix="docs/tasks.md has an example") from error
    if isinstance(declared.labels, dict):
        names = [str(name) for name in declared.labels]
        verbalizers = list(declared.labels.values())
    else:
        names = [str(name) for name in declared.labels]
        verbalizers = [f" {name}" for name in names]
    positive = str(declared.positive) if declared.positive is not None else names[-1] if names else ""
    if names and positive not in names:
        raise TaskError(f"{source}: positive {positive!r} is not a label", fix=f"use one of {', '.join(names)}")
    kinds = [declared.constraint] if isinstance(declared.constraint, str) else declared.constraint
    kinds = [kind for kind in kinds if kind != "none"]
    wrong = [kind for kind in kinds if kind not in CONSTRAINT_KINDS]
    if wrong:
        raise TaskError(f"{source}: unknown constraint {wrong[0]!r}", fix=f"use none, {', '.join(CONSTRAINT_KINDS)}")
    try:
        space = LabelSpace(tuple(names), tuple(verbalizers), names.index(positive) if names else 0)
    except TaskError as error:
        raise TaskError(f"{source}: {error.problem}", fix=error.fix) from error
    return Task(
        name=declared.name,
        template=declared.template.rstrip("\n"),
        label_space=space,
        separator=declared.separator,
        preamble=declared.preamble,
        id_column=declared.id,
        group_column=declared.group,
        gold_column=declared.gold,
        gold_values={str(raw): str(name) for raw, name in declared.gold_values.items()},
        votes_column=declared.votes,
        cluster_field=declared.cluster,
        constraint=tuple(kind for kind in CONSTRAINT_KINDS if kind in kinds),  # type: ignore[misc]
        key_columns=(declared.key,) if isinstance(declared.key, str) else tuple(declared.key),
        mirror=declared.mirror,
        negated_column=declared.negated,
        key_normalizer=declared.normalize,
    )
