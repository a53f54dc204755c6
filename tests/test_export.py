import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

import elicitor
from elicitor.audit import Audit
from elicitor.audit_checks import Check
from elicitor.backends.base import Cost
from elicitor.errors import BackendError, ConfigError
from elicitor.export import export, push
from elicitor.files import read_rows, write_json, write_rows
from elicitor.labelling import load_run


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def claims(tmp_path):
    """A run on claims with gold, of which nothing may reach an export."""
    rows = [
        {"id": f"c{i}", "question": f"what {i // 2}", "choice": f"answer {i}", "label": i % 2, "secret": "gold!"}
        for i in range(8)
    ]
    file = write(tmp_path / "claims.jsonl", rows)
    return elicitor.label(file, task="truthfulqa", model="fake", output_dir=tmp_path / "claims")


@pytest.fixture
def pairs(tmp_path):
    """A run on pairs, with labels that are set by hand: p0 prefers its second response, p1 contradicts itself."""
    rows = [{"id": f"p{i}", "question": f"q{i}", "choice": f"a{i}", "choice_2": f"b{i}"} for i in range(4)]
    file = write(tmp_path / "pairs.jsonl", rows)
    run = elicitor.label(file, task="preference", model="fake", output_dir=tmp_path / "pairs")
    wanted = {"p0/ab": "False", "p0/ba": "True", "p1/ab": "True", "p1/ba": "True"}
    wanted |= {f"p{i}/ab": "True" for i in (2, 3)} | {f"p{i}/ba": "False" for i in (2, 3)}
    found = read_rows(run.path / "labels.jsonl")
    write_rows(run.path / "labels.jsonl", [{**row, "label": wanted[row["id"]]} for row in found])
    return load_run(run.path)


def test_sft_rows_are_prompt_and_verbalizer(claims, tmp_path):
    done = export(claims, tmp_path / "out", format="sft")
    rows = read_rows(done.folder / "train.jsonl")
    assert rows[0] == {
        "prompt": "Question: what 0\nClaim: answer 0\nI think this claim is",
        "completion": f" {claims.labels[0].label}",
    }
    assert len(rows) == done.rows == 8


def test_preferences_hold_each_pair_once_with_the_response_that_both_orders_prefer(pairs, tmp_path):
    done = export(pairs, tmp_path / "out", format="preference")
    assert read_rows(done.folder / "train.jsonl") == [
        {"prompt": "Human: q0\n\nAssistant:", "chosen": " b0", "rejected": " a0"},
        {"prompt": "Human: q2\n\nAssistant:", "chosen": " a2", "rejected": " b2"},
        {"prompt": "Human: q3\n\nAssistant:", "chosen": " a3", "rejected": " b3"},
    ]
    assert done.left_out == {"contradictory": 1}


def test_no_pair_left_is_said_in_a_line_whatever_the_format(pairs, tmp_path):
    write_rows(pairs.path / "abstained.jsonl", [{"id": f"p{i}/ab", "reasons": []} for i in range(4)])
    for format in ("preference", "unpaired"):
        with pytest.raises(ConfigError, match=f"no row of format '{format}' is left"):
            export(pairs, tmp_path / "out", format=format)


def test_a_field_with_the_name_of_an_added_column_is_not_written_over(tmp_path):
    file = write(tmp_path / "x.jsonl", [{"text": f"text {i}", "confidence": "high"} for i in range(4)])
    task = {"template": "{text} ({confidence}):", "labels": ["no", "yes"]}
    run = elicitor.label(file, task=task, model="fake", output_dir=tmp_path / "run")
    with pytest.raises(ConfigError, match="field 'confidence' of the task has the name of a column"):
        export(run, tmp_path / "out", format="dataset")
    assert export(run, tmp_path / "out", format="sft").rows == 4


def test_a_pair_with_an_indeterminate_order_is_left_out(pairs, tmp_path):
    write_rows(pairs.path / "abstained.jsonl", [{"id": "p2/ba", "reasons": ["margin"]}])
    done = export(pairs, tmp_path / "out", format="preference", conversational=True)
    (first, _) = read_rows(done.folder / "train.jsonl")
    assert first == {
        "prompt": [{"role": "user", "content": "q0"}],
        "chosen": [{"role": "assistant", "content": "b0"}],
        "rejected": [{"role": "assistant", "content": "a0"}],
    }
    assert done.left_out == {"indeterminate": 1, "contradictory": 1}


def test_unpaired_rows_of_claims_and_of_pairs(claims, pairs, tmp_path):
    done = export(claims, tmp_path / "claims-out", format="unpaired")
    rows = read_rows(done.folder / "train.jsonl")
    assert rows[3]["prompt"] == "Human: what 1\n\nAssistant:"
    assert rows[3]["completion"] == " answer 3"
    assert [row["label"] for row in rows] == [item.label == "True" for item in claims.labels]
    done = export(pairs, tmp_path / "pairs-out", format="unpaired")
    rows = read_rows(done.folder / "train.jsonl")
    assert [(row["completion"], row["label"]) for row in rows[:2]] == [(" b0", True), (" a0", False)]


def test_pairs_are_never_made_up_across_prompts(claims, tmp_path):
    with pytest.raises(ConfigError, match="does not compare two responses"):
        export(claims, tmp_path / "out", format="preference")
    assert not (tmp_path / "out").exists()


def test_nothing_of_gold_reaches_an_export_and_the_card_says_what_a_stranger_must_know(claims, tmp_path):
    seen = Check("margins", "look", "3 are close", "look at them", {})
    write_json(claims.path / "audit.json", Audit("look", 12, [seen], {}, Cost()).to_json())
    done = export(claims, tmp_path / "out", format="dataset")
    text = "".join(file.read_text() for file in done.folder.iterdir())
    assert "gold!" not in text
    for row in read_rows(done.folder / "train.jsonl"):
        assert set(row) == {
            "question",
            "choice",
            "example_id",
            "group_id",
            "found_label",
            "found_label_index",
            "confidence",
            "log_odds",
        }
    card = (done.folder / "README.md").read_text()
    manifest = json.loads((claims.path / "manifest.json").read_text())
    cost = claims.metrics["cost"]["tokens_computed"]
    for fact in (
        "model-made",
        "Gold labels were not used",
        manifest["identity"]["model"],
        "I think this claim is",
        "equivalent",
        "Verdict: **look**",
        "margins: look; 3 are close",
        f"{cost:,} tokens",
    ):
        assert fact in card


def test_a_folder_in_use_is_kept(claims, tmp_path):
    export(claims, tmp_path / "out", format="sft")
    with pytest.raises(ConfigError, match="in use"):
        export(claims, tmp_path / "out", format="dataset")
    export(claims, tmp_path / "out", format="dataset", force=True)


@pytest.mark.parametrize("format", ["sft", "unpaired", "dataset"])
def test_exports_load_with_datasets(claims, tmp_path, monkeypatch, format):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = export(claims, tmp_path / "out", format=format)
    cache = str(tmp_path / "cache")
    loaded = datasets.load_dataset("json", data_files=str(done.folder / "train.jsonl"), split="train", cache_dir=cache)
    assert loaded.num_rows == 8
    assert datasets.load_dataset(str(done.folder), split="train", cache_dir=cache).column_names == loaded.column_names


@pytest.fixture
def hub():
    """A server that answers as the hub does when a data set is made and files are committed."""
    calls = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            self.answer({})

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            calls.append((self.path, self.headers.get("Authorization"), body))
            url = f"http://{self.headers['Host']}/datasets/me/labels"
            if self.path.endswith("/preupload/main"):
                files = json.loads(body)["files"]
                self.answer(
                    {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
                )
            elif "/commit/" in self.path:
                self.answer({"commitUrl": f"{url}/commit/abc", "commitOid": "abc", "pullRequestUrl": None})
            else:
                self.answer({"url": url, "name": "me/labels"})

        def answer(self, values):
            content = json.dumps(values).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", calls
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_hub_that_cannot_be_reached_is_told_in_a_line(claims, tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    done = export(claims, tmp_path / "out", format="sft")
    with pytest.raises(BackendError, match=r"me/labels could not be pushed.*--force"):
        push(done, "me/labels", endpoint="http://127.0.0.1:9")


@pytest.mark.parametrize("format", ["sft", "dataset"])
def test_messages_are_not_promised_of_formats_without_them(claims, tmp_path, format):
    with pytest.raises(ConfigError, match=f"format '{format}' has no messages"):
        export(claims, tmp_path / "out", format=format, conversational=True)
    assert not (tmp_path / "out").exists()


def test_pushing_makes_a_private_data_set_with_rows_and_card(claims, tmp_path, hub, monkeypatch):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    endpoint, calls = hub
    done = export(claims, tmp_path / "out", format="sft")
    push(done, "me/labels", endpoint=endpoint)
    made = json.loads(calls[0][2])
    assert (made["name"], made["organization"], made["type"]) == ("labels", "me", "dataset")
    assert made.get("private") is True or made["visibility"] == "private"
    committed = [json.loads(line) for line in calls[-1][2].splitlines()]
    assert {line["value"]["path"] for line in committed if line["key"] == "file"} == {"train.jsonl", "README.md"}
    assert calls[-1][1] == "Bearer hf_secret"
    assert not any("hf_secret" in file.read_text() for file in done.folder.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trainer", "format"), [("sft", "sft"), ("dpo", "preference"), ("reward", "preference"), ("kto", "unpaired")]
)
def test_trl_trains_on_exports_with_its_own_commands(trainer, format, claims, pairs, tiny_model, tmp_path):
    pytest.importorskip("trl")
    tokenizer = tiny_model / "tokenizer_config.json"
    tokenizer.write_text(json.dumps({**json.loads(tokenizer.read_text()), "eos_token": "<s>", "pad_token": "<unk>"}))
    done = export(claims if format == "sft" else pairs, tmp_path / "out", format=format)
    options = {
        "model_name_or_path": tiny_model,
        "dataset_name": done.folder,
        "output_dir": tmp_path / "trained",
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "save_strategy": "no",
    }
    command = [str(Path(sys.executable).parent / "trl"), trainer]
    done = subprocess.run(
        command + [part for name, value in options.items() for part in (f"--{name}", str(value))],
        capture_output=True,
        text=True,
        check=False,
        env={"HF_HUB_OFFLINE": "1", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "train_loss" in done.stdout + done.stderr
