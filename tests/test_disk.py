"""A full or read-only disk: one line with the way out, and nothing lost."""

import errno
import os
import subprocess
import sys

import pytest

from elicitor.config import build_config
from elicitor.errors import DiskError
from elicitor.files import disk_error, replacing, stray_entry, write_atomic, writing
from elicitor.labelling import run


@pytest.mark.parametrize(
    ("code", "way_out"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EROFS, "make the folder writable"),
        (errno.EACCES, "check the permissions"),
    ],
)
def test_errors_of_the_disk_name_the_file_and_the_way_out(tmp_path, code, way_out):
    with pytest.raises(DiskError, match=way_out) as caught, writing(tmp_path / "x"):
        raise OSError(code, os.strerror(code))
    assert str(tmp_path / "x") in str(caught.value)


def test_errors_of_libraries_that_write_themselves_are_understood():
    assert disk_error(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert disk_error(RuntimeError("PytorchStreamWriter failed writing file data/0"))
    assert disk_error(RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"))
    assert disk_error(RuntimeError("basic_ios::clear: iostream error"))
    assert disk_error(RuntimeError("something else")) is None
    assert disk_error(FileNotFoundError(errno.ENOENT, "no such file")) is None


def test_a_write_that_fails_leaves_the_old_content_and_no_other_file(tmp_path):
    write_atomic(tmp_path / "x", "old")

    def parts():
        yield "new"
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskError, match="free some space"):
        write_atomic(tmp_path / "x", parts())

    def interrupted():
        with replacing(tmp_path / "x") as place:
            place.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [file.name for file in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "old"


def test_what_a_kill_left_before_the_beginning_is_no_content(tmp_path):
    (tmp_path / ".suite.json.7.tmp").write_text("")
    assert stray_entry(tmp_path) is None
    (tmp_path / "mine").write_text("")
    assert stray_entry(tmp_path) == "mine"
    assert stray_entry(tmp_path, known=("mine",)) is None
    assert stray_entry(tmp_path / "nowhere") is None


def test_a_run_on_a_full_disk_raises_once_lets_go_of_its_lock_and_is_resumed(tmp_path, monkeypatch):
    (tmp_path / "x.jsonl").write_text("".join(f'{{"id": "e{i}", "text": "text {i}"}}\n' for i in range(8)))
    config = build_config(flags={"data": str(tmp_path / "x.jsonl"), "task": "sentiment", "model": "fake:noise=1.5"})
    run(config, tmp_path / "whole")
    synced, real = [], os.fsync

    def full(descriptor):
        synced.append(descriptor)
        if len(synced) > 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        patched.setattr("elicitor.runs._SAVE_SECONDS", 0)
        with pytest.raises(DiskError, match=r"cannot be written: No space left.*free some space.*--resume"):
            run(config, tmp_path / "run")
    run(config, tmp_path / "run", resume=True)
    assert (tmp_path / "run/labels.jsonl").read_bytes() == (tmp_path / "whole/labels.jsonl").read_bytes()


def test_the_command_says_it_in_one_line_whoever_raised_it(elicitor, monkeypatch, tmp_path):
    from elicitor import console

    def full(**_):
        raise OSError(errno.ENOSPC, "No space left on device", "/somewhere/file")

    monkeypatch.setattr(console, "show_environment", full)
    code, out, err = elicitor("env")
    assert (code, out) == (2, "")
    assert err.startswith("error: /somewhere/file cannot be written: No space left on device; free some space")
    assert err.count("\n") == 1


def test_two_reports_of_one_run_at_once_end_with_a_whole_page(elicitor, tmp_path):
    pytest.importorskip("jinja2")
    (tmp_path / "x.jsonl").write_text("".join(f'{{"id": "e{i}", "text": "text {i}"}}\n' for i in range(8)))
    assert elicitor("label", "x.jsonl", "--task", "sentiment", "--model", "fake", "--output-dir", "run")[0] == 0
    words = [sys.executable, "-m", "elicitor", "report", "run"]
    both = [
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) for _ in "12"
    ]
    ends = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    page = (tmp_path / "run/report.html").read_text()
    assert page.rstrip().endswith("</html>")
    assert not list((tmp_path / "run").glob(".*.tmp"))


@pytest.mark.slow
def test_two_processes_convert_one_file_at_once_and_both_read_a_whole_model(tmp_path):
    for name in ("torch", "transformers", "gguf", "tokenizers"):
        pytest.importorskip(name)
    from tiny_models import write_tiny_gguf

    write_tiny_gguf(tmp_path / "tiny.gguf")
    code = (
        "from elicitor.models import load_backend\nfrom elicitor.backends.base import Prompt\n"
        "b = load_backend('gguf:tiny.gguf', dtype='float32')\n"
        "t = b.tokenizer\nprint(b.score([Prompt((t.encode('ab'),), (t.encode('a'), t.encode('b')))]).log_probs.tolist())"
    )
    environment = {**os.environ, "ELICITOR_CACHE": str(tmp_path / "cache")}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=environment,
        )
        for _ in "12"
    ]
    ends = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert ends[0][0] == ends[1][0] != ""
    assert sum("converting" in err for _, err in ends) == 1
    assert len([path for path in (tmp_path / "cache/gguf").iterdir() if path.is_dir()]) == 1
