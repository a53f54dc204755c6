"""Every command and every Python block of the README and of docs/ runs, or is listed here with the reason why not.

A page is run from its first block to its last in an empty folder with made-up data, so that later commands find the runs
of earlier ones. What stands for something that a test cannot have is replaced by the tables below, and by nothing else.
"""

import shlex
import socket
import subprocess
import sys

import example_data
import pytest
from pages import PAGES, blocks, commands, inline_commands, parse, resolve
from typer.testing import CliRunner

from elicitor.cli import app

REPLACED = {
    "hf:openai/gsm8k:main@test": "questions.jsonl",
    "hf:allenai/reward-bench@filtered": "bench.jsonl",
    "hf:Qwen/Qwen2.5-7B-Instruct": "TINY",
    "hf:Qwen/Qwen2.5-1.5B": "TINY",
    "openai:hf:Qwen/Qwen2.5-7B@http://127.0.0.1:8000/v1": "openai:TINY@http://127.0.0.1:PORT/v1",
    "openai:Qwen/Qwen2.5-7B@http://localhost:8000/v1": "openai:TINY@http://127.0.0.1:PORT/v1",
    "vllm serve Qwen/Qwen2.5-7B --enable-prompt-tokens-details": "elicitor serve-hf --model TINY --port PORT",
    "serve-hf --model hf:Qwen/Qwen2.5-7B --port 8000": "serve-hf --model TINY --port PORT",
    "serve-hf --model bundled --port 8000": "serve-hf --model TINY --port PORT",
    "http://127.0.0.1:8000": "http://127.0.0.1:PORT",
    "hf:Qwen/Qwen2.5-7B": "fake",
    "--model bundled": "--model fake",
    "bench/suite.yaml": "suite.yaml",
    "ablate DATA": "ablate claims.jsonl",
    "truthfulqa --batch-size 256": "truthfulqa --batch-size 12",
    "q17-2=wrong": "c7-1=wrong",
}
"""What a page says, and what runs in its place, in this order. TINY is a model of two layers, PORT a free port."""

ADDED = {
    "ablate": {"--model": "fake", "--seeds": "0,1"},
    "label": {"--model": "fake"},
    "train sft": {"--model": "TINY", "--epochs": "1"},
    "train compare": {"--model": "TINY", "--epochs": "1"},
    "train iterate": {"--model": "TINY", "--epochs": "1", "--label-set": "ensemble.rounds=1"},
    "train reward": {"--model": "TINY", "--epochs": "0"},
    "train rl": {
        "--model": "TINY",
        "--steps": "1",
        "--max-new-tokens": "4",
        "--beta": "0",
        "--group-size": "2",
        "--set": "test_prompts=4",
    },
    "eval winrate": {"--max-new-tokens": "4"},
    "sample-solutions": {"--max-new-tokens": "8"},
}
"""Flags that make a command small, where it does not give them itself."""

GIVEN = {
    "README.md": ["elicitor label pairs.jsonl --task preference --model fake --output-dir runs/pairs"],
    "audit.md": ["elicitor label reviews.jsonl --task sentiment --model fake --output-dir runs/reviews"],
    "report.md": [
        "elicitor label claims.jsonl --task truthfulqa --model fake --output-dir runs/claims",
        "elicitor label claims.jsonl --task truthfulqa --model fake --seed 0 --output-dir runs/seed-0",
        "elicitor label claims.jsonl --task truthfulqa --model fake --seed 1 --output-dir runs/seed-1",
        "elicitor eval --suite suite.yaml --output-dir runs/suite",
        "elicitor eval --suite suite.yaml --output-dir runs/suite-small",
        "elicitor eval --suite suite-large.yaml --output-dir runs/suite-large",
        "elicitor ablate claims.jsonl --task truthfulqa --init golden,wrong --output-dir runs/ablation",
        "elicitor train sft runs/claims --output-dir models/claims",
    ],
    "review.md": ["elicitor label claims.jsonl --task truthfulqa --model fake --output-dir runs/claims"],
    "training.md": [
        "elicitor label reviews.jsonl --task sentiment --model fake --output-dir runs/reviews",
        "elicitor label pairs.jsonl --task preference --model fake --output-dir runs/pairs",
        "elicitor label claims.jsonl --task truthfulqa --model fake --output-dir runs/claims",
    ],
}
"""Commands before the first one of a page, for runs that it takes for granted."""

SLOW = (
    "curl",
    "elicitor audit runs/quickstart",
    "elicitor eval reward",
    "elicitor eval winrate",
    "elicitor label claims.jsonl --task truthfulqa --model openai:",
    "elicitor label more.jsonl --task sentiment --model adapter:",
    "elicitor label solutions.jsonl",
    "elicitor quickstart",
    "elicitor plot runs/suite-small",
    "elicitor report runs/seed-0",
    "elicitor sample-solutions",
    "elicitor serve-hf",
    "elicitor train",
    "vllm serve",
)
"""Beginnings of commands that load a real model, or need what such a command made."""

SLOW_SUITE = "elicitor eval --suite suite-large.yaml"

SERVERS = {"serve-hf": "ready", "watch": "watching"}
"""Commands that run until they are stopped, and what they say when they can be asked."""

ONLY_PARSED = {
    "elicitor label big.jsonl --task truthfulqa --model vllm:Qwen/Qwen2.5-7B --ray auto --ray-gpus 1": "GPUs and a cluster",
    "elicitor label claims.jsonl --task truthfulqa --model hf:Qwen/Qwen2.5-7B --ray auto --ray-gpus 1 -o runs/claims": (
        "GPUs and a cluster; tests/test_distributed.py runs --ray local"
    ),
    "elicitor export runs/claims --format unpaired --output-dir exported/claims --push OWNER/NAME": (
        "an upload to the hub; tests/test_export.py replaces the hub"
    ),
}
"""Commands of elicitor that cannot run, with what they would need; their flags are checked."""

OTHERS = {
    "python3 -m venv .venv": "the test's own environment is one",
    "pip install": "the test's own environment is one",
    "bash .ci/run": "runs these tests",
    "trl dpo": "a command of TRL; tests/test_export.py loads what it would read",
}
"""Beginnings of commands of other programs, with the reason why they do not run."""

PYTHON = {
    "README.md": {'"bundled"': '"fake"', '"runs/claims"': '"runs/python"'},
    "api.md": {'"bundled"': '"fake"'},
    "probes.md": {'"bundled"': '"TINY"'},
    "quickstart.md": {},
    "report.md": {},
    "reward.md": {},
}
"""What is replaced in the Python blocks of a page."""

SLOW_PYTHON = {"probes.md", "quickstart.md", "reward.md"}

SHOWN = {
    page.name: [command for block in blocks(page, "sh", "console") for command in commands(block)] for page in PAGES
}
RUN = [page for page in PAGES if SHOWN[page.name] or blocks(page, "python")]


def is_slow(page, block):
    if block.language == "python":
        return page.name in SLOW_PYTHON
    return any(command.startswith(SLOW) for command in commands(block))


class World:
    """A folder in which the blocks of one page run, one after the other."""

    def __init__(self, page, tiny):
        self.page, self.tiny, self.servers = page, tiny, []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])

    def filled(self, text):
        return text.replace("TINY", self.tiny).replace("PORT", self.port)

    def run(self, block, *, slow):
        if block.language == "python":
            if slow or not is_slow(self.page, block):
                self.python(block)
            return
        for command in commands(block):
            if slow or not command.startswith(SLOW):
                self.command(command)

    def python(self, block):
        text = block.text
        for shown, put in PYTHON[self.page.name].items():
            assert shown in text, f"nothing to replace: {shown}"
            text = text.replace(shown, self.filled(put))
        exec(compile("\n" * (block.line - 1) + text, str(self.page), "exec"), {})

    def command(self, shown):
        if shown in ONLY_PARSED:
            parse(shown)
            return
        line = shown
        for old, new in REPLACED.items():
            line = line.replace(old, new)
        program = shlex.split(line)[0]
        if program == "elicitor":
            name, _, _ = resolve(shlex.split(line)[1:])
            words = shlex.split(self.filled(line))
            for flag, value in ADDED.get(name, {}).items():
                words += [] if flag in words else [flag, self.filled(value)]
            (self.serve if name in SERVERS else self.elicitor)(words, shown)
        elif program == "curl":
            words = ["curl", "--silent", "--show-error", "--fail-with-body", *shlex.split(self.filled(line))[1:]]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{shown}\n{done.stdout}{done.stderr}"
        else:
            assert shown.startswith(tuple(OTHERS)), f"{self.page.name} shows a command that no table knows: {shown}"

    def elicitor(self, words, shown):
        result = CliRunner().invoke(app, words[1:])
        assert result.exit_code == 0, f"{shown}\nran as: {shlex.join(words)}\n{result.output}\n{result.exception!r}"

    def serve(self, words, shown):
        server = subprocess.Popen(
            [sys.executable, "-m", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.servers.append(server)
        said = [server.stdout.readline()]
        while said[-1] and not said[-1].startswith(SERVERS[words[1]]):
            said.append(server.stdout.readline())
        assert said[-1], f"{shown}\n{''.join(said)}"

    def close(self):
        for server in self.servers:
            server.terminate()
            server.communicate(timeout=60)


@pytest.fixture
def ending_model(tiny_model):
    """The tiny model with a token that ends a text, which generation needs."""
    transformers = pytest.importorskip("transformers")
    for loaded in (transformers.AutoTokenizer, transformers.AutoConfig):
        part = loaded.from_pretrained(tiny_model)
        part.update({"eos_token_id": 1}) if loaded is transformers.AutoConfig else setattr(part, "eos_token", "<s>")
        part.save_pretrained(tiny_model)
    return tiny_model


@pytest.fixture
def world(request, monkeypatch, tmp_path):
    """The world of the page that is the test's parameter, as the working folder."""
    page = request.param
    slow = request.node.get_closest_marker("slow") is not None
    tiny = str(request.getfixturevalue("ending_model")) if slow else "TINY"
    (tmp_path / "page").mkdir()
    monkeypatch.chdir(tmp_path / "page")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # What --open would open.
    monkeypatch.setenv("BROWSER", "true")
    monkeypatch.delenv("ELICITOR_SERVER_KEY", raising=False)
    example_data.write(page, tmp_path / "page", model=tiny)
    world = World(page, tiny)
    for command in GIVEN.get(page.name, []):
        if slow or not command.startswith((*SLOW, SLOW_SUITE)):
            world.command(command)
    yield world
    world.close()


def by_name(page):
    return page.name


@pytest.mark.parametrize("world", RUN, indirect=True, ids=by_name)
def test_quick_commands_run(world):
    for block in blocks(world.page, "sh", "console", "python"):
        world.run(block, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "world", [page for page in RUN if any(is_slow(page, block) for block in blocks(page, "sh", "console", "python"))],
    indirect=True, ids=by_name,
)  # fmt: skip
def test_all_commands_run(world):
    for block in blocks(world.page, "sh", "console", "python"):
        world.run(block, slow=True)


def test_no_entry_of_the_tables_is_out_of_date():
    everything = [command for shown in SHOWN.values() for command in shown]
    text = "\n".join(everything)
    assert [old for old in REPLACED if old not in text] == []
    assert [line for line in ONLY_PARSED if line not in everything] == []
    assert [start for start in (*SLOW, *OTHERS) if not any(line.startswith(start) for line in everything)] == []
    names = {resolve(shlex.split(line)[1:])[0] for line in everything if line.startswith("elicitor ")}
    assert set(ADDED) <= names
    assert {page.name for page in PAGES if blocks(page, "python")} == set(PYTHON)
    assert set(PYTHON) >= SLOW_PYTHON
    assert set(GIVEN) | set(example_data.FILES) <= {page.name for page in RUN}


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_commands_in_sentences_name_flags_that_exist(page):
    for line in inline_commands(page):
        _, command, words = resolve(shlex.split(line)[1:])
        known = {flag for parameter in command.params for flag in parameter.opts} | {"--help"}
        given = {word for word in words if word.startswith("-")}
        assert given <= known, line


@pytest.mark.parametrize(
    "line", ["elicitor label x.jsonl --tsak sentiment", "elicitor lable x.jsonl", "elicitor train sft"]
)
def test_a_wrong_command_is_noticed(line):
    with pytest.raises(Exception, match=r"No such (option|command)|Missing"):
        parse(line)
