"""Data files, settings, tasks, and the command line over them."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from elicitor import cli
from elicitor.config import build_config, parse_config, read_config
from elicitor.data import load_dataset
from elicitor.errors import ConfigError, DataError
from elicitor.gold import check_gold
from elicitor.inputs import task_of
from elicitor.prompts import PromptEncoder
from elicitor.tasks import load_task
from fuzzing.group import PIECES, Check, Group, must, spoilt, values

TASK = {"name": "reviews", "template": "{text}:", "labels": ["no", "yes"], "group": "group", "gold": "label"}
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(str.strip)
good_rows = st.lists(
    st.fixed_dictionaries({"text": texts, "group": texts, "label": st.sampled_from(["yes", "no"])}),
    min_size=1,
    max_size=6,
)
plain_rows = st.lists(st.fixed_dictionaries({"text": texts}), min_size=1, max_size=6)
odd_rows = st.lists(
    st.dictionaries(st.sampled_from(["id", "text", "group", "label", "", "other"]), values, max_size=5), max_size=5
)


def json_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def table(rows: list[dict[str, Any]], delimiter: str) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, lineterminator="\r\n")
    writer.writerows([["text", "group", "label"], *([row["text"], row["group"], row["label"]] for row in rows)])
    return stream.getvalue().encode()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    return stream.getvalue()


FORMATS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "x.jsonl": json_lines,
    "x.csv": lambda rows: table(rows, ","),
    "x.tsv": lambda rows: table(rows, "\t"),
    "x.parquet": parquet,
    "x.jsonl.gz": lambda rows: gzip.compress(json_lines(rows)),
}


@contextlib.contextmanager
def data(folder: Path) -> Iterator[Check]:
    """A data file; what was written whole must come back as it was."""
    task = load_task(TASK)

    def check(given: tuple[str, bytes | list[dict[str, Any]]]) -> None:
        name, content = given
        file = folder / name
        rows = content if isinstance(content, list) else None
        file.write_bytes(content if isinstance(content, bytes) else FORMATS[name](content))
        try:
            dataset = load_dataset(str(file), task)
            check_gold(str(file), task)
        except DataError as error:
            must(rows is None, f"whole rows are refused: {error}")
            must(name in str(error), "the message does not name the file")
            raise
        ids = [example.id for example in dataset.examples]
        assert ids, "accepted without an example"
        assert len(set(ids)) == len(ids), "an id stands twice"
        for example in dataset.examples:
            assert set(example.fields) == {"text"}, "a field that nobody asked for"
            assert example.fields["text"].strip(), "an empty text"
            task.render(example).encode()
        if rows is not None:
            assert [example.fields["text"] for example in dataset.examples] == [row["text"] for row in rows]
            assert [example.group_id for example in dataset.examples] == [row["group"] for row in rows]

    yield check


def bomb(*, megabytes: int) -> bytes:
    """Gzip that unpacks to one endless line."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(b" " * 2**20) for _ in range(megabytes)) + packer.flush()


data_inputs = (
    st.tuples(st.sampled_from(sorted(FORMATS)), good_rows)
    | st.sampled_from(sorted(FORMATS)).flatmap(
        lambda name: st.tuples(st.just(name), spoilt(good_rows.map(FORMATS[name])))
    )
    | st.tuples(st.just("x.jsonl"), odd_rows.map(json_lines))
    | st.tuples(st.just("x.jsonl.gz"), spoilt(good_rows.map(json_lines)).map(gzip.compress))
    | st.tuples(
        st.sampled_from(sorted(FORMATS)),
        st.sampled_from(sorted(FORMATS)).flatmap(lambda name: good_rows.map(FORMATS[name])),
    )
    | st.tuples(st.sampled_from(["x.csv", "x.jsonl", "x.tsv"]), st.binary(max_size=60))
    | st.tuples(
        st.sampled_from(["x.csv", "x.jsonl"]),
        st.tuples(good_rows, st.sampled_from(["utf-16", "utf-8-sig", "utf-32"])).map(
            lambda pair: json_lines(pair[0]).decode().encode(pair[1])
        ),
    )
)
always_data = [
    ("x.jsonl", b""),
    ("x.jsonl.gz", bomb(megabytes=300)),
    ("x.csv.gz", bomb(megabytes=100)),
    ("x.csv.gz", gzip.compress(b'text,group,label\n"' + b"x\n" * 2**19)),
    ("x.csv.gz", gzip.compress(b'text,group,label\n"' + (b"x" * 2**20 + b"\n") * 20)),
    ("x.jsonl", b'{"text": "' + b"x" * 2**21 + b'", "group": "g"}'),
    ("x.jsonl", b'{"text": ' + b"[" * 100_000 + b"}"),
    ("x.jsonl", b'{"text": ' + b"9" * 4000 + b', "group": "g"}'),
    ("x.jsonl", b'{"text": ' + b"9" * 10**6 + b', "group": "g"}'),
    ("x.jsonl", b'{"text": "a", "text": "b", "group": "g"}'),
    ("x.jsonl", b'{"text": "\\ud800", "group": "g"}'),
    ("x.jsonl", b'{"\\ud800": "a", "group": "g"}'),
    ("x.jsonl", b'{"text": "a", "group": NaN}'),
    ("x.jsonl", b'{"text": "a", "group": 1e999}'),
    ("x.csv", b"text,group\n" + b"a," * 100_000),
]

SETTINGS = [
    [
        "objective",
        "icm",
        "gibbs",
        "plan",
        "backend",
        "data",
        "task",
        "seed",
        "limit",
        "verbalizers",
        "batch_size",
        "model",
    ],
    ["alpha", "class_prior", "iterations", "kind", "folds", "remote", "vllm", "timeout", "cache_gb", "start_labels"],
]
YAML_WORDS = (
    "a 1 -1 0x10 1e999 .nan .inf 9223372036854775808 2020-01-01 2020-13-45 12:30:45 yes null ~ [] {} [1] !!int !!bool "
    "!!float !!timestamp !!binary ? *a &b fake sentiment tree 0b1 0o9 = << '' \"\\ud800\" !!set !!omap"
)
yaml_scalars = (
    st.sampled_from(YAML_WORDS.split())
    | st.tuples(
        st.sampled_from(["!!int", "!!bool", "!!float", "!!timestamp", "!!binary", "!!set"]),
        st.sampled_from(["x", "''"]),
    ).map(" ".join)
    | st.text(max_size=12)
)
yaml_lines = st.lists(
    st.tuples(st.sampled_from(SETTINGS[0]), st.booleans(), st.sampled_from(SETTINGS[1]), yaml_scalars).map(
        lambda part: f"{part[0]}:\n  {part[2]}: {part[3]}\n" if part[1] else f"{part[0]}: {part[3]}\n"
    ),
    max_size=5,
).map(lambda lines: "".join(lines).encode("utf-8", "replace"))
CONFIG = build_config(
    flags={"data": "x.jsonl", "task": dict(TASK), "model": "fake", "verbalizers": [" a", " b"]}
).to_yaml()
LAUGHS = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + k, 98 + k, b", ".join([b"*%c" % (97 + k)] * 9)) for k in range(9)
)
MERGES = b"a: &a {x: 1}\n" + b"".join(
    b"%c: &%c {<<: [%s]}\n" % (98 + k, 98 + k, b", ".join([b"*%c" % (97 + k)] * 9)) for k in range(9)
)


@contextlib.contextmanager
def config(folder: Path) -> Iterator[Check]:
    """A settings file, which comes back from a run folder as it went in."""
    file = folder / "config.yaml"

    def check(content: bytes) -> None:
        file.write_bytes(content)
        made = read_config(file)
        file.write_text(made.to_yaml(), encoding="utf-8")
        assert read_config(file) == made, "settings do not come back"

    yield check


TASK_FILE = b"""name: reviews
template: "Review: {text}\\nSentiment:"
labels: {negative: " negative", positive: " positive"}
group: product
constraint: [equivalent, at_most_one]
key: [text]
gold: stars
gold_values: {1: negative, 5: positive}
positive: positive
"""


@contextlib.contextmanager
def task(folder: Path) -> Iterator[Check]:
    """A task file; a text in its template is never read as a template."""
    file, rows = folder / "task.yaml", folder / "x.jsonl"

    def check(content: bytes) -> None:
        file.write_bytes(content)
        made = load_task(str(file))
        space = made.label_space
        assert len(set(space.labels)) == len(space.labels) == len(space.verbalizers) >= 2
        row = dict.fromkeys((*made.fields, *made.key_columns), "{0.__class__} {text}")
        row |= {name: "g" for name in (made.group_column, made.id_column) if name} | dict.fromkeys(
            made.fields, "{0!r} %s"
        )
        rows.write_text(json.dumps(row | ({made.negated_column: "no"} if made.negated_column else {})) + "\n")
        dataset = load_dataset(str(rows), made)
        shown = made.render(dataset.examples[0])
        assert shown.count("{0!r} %s") >= len(made.fields), "a field's text was read as a template"
        from elicitor.backends.fake import FakeBackend

        PromptEncoder(FakeBackend().tokenizer, made, dataset).sizes()

    yield check


@contextlib.contextmanager
def overrides(folder: Path) -> Iterator[Check]:
    """A text of ``--set``."""

    def check(text: str) -> None:
        made = build_config(flags={"data": "x.jsonl", "task": "sentiment"}, overrides=[text])
        assert parse_config(json.loads(made.model_dump_json()), source="again") == made
        task_of(made)

    yield check


@contextlib.contextmanager
def command(folder: Path) -> Iterator[Check]:
    """The command itself over broken files: exit code 0 or 2, and one line that begins with ``error:``."""
    file, settings = folder / "x.jsonl", folder / "c.yaml"

    def check(given: tuple[bytes, bytes, str]) -> None:
        file.write_bytes(given[0])
        settings.write_bytes(given[1])
        words = ["label", str(file), "--config", str(settings), "--task", "sentiment", "--model", "fake", "--dry-run"]
        run_command([*words, "--set", given[2]])

    yield check


def run_command(words: Sequence[str]) -> None:
    """Run a command in this process.

    Args:
        words: What follows ``elicitor``.

    Raises:
        ConfigError: If it refuses, as a command does: with exit code 2 and an error that is one line.
    """
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["elicitor", *words]
    code: Any = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as left:
        code = left.code or 0
    finally:
        sys.argv = before
    said = err.getvalue()
    assert code in (0, 2), f"exit code {code}: {said[-500:]}"
    assert "Traceback" not in said
    if code == 2:
        assert "error" in said.lower(), said[-500:]
        raise ConfigError(said.strip().splitlines()[-1])


set_texts = st.tuples(
    st.sampled_from(
        [*SETTINGS[0], "objective.alpha", "plan.kind", "icm.iterations", "backend.remote.timeout", "task.labels", ""]
    ),
    yaml_scalars | st.sampled_from([piece.decode("latin1") for piece in PIECES]),
).map("=".join)
FILE_GROUPS = {
    "data": Group(data_inputs, data, weight=4.0, always=always_data),
    "config": Group(
        spoilt(st.just(CONFIG.encode()) | yaml_lines.map(lambda lines: b"data: x.jsonl\ntask: sentiment\n" + lines)),
        config,
        weight=1.2,
        always=[LAUGHS, MERGES, b"[" * 10_000, b"task: &a {b: *a}"],
    ),
    "task": Group(
        spoilt(st.just(TASK_FILE)), task, weight=2.0, always=[LAUGHS, b"template: '{text}:'\nlabels: &a [*a]"]
    ),
    "set": Group(
        set_texts, overrides, weight=1.5, always=["seed=" + "9" * 5000, "seed=0x" + "f" * 5000, "task=2001-13-45"]
    ),
    "command": Group(
        st.tuples(
            spoilt(plain_rows.map(json_lines)),
            st.just(b"seed: 1") | spoilt(yaml_lines, most=1),
            set_texts | st.just("seed=1"),
        ),
        command,
        weight=0.2,
        always=[(json_lines([{"id": "a", "text": "x"}, {"id": "b", "text": "y"}]), b"seed: 1", "seed=2")],
    ),
}
