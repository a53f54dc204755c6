import json

import numpy as np
import pytest

import elicitor
from elicitor.errors import ConfigError, DataError
from elicitor.search import FoundLabel
from elicitor.tasks import load_task
from elicitor.train.pairs import Pair, found_choices, iter_pairs, labelled_pairs

TASK = load_task("preference")


def found(name, label):
    return FoundLabel(name, label, 0.9, 2.0, "g", False, 0)


def test_labels_of_both_orders_become_one_choice():
    pairs = [Pair(name, "q", ("a", "b")) for name in "uvwx"]
    labels = [
        *(found("u/ab", "True"), found("u/ba", "False")),
        *(found("v/ab", "False"), found("v/ba", "True")),
        *(found("w/ab", "True"), found("w/ba", "True")),
    ]
    assert found_choices(labels, pairs, task=TASK) == ({"u": 0, "v": 1}, 1)


def test_a_run_gives_the_labels_it_found(pairs_file, tmp_path):
    file = pairs_file(6)
    run = elicitor.label(file, task="preference", model="fake", output_dir=tmp_path / "run")
    labelled = labelled_pairs(tmp_path / "run", "found")
    by_id = {item.id: item.label for item in run.labels}
    assert len(labelled.preferences) + labelled.contradictory == 6
    for item in labelled.preferences:
        assert (by_id[f"{item.pair.id}/ab"] == "True") == (item.chosen == 0)
        assert by_id[f"{item.pair.id}/ab"] != by_id[f"{item.pair.id}/ba"]


def test_pairs_that_an_audit_set_aside_are_left_out(pairs_file, tmp_path):
    elicitor.label(pairs_file(6), task="preference", model="fake", output_dir=tmp_path / "run")
    every = labelled_pairs(tmp_path / "run", "found")
    aside = [item.pair.id for item in every.preferences[:2]]
    rows = [{"id": f"{aside[0]}/ab", "reasons": []}, {"id": f"{aside[1]}/ba", "reasons": []}]
    (tmp_path / "run" / "abstained.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    certain = labelled_pairs(tmp_path / "run", "found")
    assert certain.preferences == every.preferences[2:]
    assert (certain.indeterminate, certain.without, certain.left_out) == (2, 0, 2 + every.contradictory)
    assert labelled_pairs(tmp_path / "run", "found", keep_abstained=True) == every
    assert labelled_pairs(tmp_path / "run", "golden").indeterminate == 0


def test_gold_votes_and_lots(pairs_file):
    file = pairs_file(12)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    golden = labelled_pairs(file, "golden").preferences
    assert [item.chosen for item in golden] == [1 - row["label"] for row in rows]
    assert all("z" in item.ordered[0] for item in golden)
    human = [[p.chosen for p in labelled_pairs(file, "human", seed=seed).preferences] for seed in range(20)]
    agreement = np.mean(np.array(human) == [1 - row["label"] for row in rows])
    assert 0.5 < agreement < 0.85, "two of three votes agree with gold"
    lots = labelled_pairs(file, "random", seed=1).preferences
    assert sum(item.chosen for item in lots) == 6
    assert lots == labelled_pairs(file, "random", seed=1).preferences


def test_pairs_without_gold_are_counted(pairs_file, tmp_path):
    rows = [json.loads(line) for line in pairs_file(4).read_text().splitlines()]
    rows[1]["label"] = None
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    labelled = labelled_pairs(tmp_path / "x.jsonl", "golden")
    assert ([item.pair.id for item in labelled.preferences], labelled.without) == (["p0", "p2", "p3"], 1)


def test_subsets_of_rewardbench_rows_are_kept(tmp_path):
    row = {"prompt": "q", "chosen": "good", "rejected": "bad", "subset": "math-prm", "id": 7}
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    (pair,) = iter_pairs(str(tmp_path / "x.jsonl"), TASK)
    assert (pair.id, pair.subset, sorted(pair.responses)) == ("7", "math-prm", ["bad", "good"])
    (item,) = labelled_pairs(tmp_path / "x.jsonl", "golden").preferences
    assert item.ordered == ("good", "bad")


def test_what_cannot_be_used_is_refused(pairs_file, tmp_path):
    with pytest.raises(ConfigError, match="holds no found labels"):
        labelled_pairs(pairs_file(2), "found")
    with pytest.raises(ConfigError, match="not a run folder"):
        labelled_pairs(tmp_path, "found")
    with pytest.raises(ConfigError, match="does not compare two responses"):
        list(iter_pairs(str(pairs_file(2)), load_task("sentiment")))
    rows = [json.loads(line) | {"label": None} for line in pairs_file(2).read_text().splitlines()]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="no golden labels for any of its 2 pairs"):
        labelled_pairs(tmp_path / "x.jsonl", "golden")
