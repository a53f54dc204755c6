import json
from dataclasses import replace

import numpy as np
import pytest

from elicitor import load_backend
from elicitor.answers import Answers
from elicitor.backends.fake import FakeBackend, concept_label
from elicitor.baselines import CONDITIONS, ZERO_SHOT
from elicitor.comparison import Comparison
from elicitor.config import ObjectiveConfig, PlanConfig
from elicitor.data import Dataset, Example
from elicitor.errors import ConfigError, ContextOverflowError
from elicitor.tasks import load_task

TASK = load_task({"template": "{text}:", "labels": ["no", "yes"]})


def dataset(numbers, text="text {}"):
    examples = [Example(f"e{i}", {"text": text.format(i)}, f"g{i}", None, "here") for i in numbers]
    return Dataset(tuple(examples), TASK.label_space, "here", f"print {list(numbers)}")


def truth(numbers):
    return [concept_label(f"text {i}:", 2) for i in numbers]


@pytest.fixture
def compare():
    def make(*, n=12, n_test=6, backend=None, **changes):
        golden = dict(enumerate(truth(range(n))))
        made = Comparison(
            backend=backend or FakeBackend(prior=0.3, noise=1.0),
            task=TASK,
            train=dataset(range(n)),
            test=dataset(range(100, 100 + n_test)),
            usable=range(n),
            found=[golden],
            golden=golden,
            judged=golden,
            votes={i: (y, y, 1 - y) for i, y in golden.items()},
            objective=ObjectiveConfig(),
            plan=PlanConfig(),
            seeds=[0, 1, 2],
        )
        return replace(made, **changes)

    return make


def texts(comparison, condition, labels):
    return [bytes(t for s in p.segments for t in s).decode() for p in comparison.prompts(condition, labels)]


def test_what_stands_before_a_query_to_the_letter(compare):
    made = compare(n_test=1)
    assert texts(made, "zero_shot", {}) == ["text 100:"]
    assert texts(made, "found", {3: 1, 0: 0}) == ["text 3: yes\n\ntext 0: no\n\ntext 100:"]
    (assistant,) = texts(made, "zero_shot_assistant", {})
    assert assistant.startswith("What follows is a talk")
    assert assistant.endswith("are no or yes.\n\ntext 100:")


def test_every_seed_orders_alike_under_all_conditions_and_unlike_other_seeds(compare):
    made = compare()
    orders = [made.demonstrations(seed) for seed in range(3)]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    for condition in ("random", "found", "human", "noised_gold", "golden", "bootstrap"):
        labels, _ = made._labels(condition, 1, 1)
        assert list(labels) == orders[1], condition


def test_each_run_stands_for_its_seed(compare):
    made = compare(found=[dict.fromkeys(range(12), 0), dict.fromkeys(range(12), 1), dict.fromkeys(range(12), 0)])
    assert [set(made._labels("found", k, k)[0].values()) for k in range(3)] == [{0}, {1}, {0}]


def test_as_many_demonstrations_as_fit_and_no_more_than_asked_for(compare):
    assert len(compare(max_shots=5).demonstrations(0)) == 5
    longest = len("text 11: yes\n\n")
    tight = compare(backend=FakeBackend(context=3 * longest + len("text 100: yes")))
    assert len(tight.demonstrations(0)) == 3
    scores = tight.answers("golden")
    assert scores.shots == [3, 3, 3]
    with pytest.raises(ContextOverflowError, match="no demonstration fits"):
        compare(backend=FakeBackend(context=20)).demonstrations(0)


def test_conditions_that_do_not_apply_say_why(compare):
    made = compare(golden={}, votes={0: (1,)})
    assert "no gold" in made.obstacle("golden")
    assert "11 of 12 labelled examples have no human votes" in made.obstacle("human")
    assert "no chat template" in made.obstacle("zero_shot_chat")
    assert made.obstacle("random") is None
    with pytest.raises(ConfigError, match="condition golden: the labelled examples have no gold labels; leave it out"):
        made.answers("golden")


def test_answers_are_normalised_and_zero_shot_has_one_seed(compare):
    made = compare()
    for condition in CONDITIONS:
        if made.obstacle(condition):
            continue
        answers = made.answers(condition)
        seeds = 1 if condition in ZERO_SHOT else 3
        assert answers.log_probs.shape == (seeds, 6, 2)
        assert np.exp(answers.log_probs).sum(axis=2) == pytest.approx(1)
        assert len(answers.shots) == len(answers.label_accuracy) == seeds
        assert answers.cost.prompts >= 6 * seeds


def test_labels_that_a_condition_makes_are_paid_by_it(compare):
    made = compare()
    assert made.answers("bootstrap").cost.tokens_computed > 2 * made.answers("found").cost.tokens_computed


def test_label_accuracy_of_each_condition(compare):
    made = compare(found=[{i: 1 - y if i < 3 else y for i, y in enumerate(truth(range(12)))}])
    assert made.answers("found").label_accuracy == [pytest.approx(0.75)] * 3
    assert made.answers("noised_gold").label_accuracy == [pytest.approx(0.75)] * 3
    assert made.answers("golden").label_accuracy == [1.0] * 3
    assert made.answers("zero_shot").label_accuracy == [None]


class Counting(FakeBackend):
    calls = 0

    def score(self, prompts, **options):
        Counting.calls += 1
        return super().score(prompts, **options)


def test_finished_conditions_are_kept_until_something_they_depend_on_changes(compare, tmp_path):
    made = compare(backend=Counting())
    first = made.answers("golden", folder=tmp_path / "kept")
    Counting.calls = 0
    again = made.answers("golden", folder=tmp_path / "kept")
    assert Counting.calls == 0
    assert again.to_json() == first.to_json()
    assert Answers.from_json(json.loads(json.dumps(first.to_json()))).to_json() == first.to_json()
    changed = [
        {"seeds": [3, 4]},
        {"max_shots": 3},
        {"golden": {0: 0, 1: 1}},
        {"found": [dict.fromkeys(range(12), 0)]},
        {"votes": {0: (1,)}},
        {"test": dataset(range(100, 103))},
        {"backend": Counting(bias=1.0)},
        {"task": replace(TASK, separator="\n")},
        {"objective": ObjectiveConfig(calibration="batch")},
    ]
    for change in changed:
        Counting.calls = 0
        replace(made, **change).answers("golden", folder=tmp_path / "kept")
        assert Counting.calls > 0, change
        made.answers("golden", folder=tmp_path / "kept")


def test_zero_shot_answers_are_kept_whatever_the_demonstrations_would_be(compare, tmp_path):
    made = compare(backend=Counting())
    first = made.answers("zero_shot", folder=tmp_path / "kept").to_json()
    Counting.calls = 0
    for change in ({"seeds": [3, 4]}, {"golden": {0: 0}}, {"found": [dict.fromkeys(range(12), 0)]}, {"max_shots": 3}):
        assert replace(made, **change).answers("zero_shot", folder=tmp_path / "kept").to_json() == first
    assert Counting.calls == 0
    for change in (
        {"test": dataset(range(100, 103))},
        {"backend": Counting(bias=1.0)},
        {"task": replace(TASK, separator="\n")},
    ):
        Counting.calls = 0
        replace(made, **change).answers("zero_shot", folder=tmp_path / "kept")
        assert Counting.calls == 1, change


def test_a_single_seed_is_not_asked_again_when_others_join_it(compare, tmp_path):
    made = compare(backend=Counting(), found=[dict(enumerate(truth(range(12))))])
    alone = replace(made, seeds=[0]).answers("found", folder=tmp_path)
    Counting.calls = 0
    three = replace(made, seeds=[0, 1, 2]).answers("found", folder=tmp_path)
    assert Counting.calls == 2
    assert three.log_probs[0].tolist() == alone.log_probs[0].tolist()


@pytest.mark.parametrize("condition", ["golden", "found", "random", "bootstrap"])
def test_a_condition_goes_on_behind_the_seeds_that_it_has_asked(compare, tmp_path, condition):
    class Broken(Counting):
        def score(self, prompts, **options):
            if Counting.calls == most:
                raise KeyboardInterrupt
            return super().score(prompts, **options)

    golden = dict(enumerate(truth(range(12))))
    found = [golden, {i: 1 - y for i, y in golden.items()}, dict.fromkeys(golden, 1)]
    made = compare(backend=Broken(), found=found)
    most, Counting.calls = None, 0
    whole = made.answers(condition)
    calls = Counting.calls
    most, Counting.calls = calls - 1, 0
    with pytest.raises(KeyboardInterrupt):
        made.answers(condition, folder=tmp_path)
    assert sorted(file.parent.name for file in tmp_path.rglob("*.json")) == ["seed-0", "seed-1"]
    most, Counting.calls = None, 0
    resumed = made.answers(condition, folder=tmp_path)
    same = replace(resumed.cost, seconds=whole.cost.seconds)
    assert replace(resumed, cost=same).to_json() == whole.to_json()
    assert 0 < Counting.calls < calls
    # A seed more is all that is asked for.
    before, Counting.calls = Counting.calls, 0
    more = replace(made, seeds=[0, 1, 2, 5], found=[*found, golden]).answers(condition, folder=tmp_path)
    assert more.log_probs[:3].tolist() == whole.log_probs.tolist()
    assert 0 < Counting.calls <= before
    # Whose labels are others is asked again, and nobody else.
    if condition == "found":
        Counting.calls = 0
        replace(made, found=[found[0], golden, found[2]]).answers(condition, folder=tmp_path)
        assert Counting.calls == 1


def test_a_chat_model_is_asked_in_its_own_template(compare):
    backend = load_backend("bundled")
    made = compare(backend=backend, n_test=2)
    first = made.prompts("zero_shot_chat", {})[0]
    text = backend.tokenizer.decode([t for segment in first.segments for t in segment])
    assert text.count("<|im_start|>") == 3
    assert text.endswith("Answer with one of these and nothing else: no or yes.<|im_end|>\n<|im_start|>assistant\n")
    assert [backend.tokenizer.decode(ids) for ids in first.candidates] == ["no", "yes"]
    assert made.answers("zero_shot_chat").log_probs.shape == (1, 2, 2)


def test_probes_are_fitted_to_the_usable_examples_and_asked_about_the_test_examples(compare, tiny_model):
    backend = load_backend(str(tiny_model))
    made = compare(backend=backend, n=24, n_test=6, sweep_truth=truth(range(100, 106)))
    shapes = {"random_probe": 3, "pca_probe": 1, "ccs_probe": 3, "supervised_probe": 1}
    for condition, seeds in shapes.items():
        answers = made.answers(condition)
        assert answers.log_probs.shape == (seeds, 6, 2)
        assert np.exp(answers.log_probs).sum(axis=2) == pytest.approx(1)
        assert answers.shots == [24] * seeds
        assert len(answers.layers) == 3
        again = Answers.from_json(json.loads(json.dumps(answers.to_json())))
        assert again.to_json() == answers.to_json()
    middle = made.answers("supervised_probe")
    other = replace(made, probe_layer=2).answers("supervised_probe")
    assert (middle.log_probs != other.log_probs).any()
    correct = middle.log_probs[0].argmax(axis=1) == truth(range(100, 106))
    assert middle.layers[1].accuracy == pytest.approx(correct.mean())
    with pytest.raises(ConfigError, match="layer 3 does not exist; choose one from 0 to 2"):
        replace(made, probe_layer=3).answers("pca_probe")


def test_unsupervised_probes_cannot_see_gold(compare, tiny_model):
    backend = load_backend(str(tiny_model))
    made = compare(backend=backend, n=16, n_test=4)
    opposite = {i: 1 - y for i, y in made.golden.items()}
    turned = replace(made, golden=opposite, judged=opposite)
    for condition in ("random_probe", "pca_probe", "ccs_probe"):
        assert made.answers(condition).log_probs.tolist() == turned.answers(condition).log_probs.tolist()
    supervised = [one.answers("supervised_probe").log_probs for one in (made, turned)]
    assert (supervised[0] != supervised[1]).any()


def test_probes_need_two_labels_and_hidden_states(compare):
    assert "hidden states of fake cannot be read" in compare().obstacle("pca_probe")
    three = replace(TASK, label_space=load_task({"template": "{text}:", "labels": ["a", "b", "c"]}).label_space)
    assert "the task has 3" in compare(task=three).obstacle("ccs_probe")
    assert "no gold" in compare(golden={}).obstacle("supervised_probe")
