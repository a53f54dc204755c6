"""Several processes at the same work: one conversion, one run's report, one cache of scores."""

import json
import os
import subprocess
import sys

import pytest
from tiny_models import write_tiny_gguf

CONVERT = (
    "import sys, pathlib; sys.stdin.readline(); from elicitor.backends.gguf import converted;"
    "print(converted(pathlib.Path(sys.argv[1]), dtype='float32')[0])"
)


def together(commands, **options):
    """Outcomes of commands that begin at the same moment: each waits for a line before it does its work."""
    processes = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        )
        for command in commands
    ]
    try:
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        return [(*process.communicate(timeout=300), process.returncode) for process in processes]
    finally:
        for process in processes:
            process.kill()


def test_processes_that_convert_one_file_share_what_the_first_makes(tmp_path):
    for module in ("torch", "transformers", "gguf", "filelock"):
        pytest.importorskip(module)
    write_tiny_gguf(tmp_path / "tiny.gguf")
    env = {**os.environ, "ELICITOR_CACHE": str(tmp_path / "cache")}
    ends = together([[sys.executable, "-c", CONVERT, str(tmp_path / "tiny.gguf")]] * 3, env=env)
    assert [code for *_, code in ends] == [0, 0, 0], ends
    (folder,) = {out.strip() for out, *_ in ends}
    assert [path.name for path in (tmp_path / "cache" / "gguf").iterdir() if path.is_dir()] == [
        folder.rpartition("/")[2]
    ]
    alone = subprocess.run(
        [sys.executable, "-c", CONVERT, str(tmp_path / "tiny.gguf")],
        input="\n",
        env={**env, "ELICITOR_CACHE": str(tmp_path / "other")},
        capture_output=True,
        text=True,
        check=True,
    )
    contents = [
        {file.name: file.read_bytes() for file in (tmp_path / cache / "gguf").glob("*/*")}
        for cache in ("cache", "other")
    ]
    assert contents[0] == contents[1]
    assert "model.safetensors" in contents[0]
    assert alone.stdout.strip() != folder


def test_one_run_reported_and_one_cache_filled_by_several_at_once(elicitor, tmp_path):
    rows = [{"id": f"e{i}", "text": f"text {i}"} for i in range(12)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    label = ("label", "x.jsonl", "--task", "sentiment", "--model", "fake:noise=1")
    assert elicitor(*label, "-o", "alone")[0] == 0
    cached = (*label, "--set", "backend.score_cache=true")
    start = [sys.executable, "-c", "import sys; sys.stdin.readline(); from elicitor.cli import main; main()"]
    env = {**os.environ, "ELICITOR_CACHE": str(tmp_path / "cache")}
    ends = together([[*start, *cached, "-o", f"run-{k}"] for k in range(3)], cwd=tmp_path, env=env)
    assert [code for *_, code in ends] == [0, 0, 0], ends
    whole = (tmp_path / "alone" / "labels.jsonl").read_bytes()
    assert [(tmp_path / f"run-{k}" / "labels.jsonl").read_bytes() for k in range(3)] == [whole] * 3
    pytest.importorskip("jinja2")
    ends = together([[*start, "report", "alone"]] * 3, cwd=tmp_path)
    assert [code for *_, code in ends] == [0, 0, 0], ends
    assert (tmp_path / "alone" / "report.html").read_text().rstrip().endswith("</html>")
    assert not list((tmp_path / "alone").glob("*.tmp"))
