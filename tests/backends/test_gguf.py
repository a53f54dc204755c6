import hashlib
import struct
import subprocess
import sys
import threading
import time

import pytest

from elicitor.backends import gguf
from elicitor.errors import BackendError
from elicitor.models import bundled_file


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ELICITOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


HEADER = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q4sIQ4s", 4, b"name", 8, 4, b"none")
"""A whole header, of no model."""


def model_file(folder, content=HEADER):
    path = folder / "model.gguf"
    path.write_bytes(content)
    return path


def test_the_cache_folder_can_be_moved(monkeypatch, tmp_path):
    monkeypatch.delenv("ELICITOR_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert gguf.cache_folder() == tmp_path / "elicitor"
    monkeypatch.setenv("ELICITOR_CACHE", str(tmp_path / "own"))
    assert gguf.cache_folder() == tmp_path / "own"


def test_files_that_are_not_gguf_are_refused_before_any_work(cache, tmp_path):
    with pytest.raises(BackendError, match="cannot be read: No such file"):
        gguf.converted(tmp_path / "none.gguf", dtype="float32")
    with pytest.raises(BackendError, match="is not a GGUF file"):
        gguf.converted(model_file(tmp_path, b"safetensors"), dtype="float32")
    assert not cache.exists()


def test_a_damaged_file_leaves_nothing_in_the_cache(cache, tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(BackendError, match=r"could not be converted.*check that the file is whole"):
        gguf.converted(model_file(tmp_path), dtype="float32")
    assert not [path for path in (cache / "gguf").iterdir() if path.is_dir()]


def test_weights_that_the_file_lacks_are_not_drawn_at_random(cache, tmp_path):
    pytest.importorskip("transformers")
    from tiny_models import write_tiny_gguf

    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path)
    path.write_bytes(path.read_bytes().replace(b"blk.0.attn_q.weight", b"blk.0.attn_x.weight"))
    with pytest.raises(BackendError, match=r"tiny\.gguf' lack 1 of its weights, such as .*q_proj"):
        gguf.converted(path, dtype="float32")
    assert not [entry for entry in (cache / "gguf").iterdir() if entry.is_dir()]


def test_many_at_once_convert_once_and_all_get_the_whole_folder(cache, tmp_path, monkeypatch):
    calls = []

    def convert(path, folder, *, dtype):
        calls.append(path)
        time.sleep(0.2)
        temporary = folder.with_name("half")
        temporary.mkdir()
        (temporary / "config.json").write_text(dtype)
        temporary.rename(folder)

    monkeypatch.setattr(gguf, "_convert", convert)
    path = model_file(tmp_path)
    found = []
    threads = [threading.Thread(target=lambda: found.append(gguf.converted(path, dtype="float32"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(calls) == 1
    assert {(folder / "config.json").read_text() for folder, _ in found} == {"float32"}
    assert {got for _, got in found} == {digest}
    gguf.converted(path, dtype="bfloat16")
    path.write_bytes(HEADER + b"other")
    gguf.converted(path, dtype="float32")
    assert len(calls) == 3


@pytest.mark.slow
def test_two_processes_race_for_the_bundled_model(cache):
    """One converts, the other waits, both load it; a conversion that died is swept away."""
    digest = hashlib.sha256(bundled_file().read_bytes()).hexdigest()
    dead = cache / "gguf" / f"{digest[:32]}-float32.tmp-dead"
    dead.mkdir(parents=True)
    code = (
        "from elicitor import load_backend\nfrom elicitor.backends.base import Prompt\n"
        "b = load_backend('bundled', dtype='float32')\n"
        "t = b.tokenizer\n"
        "p = Prompt((t.encode('The capital of France is'),), (t.encode(' Paris'), t.encode(' Rome')))\n"
        "print(b.fingerprint, b.score([p]).log_probs.tolist())"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0] != ""
    assert sum("converting" in err for _, err in outputs) == 1
    paris, rome = eval(outputs[0][0].split(" ", 1)[1])[0]
    assert paris > rome + 1
    assert [path.name for path in (cache / "gguf").iterdir() if path.is_dir()] == [f"{digest[:32]}-float32"]
