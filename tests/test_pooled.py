"""What the driver of a pool keeps and asks for; real workers are in test_distributed.py."""

import json

import pytest

from elicitor import evaluate
from elicitor.backends.fake import concept_label
from elicitor.config import build_config
from elicitor.labelling import ModelFacts, run
from elicitor.models import load_backend

CONDITIONS = ("zero_shot", "zero_shot_chat", "random", "found", "golden")


class Here:
    """A pool whose only worker is this process; what is asked is written down."""

    def __init__(self, *, stop_after=None):
        self.asked = []
        self.stop_after = stop_after

    def load(self, config, *, pieces, on_stage=None):
        self.backend = load_backend(config.model)
        return ModelFacts.of(self.backend)

    def map(self, function, arguments, *, name):
        # The other way round: nothing may hang on the order in which workers are done.
        for argument in reversed(list(arguments)):
            if len(self.asked) == self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(name(argument))
            yield function(self.backend, argument)


@pytest.fixture
def done(tmp_path):
    rows = [{"id": f"e{i}", "text": f"text {i}", "label": concept_label(f"text {i}:", 2)} for i in range(60)]
    for name, part in (("train", rows[:24]), ("test", rows[24:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    task = {"template": "{text}:", "labels": ["no", "yes"]}
    flags = {"data": str(tmp_path / "train.jsonl"), "task": task, "model": "fake:prior=2"}
    return run(build_config(flags=flags), tmp_path / "run")


def table(done, folder, *, pool, seeds, conditions=CONDITIONS):
    test = done.path.parent / "test.jsonl"
    result = evaluate(done, test, seeds=seeds, conditions=conditions, folder=folder, pool=pool, leave_out=True)
    rows = result.to_json()["rows"]
    for row in rows:
        del row["cost"]["seconds"]
    return rows, [note for note in result.notes if "left out" in note]


def test_more_seeds_ask_only_what_is_missing(done, tmp_path):
    first, more = Here(), Here()
    table(done, tmp_path / "pool", pool=first, seeds=[4])
    assert sorted(first.asked) == [f"condition {name}, seeds 4" for name in sorted(CONDITIONS)]
    rows, notes = table(done, tmp_path / "pool", pool=more, seeds=[4, 7])
    # The fake model has no chat template, which no answer tells of.
    chat = "condition zero_shot_chat, seeds 4, 7"
    assert sorted(more.asked) == [*(f"condition {name}, seeds 7" for name in ("found", "golden", "random")), chat]
    whole, same_notes = table(done, tmp_path / "whole", pool=None, seeds=[4, 7])
    assert (rows, notes) == (whole, same_notes)
    # What one process kept serves workers, and the other way round.
    again = Here()
    assert table(done, tmp_path / "whole", pool=again, seeds=[4, 7])[0] == whole
    assert table(done, tmp_path / "pool", pool=None, seeds=[4, 7])[0] == whole
    assert again.asked == [chat]


@pytest.mark.parametrize("finished", range(1, 5))
def test_a_stopped_driver_asks_no_seed_twice(done, tmp_path, finished):
    conditions = ("zero_shot", "random", "found")
    stopped, rest = Here(stop_after=finished), Here()
    with pytest.raises(KeyboardInterrupt):
        table(done, tmp_path / "pool", pool=stopped, seeds=[0, 1], conditions=conditions)
    rows, _ = table(done, tmp_path / "pool", pool=rest, seeds=[0, 1], conditions=conditions)
    assert len(stopped.asked + rest.asked) == len(set(stopped.asked + rest.asked)) == 5
    assert rows == table(done, tmp_path / "whole", pool=None, seeds=[0, 1], conditions=conditions)[0]
