"""Probes in a world whose hidden direction is known, and on the bundled model."""

import math

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from elicitor import probes
from elicitor.backends.base import Cost, States
from elicitor.backends.fake import FakeBackend
from elicitor.data import load_dataset
from elicitor.errors import BackendError, ConfigError, DataError, TaskError
from elicitor.gold import load_gold
from elicitor.models import load_backend
from elicitor.probes import (
    PROBES,
    LayerAccuracy,
    Probe,
    contrast_states,
    fit_probe,
    lowest_loss_layer,
    middle_layer,
    orient,
    sweep_layers,
)
from elicitor.prompts import PromptEncoder
from elicitor.tasks import load_task

WIDTH = 64


def rng(seed=0):
    return np.random.default_rng(seed)


DIRECTION = rng(7).standard_normal(WIDTH) / math.sqrt(WIDTH)


def world(n, seed, *, strength=3.0):
    """Pairs that share most of what they hold; the side of the true label is further along `DIRECTION`."""
    draw = rng(seed)
    truth = draw.integers(2, size=n)
    sides = 2 * draw.standard_normal((n, 1, WIDTH)) + draw.standard_normal((n, 2, WIDTH))
    true_side = np.where(truth[:, None] == [0, 1], 1, -1)[:, :, None]
    states = sides + strength * true_side * DIRECTION + np.asarray([5.0, -3.0])[:, None]
    return states.astype(np.float32), truth


def zero_shot(truth, *, right=0.7, bias=0.0, seed=5):
    """Answers of a model that is right about a share of the examples, as log-probabilities that are not normalised."""
    label = np.where(rng(seed).random(len(truth)) < right, truth, 1 - truth)
    log_odds = np.where(label == 1, 1.0, -1.0) + bias
    return np.stack([-log_odds / 2 - 3, log_odds / 2 - 3], axis=1)


def fitted(kind, states, truth, *, seed=0):
    return fit_probe(kind, states, gold=truth.tolist() if kind == "supervised" else None, rng=rng(seed))


def accuracy(probe, states, truth):
    return np.mean(probe.log_probs(states).argmax(axis=1) == truth)


@pytest.mark.parametrize("kind", ["ccs", "pca", "supervised"])
def test_a_planted_direction_is_found(kind):
    states, truth = world(400, 1)
    probe = orient(fitted(kind, states, truth), states, zero_shot(truth))
    assert accuracy(probe, *world(1000, 2)) > 0.95
    weights = probe.weights / probe.scale.mean(axis=0)
    # Oriented, the weights point to where label 1 is true.
    assert weights @ DIRECTION / (np.linalg.norm(weights) * np.linalg.norm(DIRECTION)) > 0.8
    assert (probe.loss is not None) == (kind == "ccs")


def test_random_directions_are_near_chance_on_average():
    states, truth = world(200, 1)
    probe_of = [fit_probe("random", states, gold=None, rng=rng(seed)) for seed in range(200)]
    found = np.asarray([accuracy(probe, states, truth) for probe in probe_of])
    assert found.mean() == pytest.approx(0.5, abs=0.04)
    # The better sign by gold looks like knowledge although there is none.
    assert np.maximum(found, 1 - found).mean() > 0.57
    logits = np.diff(probe_of[0].log_probs(states), axis=1)
    assert logits.std() == pytest.approx(1)


def test_nothing_is_found_where_nothing_is_planted():
    states, truth = world(200, 1, strength=0.0)
    fresh = world(1000, 2, strength=0.0)
    for kind in PROBES:
        assert accuracy(fitted(kind, states, truth), *fresh) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("kind", PROBES)
def test_what_all_examples_share_on_a_side_does_not_matter(kind):
    states, truth = world(100, 3)
    offset = rng(4).normal(scale=4, size=(2, WIDTH))
    moved = states + offset
    before = fitted(kind, states, truth).log_probs(states)
    np.testing.assert_allclose(fitted(kind, moved, truth).log_probs(moved), before, atol=0.02)


@pytest.mark.parametrize("kind", PROBES)
def test_label_probabilities_are_a_distribution_even_far_away(kind):
    states, truth = world(100, 3)
    probe = fitted(kind, states, truth)
    for scale in (1, 1e6):
        log_probs = probe.log_probs(scale * states)
        assert log_probs.shape == (100, 2)
        assert np.isfinite(log_probs).all()
        np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1)


def test_probabilities_by_hand():
    mean, scale = np.asarray([[1.0], [2.0]]), np.asarray([[1.0], [2.0]])
    states = np.asarray([[[1 + math.log(3)], [2 - 2 * math.log(9)]]])  # normalised: log 3 and -log 9
    ccs = Probe("ccs", mean, scale, np.asarray([1.0]), 0.0, 0.1)
    # Behind label 0 the example looks true with 3/4, behind label 1 with 1/10; bias 0.
    np.testing.assert_allclose(np.exp(ccs.log_probs(states)), [[(3 / 4 + 9 / 10) / 2, (1 / 10 + 1 / 4) / 2]])
    pca = Probe("pca", mean, scale, np.asarray([1.0]), math.log(2))
    # Odds of label 1: 1/9 over 3, times 2.
    np.testing.assert_allclose(np.exp(pca.log_probs(states)), [[27 / 29, 2 / 29]])


def test_the_loss_is_that_of_the_paper_and_the_best_restart_wins(monkeypatch):
    states, truth = world(50, 3)
    probe = fitted("ccs", states, truth)
    sides = (states - probe.mean) / probe.scale
    p0, p1 = (1 / (1 + np.exp(-(sides @ probe.weights + probe.bias)))).T
    assert probe.loss == pytest.approx(np.mean((p1 + p0 - 1) ** 2 + np.minimum(p1, p0) ** 2), abs=1e-6)
    assert probe.loss < 0.2  # of always answering 0.4
    monkeypatch.setattr(probes, "RESTARTS", 1)
    alone = [fitted("ccs", states, truth, seed=seed).loss for seed in range(4)]
    assert np.std(alone) > 0
    monkeypatch.setattr(probes, "RESTARTS", 4)
    assert fitted("ccs", states, truth).loss < np.mean(alone)


def test_the_first_component_is_that_of_scikit_learn():
    states, truth = world(150, 3)
    probe = fitted("pca", states, truth)
    sides = (states - states.mean(axis=0)) / states.std(axis=0)
    theirs = PCA(n_components=1).fit(sides[:, 1] - sides[:, 0])
    ours = probe.weights / np.linalg.norm(probe.weights)
    assert abs(ours @ theirs.components_[0]) == pytest.approx(1, abs=1e-6)
    projected = (sides[:, 1] - sides[:, 0]) @ probe.weights
    assert projected.std() == pytest.approx(1)


def test_the_supervised_probe_is_logistic_regression_on_standardised_differences():
    states, truth = world(150, 3)
    sides = (states - states.mean(axis=0)) / states.std(axis=0)
    difference = sides[:, 1] - sides[:, 0]
    theirs = make_pipeline(StandardScaler(), LogisticRegression()).fit(difference, truth)
    ours = fitted("supervised", states, truth)
    np.testing.assert_allclose(ours.log_probs(states), theirs.predict_log_proba(difference), atol=1e-3)


@pytest.mark.parametrize("kind", ["ccs", "pca", "random"])
def test_the_sign_follows_zero_shot_answers_whatever_the_model_prefers(kind):
    states, truth = world(100, 3)
    for seed in range(2):
        probe = fitted(kind, states, truth, seed=seed)
        answers = probe.log_probs(states).argmax(axis=1)
        for bias in (0.0, 20.0, -20.0):
            assert orient(probe, states, zero_shot(answers, right=0.9, bias=bias)) is probe
            mirrored = orient(probe, states, zero_shot(1 - answers, right=0.9, bias=bias))
            np.testing.assert_allclose(mirrored.log_probs(states), probe.log_probs(states)[:, ::-1], atol=1e-12)


def test_the_sign_is_free_of_what_probe_and_model_prefer():
    """The probe calls nearly all true, the model nearly none; in what varies they agree."""
    states = np.zeros((4, 2, 1))
    states[:, 1, 0] = [-1, 0, 1, 2]
    probe = Probe("random", np.zeros((2, 1)), np.ones((2, 1)), np.ones(1), 3.0)
    log_odds = np.asarray([-12.0, -11.0, -10.0, -9.0])
    reference = np.stack([np.zeros(4), log_odds], axis=1)
    assert orient(probe, states, reference) is probe
    turned = orient(probe, states, reference[::-1])
    assert (turned.weights, turned.bias) == (-1.0, -3.0)


def test_a_supervised_probe_keeps_its_sign():
    states, truth = world(100, 3)
    probe = fitted("supervised", states, truth)
    assert orient(probe, states, zero_shot(1 - truth, right=1.0)) is probe


def test_answers_that_are_all_the_same_give_no_sign():
    states, truth = world(20, 3)
    probe = fitted("pca", states, truth)
    with pytest.raises(DataError, match="zero-shot answers are all the same"):
        orient(probe, states, np.log(np.tile([0.9, 0.1], (20, 1))))
    with pytest.raises(ValueError, match=r"\(19, 2\) for 20"):
        orient(probe, states, zero_shot(truth[1:]))


@pytest.mark.parametrize("kind", PROBES)
def test_gold_reaches_the_supervised_probe_alone(kind):
    states, truth = world(20, 3)
    if kind == "supervised":
        with pytest.raises(ConfigError, match="probe supervised needs gold labels"):
            fit_probe(kind, states, gold=None, rng=rng())
    else:
        with pytest.raises(ConfigError, match=f"probe {kind} was given gold labels"):
            fit_probe(kind, states, gold=truth.tolist(), rng=rng())


@pytest.mark.parametrize("kind", PROBES)
def test_the_generator_alone_decides(kind):
    states, truth = world(60, 3)
    first, again, other = (fitted(kind, states, truth, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.weights, again.weights)
    assert (first.bias, first.loss) == (again.bias, again.loss)
    assert (first.weights != other.weights).any() == (kind in ("ccs", "random"))


@pytest.mark.parametrize("kind", PROBES)
def test_a_layer_that_does_not_vary_says_nothing(kind):
    """The embedding of a label's last token is the same for all examples; it must not become noise or an error."""
    states = np.tile(rng(3).normal(scale=100, size=(1, 2, WIDTH)), (31, 1, 1)).astype(np.float32)
    truth = np.arange(31) % 2
    probe = orient(fitted(kind, states, truth), states, zero_shot(truth))
    # Nor may it be read where it does vary later.
    log_probs = probe.log_probs(states + rng(5).normal(size=states.shape))
    np.testing.assert_array_equal(log_probs, np.tile(log_probs[:1], (31, 1)))
    np.testing.assert_allclose(np.exp(log_probs[0]), [16 / 31, 15 / 31] if kind == "supervised" else 0.5, atol=1e-3)


def test_data_that_cannot_be_fitted_is_explained():
    states, truth = world(20, 3)
    three = np.zeros((20, 3, WIDTH))
    with pytest.raises(TaskError, match="two labels apart, the task has 3"):
        fit_probe("pca", three, gold=None, rng=rng())
    with pytest.raises(TaskError, match="the task has 3"):
        fitted("pca", states, truth).log_probs(three)
    with pytest.raises(DataError, match="one label alone"):
        fit_probe("supervised", states, gold=[1] * 20, rng=rng())
    with pytest.raises(DataError, match="to 1 examples"):
        fit_probe("pca", states[:1], gold=None, rng=rng())
    with pytest.raises(ValueError, match="19 gold labels for 20 examples"):
        fit_probe("supervised", states, gold=truth[1:].tolist(), rng=rng())
    with pytest.raises(ConfigError, match="unknown probe 'mlp'; choose from ccs, pca, random, supervised"):
        fit_probe("mlp", states, gold=None, rng=rng())


def layered(n, seed):
    """Three layers: nothing, the planted direction, and a weaker one."""
    parts = [world(n, seed, strength=strength) for strength in (0.0, 4.0, 1.5)]
    return np.stack([states for states, _ in parts], axis=2), parts[0][1]


@pytest.mark.parametrize("kind", PROBES)
def test_a_sweep_reports_every_layer(kind):
    train, gold = layered(200, 1)
    test, truth = layered(500, 2)
    seen = gold.tolist() if kind == "supervised" else None
    sweep = sweep_layers(kind, train, test, reference=zero_shot(gold), truth=truth.tolist(), gold=seen, rng=rng())
    assert [entry.layer for entry in sweep] == [0, 1, 2]
    assert sweep[0].accuracy == pytest.approx(0.5, abs=0.1)
    if kind != "random":
        assert sweep[1].accuracy > 0.97
    if kind == "ccs":
        assert lowest_loss_layer(sweep) == 1
    else:
        with pytest.raises(ConfigError, match="only ccs has a loss"):
            lowest_loss_layer(sweep)
    with pytest.raises(ValueError, match="and 499 true labels"):
        sweep_layers(kind, train, test, reference=zero_shot(gold), truth=truth[1:].tolist(), gold=seen, rng=rng())


def test_layers_are_chosen_without_results():
    assert [middle_layer(n) for n in (13, 31, 33)] == [6, 15, 16]
    sweep = [LayerAccuracy(0, 0.9, 0.3), LayerAccuracy(1, 0.5, 0.1), LayerAccuracy(2, 0.7, 0.2)]
    assert lowest_loss_layer(sweep) == 1


class Listening(FakeBackend):
    """A world that also has states: the tokens' number, their last one and their first."""

    def hidden_states(self, sequences, *, on_progress=None):
        rows = [[[len(s)] * 2, [s[-1]] * 2, [s[0]] * 2] for s in sequences]
        return States(np.asarray(rows, dtype=np.float32), Cost(prompts=len(sequences)))


def encoder_for(examples, tokenizer, folder, *, labels="[no, yes]"):
    path = folder / "x.csv"
    path.write_text("text\n" + "".join(f"{text}\n" for text in examples))
    names = labels.strip("[]").split(", ")
    task = load_task({"template": "{text}:", "labels": names, "preamble": "P. "})
    return PromptEncoder(tokenizer, task, load_dataset(str(path), task))


def test_states_are_read_at_the_last_token_of_either_label(tmp_path):
    backend = Listening()
    encoder = encoder_for(["one", "three"], backend.tokenizer, tmp_path)
    states = contrast_states(backend, encoder)
    assert states.values.shape == (2, 2, 3, 2)
    # "P. one: no" and "P. one: yes", then the same with "three".
    assert states.values[:, :, 0, 0].tolist() == [[10, 11], [12, 13]]
    assert states.values[:, :, 1, 0].tolist() == [[ord("o"), ord("s")]] * 2
    assert (states.values[:, :, 2] == ord("P")).all()
    assert states.cost.prompts == 4


def test_tasks_and_models_without_pairs_of_states_are_refused(tmp_path):
    three = encoder_for(["one"], FakeBackend().tokenizer, tmp_path, labels="[no, yes, perhaps]")
    with pytest.raises(TaskError, match="the task has 3"):
        contrast_states(Listening(), three)
    two = encoder_for(["one"], FakeBackend().tokenizer, tmp_path)
    with pytest.raises(BackendError, match="the hidden states of model 'fake' cannot be read; use bundled"):
        contrast_states(FakeBackend(), two)


def test_the_bundled_model_on_real_reviews(shared_data):
    source, task = str(shared_data / "movie_review_sentiment.jsonl"), load_task("sentiment")
    dataset = load_dataset(source, task, limit=40)
    gold = load_gold(source, task, limit=40).labels
    truth = np.asarray([gold[example.id] for example in dataset.examples])
    backend = load_backend("bundled")
    encoder = PromptEncoder(backend.tokenizer, task, dataset)
    seen = []
    states = contrast_states(backend, encoder, on_progress=seen.append)
    assert states.values.shape == (40, 2, 31, 576)
    assert np.isfinite(states.values).all()
    assert (
        sum(seen)
        == states.cost.tokens_computed
        == sum(2 * len(encoder.start + encoder.query(i)) + sum(map(len, encoder.candidates)) for i in range(40))
    )
    # Where labels are single tokens, embeddings at the last token know nothing of the review.
    assert [len(candidate) for candidate in encoder.candidates] == [1, 1]
    assert (states.values[:, :, 0] == states.values[:1, :, 0]).all()
    middle = states.values[:, :, middle_layer(31)]
    assert 0.3 < truth.mean() < 0.7
    assert accuracy(fitted("supervised", middle, truth), middle, truth) > 0.9
    for kind in PROBES:
        log_probs = orient(fitted(kind, middle, truth), middle, zero_shot(truth)).log_probs(middle)
        np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1)
        assert 0.1 < np.mean(log_probs.argmax(axis=1)) < 0.9
