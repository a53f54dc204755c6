import json

import pytest

pytest.importorskip("trl")


@pytest.fixture
def stub(monkeypatch, tmp_path):
    """Reward models that count a letter: no training, real files."""
    import types

    import numpy as np

    from elicitor.train import reward_model

    calls = []

    def load(folder, **_):
        folder = tmp_path / folder
        folder.mkdir(exist_ok=True)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            (folder / name).write_text(folder.name)

        def score(prompts, responses, **_):
            calls.append(len(responses))
            return np.array([float(text.count(folder.name)) for text in responses])

        base = types.SimpleNamespace(model=types.SimpleNamespace(dtype="float32"))
        return types.SimpleNamespace(folder=folder, base=base, score=score)

    monkeypatch.setattr(reward_model.RewardModel, "load", load)
    return calls


def write(folder, rows):
    path = folder / "test.jsonl"
    keys = ("id", "question", "choice", "choice_2", "label", "subset")
    path.write_text("".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows))
    return str(path)


ROWS = [
    ("1", "q1", "aa", "abb", 1, "s"),
    ("2", "q2", "b", "ab", 0, "s"),
    ("3", "q3", "bb", "a", 1, "t"),
    ("4", "q4", "b", "cc", 1, "t"),
]


def test_accuracies_by_subset_to_the_letter(stub, tmp_path):
    from elicitor.reward_evaluation import LONGER, evaluate_reward

    result = evaluate_reward(["a", "b"], [write(tmp_path, ROWS)])
    by_row = {(row.model, row.subset): (row.accuracy.value, row.accuracy.n, row.ties) for row in result.rows}
    assert by_row == {
        (LONGER, None): (0.5, 4, 0),
        (LONGER, "s"): (0.5, 2, 0),
        (LONGER, "t"): (0.5, 2, 0),
        ("a", None): (0.5, 4, 1),
        ("a", "s"): (1.0, 2, 0),
        ("a", "t"): (0.0, 2, 1),
        ("b", None): (0.5, 4, 1),
        ("b", "s"): (0.0, 2, 1),
        ("b", "t"): (1.0, 2, 0),
    }
    (row,) = [row for row in result.rows if (row.model, row.subset) == ("b", None)]
    assert row.margin == pytest.approx((-2 + 0 + 2 + 1) / 4)
    assert result.gains[0].less_first.estimate.value == 0.0


def test_nothing_is_scored_twice(stub, tmp_path):
    from elicitor.reward_evaluation import evaluate_reward

    test = write(tmp_path, ROWS)
    first = evaluate_reward(["a"], [test])
    scored = list(stub)
    assert evaluate_reward(["a"], [test]) == first
    assert stub == scored
    evaluate_reward(["a"], [test], limit=3)
    assert len(stub) == len(scored) + 1


def test_the_command_and_its_word_beside_a_run(stub, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from elicitor.cli import app

    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["eval", "reward", "a", "--test", write(tmp_path, ROWS), "--json"])
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)["rows"]) == 6
    missing = CliRunner().invoke(app, ["eval", "./reward"])
    assert "eval needs a run folder" in str(missing.exception)
