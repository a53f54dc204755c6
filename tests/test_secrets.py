"""Keys are planted wherever users keep them, and looked for in every file that is written and all that is printed."""

import json
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("httpx")
sys.path.insert(0, str(Path(__file__).parent / "backends"))

from world_server import World, serve

from elicitor.backends import pacing

KEYS = {
    "OPENAI_API_KEY": 'sk-open"ai\\4f7a1c',
    "HF_TOKEN": "hf_PlantedTokenOfHub9d2e",
    "WANDB_API_KEY": "wandbPlantedKey77ab01",
    "ELICITOR_SERVER_KEY": "serverPlantedKey5c",
    "MY_OWN_KEY": "own-planted-key-31337",
}
IN_URL = "inUrlPlantedSecret8e"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with data, and the keys in the environment."""
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)
    monkeypatch.setattr(pacing, "FIRST_PAUSE", 0.005)
    monkeypatch.setattr(pacing, "LONGEST_PAUSE", 0.05)
    for name, numbers in (("x", range(8)), ("test", range(20, 26))):
        rows = [{"id": f"e{i}", "text": f"text {i}", "label": i % 2} for i in numbers]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "task.yaml").write_text('template: "{text}:"\nlabels: {no: N, yes: Y}\n')
    return tmp_path


@pytest.fixture
def server():
    running = []

    def start(**options):
        made = serve(World(labels=(b"N", b"Y"), **options))
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((made, thread))
        return made

    yield start
    for made, thread in running:
        made.shutdown()
        made.server_close()
        thread.join()


def forms(secret):
    return {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1]}


def assert_hidden(folder, *printed):
    hidden = set().union(*map(forms, [*KEYS.values(), IN_URL]))
    for text in printed:
        assert not [secret for secret in hidden if secret in text]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        content = path.read_bytes()
        assert not [secret for secret in hidden if secret.encode() in content], path


@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", pytest.param("MY_OWN_KEY", marks=pytest.mark.slow)])
def test_a_run_with_a_key_leaves_it_nowhere(elicitor, place, server, variable):
    made = server()
    model = f"openai:world@http://127.0.0.1:{made.server_port}/v1"
    options = ["--task", "task.yaml", "--model", model, "--set", f"backend.remote.api_key_env={variable}"]
    printed = []
    for command in (
        ("label", "x.jsonl", *options, "--dry-run"),
        ("label", "x.jsonl", *options, "-o", "run", "--set", "backend.score_cache=false"),
        ("eval", "run", "--test", "test.jsonl", "--seeds", "0"),
        ("audit", "run", "--json"),
        ("report", "run"),
        ("env", "--json"),
    ):
        code, out, err = elicitor(*command)
        assert code == 0, err
        printed += [out, err]
    sent = [headers["Authorization"] for path, _, headers in made.world.requests if path == "/v1/completions"]
    assert set(sent) == {f"Bearer {KEYS[variable]}"}
    assert_hidden(place, *printed)


@pytest.mark.parametrize(
    "trouble",
    [
        {"echoes_key": True},
        {"fault": lambda number, path: {"status": 401}, "echoes_key": True},
        {"fault": lambda number, path: {"status": 500}, "echoes_key": True},
        {"fault": lambda number, path: {"body": "<html>no JSON", "type": f"text/{KEYS['OPENAI_API_KEY']}"}},
    ],
)
def test_a_server_that_repeats_the_key_in_its_errors_is_not_repeated(elicitor, place, server, trouble):
    made = server(**trouble)
    model = f"openai:world@http://127.0.0.1:{made.server_port}/v1"
    code, out, err = elicitor(
        *("label", "x.jsonl", "--task", "task.yaml", "--model", model, "-o", "run"),
        *("--set", "backend.remote.retry_seconds=0.01"),
    )
    assert code == 2
    assert err
    assert_hidden(place, out, err)


@pytest.mark.parametrize(
    "url",
    [
        f"https://user:{IN_URL}@127.0.0.1:9/v1",
        f"https://{IN_URL}@127.0.0.1:9/v1",
        f"https://127.0.0.1:9/v1?key={IN_URL}",
        f"https://127.0.0.1:9/v1#{IN_URL}",
    ],
)
@pytest.mark.parametrize("more", [(), ("--dry-run",), ("--json",)])
def test_an_address_with_a_secret_is_refused_without_showing_it(elicitor, place, url, more):
    command = ("label", "x.jsonl", "--task", "task.yaml", "--model", f"openai:world@{url}", "-o", "run", *more)
    code, out, err = elicitor(*command)
    assert code == 2
    assert "the server's address carries a user, a password or a query" in err
    assert_hidden(place, out, err)
    assert not (place / "run").exists()


@pytest.mark.slow
def test_a_training_leaves_them_nowhere(elicitor, place, tiny_model):
    pytest.importorskip("trl")
    printed = []
    for command in (
        ("label", "x.jsonl", "--task", "task.yaml", "--model", tiny_model, "-o", "run"),
        ("train", "sft", "run", "-o", "model", "--set", "epochs=1"),
        ("report", "run", "model", "-o", "page.html"),
        ("export", "run", "--format", "dataset", "-o", "exported"),
    ):
        code, out, err = elicitor(*command)
        assert code == 0, err
        printed += [out, err]
    assert_hidden(place, *printed)
