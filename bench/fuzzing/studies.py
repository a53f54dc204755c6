"""Files and flags of studies: suites of ``eval --suite`` and what ``ablate`` varies."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from elicitor.ablation import SETTINGS as ABLATION
from elicitor.backends.fake import FakeBackend
from elicitor.files import is_plain_name
from elicitor.suite import SETTINGS as SUITE
from elicitor.suite import prepare_suite, read_suite
from elicitor.suite_cost import suite_cost
from fuzzing.files import json_lines, run_command, yaml_scalars
from fuzzing.group import PIECES, Check, Group, edited, spoilt

TASK = {"name": "texts", "template": "{text}:", "labels": ["no", "yes"], "group": "group", "gold": "label"}
ROWS = [
    {"id": f"e{k}", "text": f"text {k}", "group": f"g{k // 2}", "label": "yes" if k % 3 else "no"} for k in range(12)
]
DECLARED = {
    "model": "fake",
    "conditions": ["zero_shot", "found", "golden"],
    "seeds": [0, 1],
    "limit": 6,
    "max_shots": 4,
    "label": {"search": "icm", "icm": {"iterations": 3}, "objective": {"alpha": 30}},
    "tasks": [
        {"task": TASK, "data": "x.jsonl"},
        {"name": "other", "task": "sentiment", "data": "x.jsonl", "test": "test.jsonl", "test_limit": 3},
        {"name": "third", "task": TASK, "data": "x.jsonl", "conditions": "all", "label": {"icm": {"iterations": 2}}},
    ],
}
names = st.sampled_from(["texts", "other", "third", "nothing", "", "../x"])
whole = json.dumps(DECLARED).encode()
suites = (
    st.tuples(edited(DECLARED).map(json.dumps).map(str.encode) | spoilt(st.just(whole)), st.none(), st.none())
    | st.tuples(st.just(whole), st.lists(names, max_size=2), st.none())
    | st.tuples(st.just(whole), st.none(), edited(DECLARED).map(json.dumps).map(str.encode) | spoilt(st.just(whole)))
)


@contextlib.contextmanager
def suite(folder: Path) -> Iterator[Check]:
    """A suite's file, names of its tasks, and what another suite has left in the folder."""
    with contextlib.chdir(folder):
        Path("x.jsonl").write_bytes(json_lines(ROWS))
        Path("test.jsonl").write_bytes(json_lines([{**row, "id": f"t{row['id']}"} for row in ROWS]))

        def check(given: tuple[bytes, list[str] | None, bytes | None]) -> None:
            content, only, before = given
            shutil.rmtree("out", ignore_errors=True)
            Path("suite.yaml").write_bytes(content)
            if before is not None:
                Path("out").mkdir()
                (Path("out") / SUITE).write_bytes(before)
            config = read_suite(Path("suite.yaml"), only=only)
            made = prepare_suite(config, Path("out"), resume=True)
            assert len({part.name for part in made}) == len(made) == len(config.tasks)
            for part in made:
                assert is_plain_name(part.name)
                assert part.folder.parent == Path("out")
                assert [run.seed for run in part.runs] == list(config.seeds)
                for file in (part.folder / "label.jsonl", part.test):
                    assert [json.loads(line) for line in file.read_text().splitlines()]
            assert prepare_suite(config, Path("out"), resume=True) == made
            if len(config.seeds) < 10:
                for cost in suite_cost(config, backend=FakeBackend()):
                    assert 0 < cost.n_label <= len(ROWS)
                    assert 0 <= cost.search_prompts[0] <= cost.search_prompts[1]

        yield check


FACTORS = {
    "init": ["random", "golden", "wrong", "zero_shot"],
    "consistency": ["on", "off"],
    "alpha": ["10", "30.5", "0", "-1", "1e999", "nan", "1e-320"],
    "num-seed-examples": ["2", "8", "0", "-1", "1.5", "9" * 30],
    "calibration": ["none", "batch"],
    "plan": ["tree", "in_order", "folds", "sampled"],
    "verbalizers": ["No/Yes", "a/b/c", "/", "x", "no/no", "a/ab"],
    "balance": ["0.3", "0.5", "0", "1", "2", "nan", "1e-9"],
}
odd = st.sampled_from(
    ["", " ", "..", "x", "0x1", "\u0664", "1_0", "a\x00b", "\ud800", "a" * 300, "1/2", "inf"]
) | st.text(max_size=6)
flags = st.dictionaries(st.sampled_from(sorted(FACTORS)), st.just(None), min_size=1, max_size=2).flatmap(
    lambda chosen: st.fixed_dictionaries(
        {name: st.lists(st.sampled_from(FACTORS[name]) | odd, min_size=1, max_size=2).map(",".join) for name in chosen}
    )
)
valid_flags = st.sampled_from(sorted(FACTORS)).flatmap(
    lambda name: st.fixed_dictionaries({name: st.sampled_from(FACTORS[name][:2])})
)
seeds = st.sampled_from(["0", "0,1"]) | odd | st.sampled_from(["-1", "0,0", "9" * 30, "1,"])
CONFIG = b"search: icm\nicm: {iterations: 2, num_seed_examples: 2}\n"
KEPT = {"base": {"model": "fake", "seed": 0}, "variants": [{"factor": "base", "value": ""}], "seeds": [0]}
kept = edited(KEPT).map(json.dumps).map(str.encode) | st.sampled_from(PIECES)
spoilt_config = spoilt(st.just(CONFIG)) | yaml_scalars.map(lambda text: f"icm: {text}\n".encode("utf-8", "replace"))
ablations = (
    st.tuples(valid_flags | flags, st.just("0"), st.just(CONFIG), st.none())
    | st.tuples(valid_flags, seeds, st.just(CONFIG), st.none())
    | st.tuples(valid_flags, st.just("0"), spoilt_config, st.none())
    | st.tuples(valid_flags, st.just("0"), st.just(CONFIG), kept)
)


@contextlib.contextmanager
def ablate(folder: Path) -> Iterator[Check]:
    """The command itself: flags, settings, and what another ablation has left in the folder."""
    with contextlib.chdir(folder):
        Path("task.yaml").write_text(json.dumps(TASK))
        Path("x.jsonl").write_bytes(json_lines(ROWS))

        def check(given: tuple[dict[str, str], str, bytes, bytes | None]) -> None:
            varied, chosen, settings, before = given
            shutil.rmtree("out", ignore_errors=True)
            Path("c.yaml").write_bytes(settings)
            if before is not None:
                Path("out").mkdir()
                (Path("out") / ABLATION).write_bytes(before)
            words = [
                "ablate",
                "x.jsonl",
                "--task",
                "task.yaml",
                "--model",
                "fake",
                "--limit",
                "6",
                "--config",
                "c.yaml",
            ]
            words += [f"--{name}={text}" for name, text in varied.items()]
            run_command([*words, f"--seeds={chosen}", "--resume", "-o", "out"])
            result: dict[str, Any] = json.loads((Path("out") / "ablation-result.json").read_text())
            assert result["results"][0]["variant"]["factor"] == "base"
            for row in result["results"]:
                assert 0 <= row["label_accuracy"]["value"] <= 1
            inside = {path.resolve().is_relative_to(folder.resolve() / "out") for path in Path("out").rglob("*")}
            assert inside == {True}

        yield check


STUDY_GROUPS = {
    "suite": Group(
        suites,
        suite,
        weight=0.6,
        always=[
            (whole, None, None),
            (whole, None, whole),
            (json.dumps({**DECLARED, "seeds": [0, 0]}).encode(), ["other"], None),
            (json.dumps({**DECLARED, "seeds": [10**30]}).encode(), None, None),
            (json.dumps({**DECLARED, "label": {"seed": 3, "model": 5}}).encode(), None, None),
            (b"tasks: []", None, None),
            (b"tasks: &a [*a]", None, None),
            (b"[]", None, None),
        ],
    ),
    "ablate": Group(ablations, ablate, weight=0.15, always=[({"alpha": "10,50"}, "0", CONFIG, None)]),
}
