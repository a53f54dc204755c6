"""What somebody who means harm can put into a file, and what comes of it: nothing."""

import contextlib
import json

import pytest

from elicitor import load_backend
from elicitor.config import build_config
from elicitor.errors import BackendError, ConfigError, TaskError
from elicitor.files import is_plain_name
from elicitor.labelling import run
from elicitor.suite import read_suite, run_suite
from elicitor.tasks import load_task

TASK = {"template": "{text}:", "labels": ["no", "yes"]}
PYTHON = "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{mark}']]"
OUTSIDE = ["../../out", "/tmp/elicitor-outside", "..", "a/../../b", "a\\..\\b", "nul\0byte", "x" * 300, ".hidden"]


@pytest.fixture
def data(tmp_path):
    rows = [{"id": f"e{i}", "text": f"text {i}"} for i in range(6)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "x.jsonl"


def settings(data, **flags):
    return build_config(flags={"data": str(data), "task": TASK, "model": "fake", "icm.iterations": 4, **flags})


# Code that comes with a model


@pytest.fixture
def model_with_code(tiny_model, tmp_path):
    """A model folder whose configuration names code beside it; the code leaves a mark."""
    pytest.importorskip("transformers")
    mark = tmp_path / "ran"
    code = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n"
    (tiny_model / "modeling_evil.py").write_text(
        f"{code}from transformers import LlamaConfig, LlamaForCausalLM\n\n\nclass EvilConfig(LlamaConfig):\n"
        "    model_type = 'evil'\n\n\nclass Evil(LlamaForCausalLM):\n    config_class = EvilConfig\n"
    )
    (tiny_model / "tokenization_evil.py").write_text(
        f"{code}from transformers import PreTrainedTokenizerFast\n\n\nclass EvilTokenizer(PreTrainedTokenizerFast):\n    pass\n"
    )
    config = json.loads((tiny_model / "config.json").read_text())
    config |= {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "modeling_evil.EvilConfig", "AutoModelForCausalLM": "modeling_evil.Evil"},
    }
    (tiny_model / "config.json").write_text(json.dumps(config))
    return tiny_model, mark


def test_code_in_a_model_folder_does_not_run_unless_told(model_with_code, data, tmp_path, monkeypatch):
    folder, mark = model_with_code
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    with pytest.raises(BackendError, match=r"could not be loaded: .*trust_remote_code"):
        run(settings(data, model=str(folder)), tmp_path / "run")
    assert not mark.exists()


def test_code_of_a_tokenizer_alone_does_not_run(tiny_model, model_with_code, data, tmp_path):
    folder, mark = model_with_code
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "llama"
    del config["auto_map"]
    (folder / "config.json").write_text(json.dumps(config))
    tokens = json.loads((folder / "tokenizer_config.json").read_text())
    tokens |= {
        "tokenizer_class": "EvilTokenizer",
        "auto_map": {"AutoTokenizer": [None, "tokenization_evil.EvilTokenizer"]},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
    with contextlib.suppress(BackendError):
        load_backend(str(folder))
    assert not mark.exists()


def test_a_run_folder_cannot_ask_for_code(elicitor, data, tmp_path, monkeypatch):
    """Whoever gives away a run folder writes its config.yaml."""
    run(settings(data), tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("trust_remote_code: false", "trust_remote_code: true"))
    (tmp_path / "test.jsonl").write_text('{"id": "t", "text": "a", "label": "yes"}\n')
    wanted = "asks to run Python code that comes with fake; if you trust it, set the environment variable"
    for command in (
        ("eval", "run", "--test", "test.jsonl"),
        ("audit", "run"),
        ("label", "--resume", "-o", "run"),
        ("label", "--config", "run/config.yaml", "-o", "other"),
    ):
        code, _, err = elicitor(*command)
        assert code == 2
        assert wanted in err
    monkeypatch.setenv("ELICITOR_TRUST_REMOTE_CODE", "1")
    assert elicitor("audit", "run")[0] == 0


# YAML


@pytest.mark.parametrize("tag", [PYTHON, "!!python/name:os.system", "!!python/module:os", "!evil {{a: 1}}"])
@pytest.mark.parametrize("file", ["task", "config", "suite", "run", "training", "set"])
def test_yaml_makes_no_objects(elicitor, data, tmp_path, tag, file):
    mark = tmp_path / "ran"
    tag = tag.format(mark=mark)
    if file == "task":
        (tmp_path / "task.yaml").write_text(f"template: {tag}\nlabels: [no, yes]\n")
        command = ("label", data, "--task", "task.yaml", "--model", "fake", "-o", "run")
    elif file == "config":
        (tmp_path / "c.yaml").write_text(f"data: {data}\ntask: sentiment\nmodel: {tag}\n")
        command = ("label", "--config", "c.yaml", "-o", "run")
    elif file == "suite":
        (tmp_path / "s.yaml").write_text(f"model: {tag}\ntasks: []\n")
        command = ("eval", "--suite", "s.yaml", "-o", "out")
    elif file == "run":
        run(settings(data), tmp_path / "run")
        config = tmp_path / "run" / "config.yaml"
        config.write_text(config.read_text().replace("model: fake", f"model: {tag}"))
        command = ("label", "--resume", "-o", "run")
    elif file == "training":
        run(settings(data), tmp_path / "run")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "training.yaml").write_text(f"kind: {tag}\n")
        command = ("report", "out")
    else:
        command = ("label", data, "--task", "sentiment", "--model", "fake", "-o", "run", "--set", f"seed={tag}")
    code, _, err = elicitor(*command)
    # A task's file is read as text, so a tag there is no more than a strange template.
    assert code == 2 or file == "task"
    assert "Traceback" not in err
    assert not mark.exists()


# Paths


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_in_data_decide_no_files_place(elicitor, tmp_path, name):
    """Ids, groups and labels are written into files, never into their names."""
    inside = tmp_path / "work" / "deep" / "er"
    inside.mkdir(parents=True)
    rows = [{"id": f"{name}{i}", "g": name, "text": f"text {i}", "label": i % 2} for i in range(8)]
    (inside / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    declared = {**TASK, "name": name, "group": "g", "labels": {name: " no", "yes": " yes"}}
    before = set(tmp_path.rglob("*"))
    done = run(settings(inside / "x.jsonl", task=declared), inside / "run")
    assert len(done.labels) == 8
    new = set(tmp_path.rglob("*")) - before
    assert new
    assert all(inside / "run" == path or inside / "run" in path.parents for path in new)


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_suites_task_names_are_folders_in_it_or_nothing(data, tmp_path, name):
    values = {"model": "fake", "tasks": [{"name": name, "task": TASK, "data": str(data), "test": str(data)}]}
    (tmp_path / "suite.yaml").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match="cannot be the name of a folder; give the task another 'name'"):
        run_suite(read_suite(tmp_path / "suite.yaml"), tmp_path / "a" / "b" / "out")
    assert not (tmp_path / "a").exists()


def test_plain_names():
    assert all(map(is_plain_name, ["truthfulqa", "my task", "v1.2", "größe"]))
    assert not any(map(is_plain_name, ["", *OUTSIDE]))


def test_a_new_runs_folder_lies_in_runs(monkeypatch):
    from pathlib import Path

    from elicitor.cli_options import new_folder

    for name in OUTSIDE[:4]:
        config = build_config(flags={"data": "x", "task": {**TASK, "name": name}, "model": "fake"})
        folder = new_folder(config)
        assert folder.parent == Path("runs")
        assert ".." not in folder.parts


# Templates


@pytest.mark.parametrize(
    "field", ["text.__class__", "text[0]", "text!r", "text:>99999999", "", "text.__init__.__globals__"]
)
def test_a_template_names_columns_and_nothing_in_them(field):
    with pytest.raises(TaskError, match="more than a plain name"):
        load_task({"template": "{" + field + "}:", "labels": ["no", "yes"]}).fields  # noqa: B018


@pytest.mark.parametrize(
    "text", ["{other}", "{text}", "{", "}}", "%s", "{{x}}", "${HOME}", "{0.__class__}", "{{ 7*7 }}"]
)
def test_braces_in_data_are_data(text):
    from elicitor.data import Example

    task = load_task({"template": "{text} and {other}:", "labels": ["no", "yes"]})
    example = Example("a", {"text": text, "other": "rest"}, "a", None, "here")
    assert task.render(example) == f"{text} and rest:"


@pytest.mark.slow
def test_a_label_cannot_be_an_instruction_to_the_page_or_the_shell(elicitor, data, tmp_path):
    """The page's own escaping has its tests; here a run of such labels must end like any other."""
    evil = "</script><script>alert(1)</script>$(touch x)`touch y`"
    declared = {**TASK, "labels": {evil: " no", "yes": " yes"}}
    run(settings(data, task=declared), tmp_path / "run")
    pytest.importorskip("jinja2")
    assert elicitor("report", "run")[0] == 0
    assert "<script>alert(1)" not in (tmp_path / "run" / "report.html").read_text()
