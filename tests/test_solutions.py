import json

import pytest

from elicitor import load_backend
from elicitor.backends.base import Cost, Generations
from elicitor.backends.fake import FakeBackend
from elicitor.data import load_dataset
from elicitor.errors import BackendError, ConfigError, ContextOverflowError, DataError, ResumeMismatchError
from elicitor.solutions import SampleSettings, sample_solutions, sampling_cost, solution_prompt
from elicitor.tasks import load_task


class Solver(FakeBackend):
    """Draws one of a few solutions by lot."""

    def generate(self, prompt, *, max_new_tokens, temperature, stop, rngs, on_progress=None):
        text = self.tokenizer.decode(prompt)
        assert text.startswith("Question: A baker")
        assert text.endswith("\nAnswer:")
        draws = [int(rng.integers(4)) for rng in rngs]
        texts = [f" It is {n}. The answer is {n}." if n else " Who knows" for n in draws]
        return Generations(
            texts, [True] * len(rngs), Cost(len(rngs), len(prompt), 0, 0.1), [len(text) for text in texts]
        )


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "q.jsonl"
    rows = [{"id": f"q{i}", "question": f"How many is {i}?", "answer": "secret"} for i in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_are_data_of_the_task(questions, tmp_path):
    out = tmp_path / "out.jsonl"
    done = sample_solutions(questions, out, backend=Solver(), settings=SampleSettings(k=6))
    rows = read(out)
    assert rows[0].keys() == {"id", "question", "choice", "consistency_id"}
    assert "secret" not in out.read_text()
    assert done.questions == 20
    assert done.solutions == len(rows) == 120 - done.repeats
    assert done.with_answer == sum("answer is" in row["choice"] for row in rows) < len(rows)
    by_question = {}
    for row in rows:
        by_question.setdefault(row["consistency_id"], []).append(row["choice"])
    assert all(len(set(texts)) == len(texts) <= 4 for texts in by_question.values())
    assert len({tuple(sorted(texts)) for texts in by_question.values()}) > 1
    dataset = load_dataset(str(out), load_task("gsm8k"))
    assert len(dataset.groups()) == 20


@pytest.mark.parametrize("cut", [1, 60, 700, 10**6])
def test_a_cut_file_goes_on_to_the_same_end(questions, tmp_path, cut):
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    sample_solutions(questions, whole, backend=Solver())
    sample_solutions(questions, broken, backend=Solver())
    broken.write_bytes(whole.read_bytes()[: -min(cut, whole.stat().st_size)])
    sample_solutions(questions, broken, backend=Solver(), resume=True)
    assert broken.read_text() == whole.read_text()


def test_a_question_gives_the_same_whatever_else_is_asked(questions, tmp_path):
    few, many = tmp_path / "few.jsonl", tmp_path / "many.jsonl"
    sample_solutions(questions, few, backend=Solver(), settings=SampleSettings(limit=3))
    sample_solutions(questions, many, backend=Solver())
    assert read(many)[: len(read(few))] == read(few)
    other = tmp_path / "other.jsonl"
    sample_solutions(questions, other, backend=Solver(), settings=SampleSettings(seed=1))
    assert read(other) != read(many)


def test_files_are_not_overwritten_and_settings_not_mixed(questions, tmp_path):
    out = tmp_path / "out.jsonl"
    sample_solutions(questions, out, backend=Solver())
    with pytest.raises(ConfigError, match=r"out.jsonl exists; add --resume"):
        sample_solutions(questions, out, backend=Solver())
    with pytest.raises(ResumeMismatchError, match=r"drawn with temperature = 0\.8, now it is 0\.5"):
        sample_solutions(questions, out, backend=Solver(), settings=SampleSettings(temperature=0.5), resume=True)
    with pytest.raises(ConfigError, match=r"folder .* does not exist"):
        sample_solutions(questions, tmp_path / "no" / "out.jsonl", backend=Solver())


def test_what_cannot_be_used_is_named(questions, tmp_path):
    with pytest.raises(BackendError, match="'fake' cannot generate text; use bundled"):
        sample_solutions(questions, tmp_path / "out.jsonl", backend=FakeBackend())
    assert not (tmp_path / "out.jsonl").exists()
    with pytest.raises(ConfigError, match="--k got 0"):
        SampleSettings(k=0)
    with pytest.raises(ConfigError, match="--temperature got 0"):
        SampleSettings(temperature=0.0)
    (tmp_path / "bad.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(DataError, match="column 'question' is missing"):
        sample_solutions(tmp_path / "bad.jsonl", tmp_path / "out.jsonl", backend=Solver())


def test_the_most_it_can_cost(questions):
    cost = sampling_cost(questions, FakeBackend(), SampleSettings(k=2, max_new_tokens=10, limit=5))
    assert (cost.questions, cost.new_tokens) == (5, 100)
    assert cost.prompt_tokens == sum(len(solution_prompt(f"Question: How many is {i}?\nAnswer:")) for i in range(5))
    assert cost.prompt.endswith("Question: How many is 0?\nAnswer:")


def test_a_real_model_solves_in_the_form_that_it_was_shown(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "Tom has 3 apples and buys 4 more. How many apples has he?"}\n')
    backend = load_backend("bundled")
    settings = SampleSettings(k=3, max_new_tokens=60)
    first = sample_solutions(path, tmp_path / "a.jsonl", backend=backend, settings=settings)
    sample_solutions(path, tmp_path / "b.jsonl", backend=backend, settings=settings)
    rows = read(tmp_path / "a.jsonl")
    assert rows == read(tmp_path / "b.jsonl")
    assert 1 <= len(rows) <= 3
    assert first.with_answer >= 1
    assert all("\n\n" not in row["choice"] and "Question:" not in row["choice"] for row in rows)
    assert first.cost.prompts == 3
    with pytest.raises(ContextOverflowError, match="9000 new ones do not fit the 8192"):
        sample_solutions(path, tmp_path / "c.jsonl", backend=backend, settings=SampleSettings(max_new_tokens=9000))
