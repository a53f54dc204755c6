import json
import re
import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elicitor.checkpoint import Checkpoint
from elicitor.config import build_config
from elicitor.errors import ConfigError, DataError, ResumeMismatchError, RunLockedError
from elicitor.files import read_rows, write_json
from elicitor.runs import RunFolder, load_run_config, read_manifest, refuse_used

CONFIG = build_config(flags={"data": "x.jsonl", "task": "sentiment", "model": "fake"})
MANIFEST = {"schema": 1, "identity": {"search": 1, "data": "d", "model": "m"}}


def checkpoint(batch):
    return Checkpoint(batch=batch, state={"labels": [batch]}, rng={"state": batch})


def test_resume_drops_what_was_written_after_the_checkpoint(tmp_path):
    with RunFolder.create(tmp_path / "run", CONFIG, MANIFEST) as folder:
        folder.append([{"n": 1}, {"n": 2}])
        folder.save(checkpoint(3))
        folder.append([{"n": 3}])
    with (tmp_path / "run" / "events.jsonl").open("a") as stream:
        stream.write('{"n": 4, "torn')
    (tmp_path / "run" / ".labels.jsonl.99.tmp").write_text("half")
    with RunFolder.resume(tmp_path / "run", CONFIG, MANIFEST) as folder:
        assert read_rows(tmp_path / "run" / "events.jsonl") == [{"n": 1}, {"n": 2}]
        assert folder.checkpoint().batch == 3
        assert folder.checkpoint().state == {"labels": [3]}
        folder.append([{"n": 5}])
        folder.save(checkpoint(4))
    assert read_rows(tmp_path / "run" / "events.jsonl") == [{"n": 1}, {"n": 2}, {"n": 5}]
    assert not list((tmp_path / "run").glob("*.tmp"))


def test_a_second_writer_is_refused_in_this_and_in_another_process(tmp_path):
    with RunFolder.create(tmp_path / "run", CONFIG, MANIFEST):
        with pytest.raises(RunLockedError, match="another process"):
            RunFolder.resume(tmp_path / "run", CONFIG, MANIFEST)
        code = (
            "import sys, pathlib\nfrom elicitor.runs import RunFolder\nfrom elicitor.errors import RunLockedError\n"
            "try: RunFolder(pathlib.Path(sys.argv[1]))._acquire()\nexcept RunLockedError: print('locked')"
        )
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True)
        assert done.stdout == "locked\n"
    RunFolder.resume(tmp_path / "run", CONFIG, MANIFEST).close()


@pytest.mark.parametrize(
    ("flags", "identity", "message"),
    [
        ({"seed": 1}, {}, "setting seed = 0, now it is 1"),
        ({"objective.alpha": 30}, {}, r"setting objective\.alpha = 50\.0, now it is 30\.0"),
        ({}, {"data": "other"}, "manifest entry data = 'd'"),
        ({}, {"model": "other"}, "manifest entry model = 'm'"),
    ],
)
def test_a_run_goes_on_with_what_it_was_made_with(tmp_path, flags, identity, message):
    RunFolder.create(tmp_path / "run", CONFIG, MANIFEST).close()
    changed = build_config(flags={"data": "x.jsonl", "task": "sentiment", "model": "fake", **flags})
    with pytest.raises(ResumeMismatchError, match=message):
        RunFolder.resume(tmp_path / "run", changed, {"identity": MANIFEST["identity"] | identity})
    moved = build_config(flags={"data": "elsewhere/x.jsonl", "task": "sentiment", "model": "fake"})
    RunFolder.resume(tmp_path / "run", moved, MANIFEST).close()


def test_folders_in_use_are_refused(tmp_path):
    refuse_used(tmp_path / "new")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        refuse_used(tmp_path / "file")
    with pytest.raises(ConfigError, match="is not empty, it holds 'file'"):
        refuse_used(tmp_path)
    RunFolder.create(tmp_path / "run", CONFIG, MANIFEST).close()
    with pytest.raises(ConfigError, match="--resume"):
        refuse_used(tmp_path / "run")


def test_a_run_killed_before_it_began_can_be_started_again(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").write_text("")
    (tmp_path / "run" / "config.yaml").write_text("half")
    RunFolder.create(tmp_path / "run", CONFIG, MANIFEST).close()
    assert json.loads((tmp_path / "run" / "manifest.json").read_text()) == MANIFEST


def test_broken_files_are_named(tmp_path):
    (tmp_path / "x").write_text('{"a": 1}\n{"a"')
    with pytest.raises(DataError, match="line 2 is not JSON"):
        read_rows(tmp_path / "x")
    with pytest.raises(DataError, match="does not exist"):
        read_rows(tmp_path / "y")


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 20)))
def test_finished_batches_are_remembered_in_whatever_order_they_finish(tmp_path_factory, done):
    with RunFolder.create(tmp_path_factory.mktemp("x") / "run", CONFIG, MANIFEST) as folder:
        for batch in done:
            folder.finish_batch(batch, events=[{"batch": batch}], labels=[], metrics={})
        rows = folder.checkpoint().done
        assert [batch for first, last in rows for batch in range(first, last + 1)] == sorted(set(done))
        assert all(second[0] > first[1] + 1 for first, second in pairwise(rows))
        for batches in (21, 10):
            assert folder.checkpoint().left(batches) == sorted(set(range(batches)) - set(done))


@pytest.mark.parametrize(
    ("schema", "way_out"),
    [
        ({}, r"elicitor label --config .*run/config.yaml --output-dir NEW"),
        ({"schema": "1"}, "--output-dir NEW"),
        ({"schema": 2}, "a newer one"),
    ],
)
def test_a_folder_of_another_schema_is_refused_with_a_way_out(tmp_path, schema, way_out):
    RunFolder.create(tmp_path / "run", CONFIG, MANIFEST).close()
    assert read_manifest(tmp_path / "run") == MANIFEST
    write_json(tmp_path / "run" / "manifest.json", {"identity": MANIFEST["identity"], **schema})
    for reader in (read_manifest, load_run_config, lambda path: RunFolder.resume(path, CONFIG, MANIFEST)):
        with pytest.raises(DataError, match=way_out):
            reader(tmp_path / "run")


def test_a_checkpoint_that_was_changed_by_hand_is_refused(tmp_path):
    with RunFolder.create(tmp_path / "run", CONFIG, MANIFEST) as folder:
        folder.append([{"n": 1}])
        folder.save(checkpoint(3))
    file = tmp_path / "run" / "checkpoint.json"
    whole = file.read_text()
    for before, after in (('"batch": 3', '"batch": 4'), ('"labels": [3]', '"labels": [9]')):
        assert before in whole
        file.write_text(whole.replace(before, after, 1))
        with pytest.raises(DataError, match="has been changed since it was written"):
            RunFolder.resume(tmp_path / "run", CONFIG, MANIFEST)
    file.write_text('{"done": 5}')
    with pytest.raises(DataError, match=r"checkpoint\.json: done: Input should be"):
        RunFolder.resume(tmp_path / "run", CONFIG, MANIFEST)
    # Earlier versions wrote no checksum.
    file.write_text(re.sub(r', "crc32": \d+', "", whole))
    RunFolder.resume(tmp_path / "run", CONFIG, MANIFEST).close()


@pytest.mark.parametrize(("seconds", "on_disk"), [(3600, [0, 0, 0]), (0, [0, 1, 2])])
def test_steps_close_together_are_saved_once_and_the_last_of_them_on_leaving(tmp_path, monkeypatch, seconds, on_disk):
    monkeypatch.setattr("elicitor.runs._SAVE_SECONDS", seconds)
    seen = []
    with RunFolder.create(tmp_path / "run", CONFIG, MANIFEST) as folder:
        for batch in range(3):
            folder.append([{"n": batch}])
            folder.keep(checkpoint(batch))
            seen.append(folder.checkpoint().batch)
        # Of a step that was cut off in the middle.
        folder.append([{"n": "half"}])
    assert seen == on_disk
    with RunFolder.resume(tmp_path / "run", CONFIG, MANIFEST) as folder:
        assert folder.checkpoint().batch == 2
    assert (tmp_path / "run" / "events.jsonl").read_text() == '{"n": 0}\n{"n": 1}\n{"n": 2}\n'


def test_a_saved_checkpoint_is_not_replaced_by_one_that_was_kept_before(tmp_path, monkeypatch):
    monkeypatch.setattr("elicitor.runs._SAVE_SECONDS", 3600)
    with RunFolder.create(tmp_path / "run", CONFIG, MANIFEST) as folder:
        folder.keep(checkpoint(0))
        folder.keep(checkpoint(1))
        folder.save(checkpoint(2))
    with RunFolder.resume(tmp_path / "run", CONFIG, MANIFEST) as folder:
        assert folder.checkpoint().batch == 2


def test_events_that_were_lost_are_not_filled_up_with_zeros(tmp_path):
    with RunFolder.create(tmp_path / "run", CONFIG, MANIFEST) as folder:
        folder.append([{"n": 1}, {"n": 2}])
        folder.save(checkpoint(3))
    (tmp_path / "run" / "events.jsonl").write_text('{"n": 1}\n')
    with pytest.raises(DataError, match="has lost events"):
        RunFolder.resume(tmp_path / "run", CONFIG, MANIFEST)
    assert (tmp_path / "run" / "events.jsonl").read_text() == '{"n": 1}\n'


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"examples": "9"}, "manifest.json: examples: Input should be a valid integer"),
        ({"identity": []}, "manifest.json: identity: Input should be"),
        ({"supervision": "some"}, "manifest.json: supervision"),
    ],
)
def test_a_manifest_of_other_types_is_refused(tmp_path, entry, message):
    write_json(tmp_path / "manifest.json", {**MANIFEST, **entry})
    with pytest.raises(DataError, match=message):
        read_manifest(tmp_path)
