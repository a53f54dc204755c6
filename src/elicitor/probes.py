"""Probes on hidden states: linear readings of what a model holds inside, with and without gold.

Each example is shown once with either label behind it; a probe reads the label off the pair of hidden states. The
unsupervised kinds never see gold, and gold given to them is an error. They find a direction but not which of its ends
means which label: `orient` settles that by the model's own zero-shot answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from elicitor.backends.base import Backend, Progress, States, StatesBackend
from elicitor.errors import BackendError, ConfigError, DataError, TaskError
from elicitor.objective import Array, normalize
from elicitor.prompts import PromptEncoder

ProbeKind = Literal["ccs", "pca", "random", "supervised"]
PROBES: tuple[ProbeKind, ...] = get_args(ProbeKind)
SUPERVISED: frozenset[ProbeKind] = frozenset(("supervised",))
"""Kinds that read gold labels of the training examples."""

PairStates = NDArray[np.floating]
"""Shape (examples, 2, width): one layer's state behind either label."""
LayeredStates = NDArray[np.floating]
"""Shape (examples, 2, layers + 1, width)."""

RESTARTS = 10
"""CCS is fitted from so many random starts at once, and the one of lowest loss is kept (Burns et al. 2022)."""
STEPS = 1000
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-2
"""As in the paper's released code. Longer training lowers the loss further where there are fewer examples than dimensions,
and the probe with it."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A fitted probe for one layer.

    Attributes:
        kind: Which.
        mean: Shape (2, width): mean of either side over the training examples.
        scale: Shape (2, width): their standard deviation; infinite where they do not vary, so that nothing is read there.
        weights: Shape (width,), on normalised states (ccs) or on the difference of a normalised pair (the others).
        bias: Added to what the weights give.
        loss: CCS's own loss on the training examples as it was fitted; None for the others.
    """

    kind: ProbeKind
    mean: Array
    scale: Array
    weights: Array
    bias: float
    loss: float | None = None

    def log_probs(self, states: PairStates) -> Array:
        """Label log-probabilities of examples.

        For ccs the probability of label 1 is the mean of p1 and 1 - p0, where p0 and p1 say how true the example looks
        behind either label (Burns et al. 2022, section 2.2). For pca and random only the order of examples and the
        label count: nothing ties their confidence to how often they are right.

        Args:
            states: Shape (examples, 2, width), of the layer the probe was fitted on.

        Returns:
            Shape (examples, 2), in nats, normalised, finite.

        Raises:
            TaskError: If there are not two labels.
        """
        check_binary(states.shape[1])
        sides = (states.astype(np.float64) - self.mean) / self.scale
        if self.kind == "ccs":
            logits = sides @ self.weights + self.bias
            against, favour = _log_sigmoid(-logits), _log_sigmoid(logits)
            label_0 = np.logaddexp(favour[:, 0], against[:, 1]) - np.log(2)
            label_1 = np.logaddexp(favour[:, 1], against[:, 0]) - np.log(2)
        else:
            logits = (sides[:, 1] - sides[:, 0]) @ self.weights + self.bias
            label_0, label_1 = _log_sigmoid(-logits), _log_sigmoid(logits)
        return normalize(np.stack([label_0, label_1], axis=1))


@dataclass(frozen=True, slots=True)
class LayerAccuracy:
    """One layer of a sweep.

    Attributes:
        layer: Index into the layer axis; 0 is the embeddings.
        accuracy: Share of test examples labelled right.
        loss: CCS's loss on the training examples, which needs no gold; None for other kinds.
    """

    layer: int
    accuracy: float
    loss: float | None


def check_binary(n_labels: int) -> None:
    """Refuse tasks that probes cannot do.

    Raises:
        TaskError: If there are not two labels.
    """
    if n_labels != 2:
        raise TaskError(f"probes tell two labels apart, the task has {n_labels}", fix="leave the probes out")


def contrast_states(backend: Backend, encoder: PromptEncoder, *, on_progress: Progress | None = None) -> States:
    """Hidden states of every example with either label behind it, no demonstrations before it.

    Args:
        backend: The model.
        encoder: The data set's encoder.
        on_progress: Called after each forward pass with the tokens it computed.

    Returns:
        States of shape (examples, 2, layers + 1, width), read at the label's last token.

    Raises:
        TaskError: If there are not two labels.
        BackendError: If the model's hidden states cannot be read.
        ContextOverflowError: If an example exceeds the model's window.
    """
    check_binary(len(encoder.candidates))
    if not isinstance(backend, StatesBackend):
        raise BackendError(
            f"the hidden states of model {backend.name!r} cannot be read", fix="use bundled, hf:NAME or gguf:FILE"
        )
    sequences = [
        (*encoder.start, *encoder.query(i), *candidate)
        for i in range(len(encoder.dataset))
        for candidate in encoder.candidates
    ]
    states = backend.hidden_states(sequences, on_progress=on_progress)
    return replace(states, values=states.values.reshape(len(encoder.dataset), 2, *states.values.shape[1:]))


def fit_probe(kind: ProbeKind, states: PairStates, *, gold: Sequence[int] | None, rng: np.random.Generator) -> Probe:
    """Fit a probe. Each side of the pairs is normalised on its own, so that the label's token itself cannot be read.

    Args:
        kind: ``ccs``, contrast-consistent search (Burns et al. 2022); ``pca``, the first principal component of the
            differences (the same paper's CRC-TPC); ``random``, a direction drawn by lot, which on easy data does
            surprisingly well (Roger 2023); ``supervised``, logistic regression on gold, the ceiling.
        states: Shape (examples, 2, width), the training examples.
        gold: Label of each example, for ``supervised`` alone.
        rng: Draws the starts of ccs and the direction of random.

    Returns:
        The probe; the sign of an unsupervised one means nothing before `orient`.

    Raises:
        TaskError: If there are not two labels.
        ConfigError: If gold is missing for ``supervised`` or given to another kind, or scikit-learn is not installed.
        DataError: If there are fewer than two examples, or gold holds one label alone.
        ValueError: If gold and states differ in length.
    """
    _check_fit(kind, states, gold)
    return _fit_layers(kind, states[:, :, None], gold, rng)[0]


def orient(probe: Probe, states: PairStates, reference: Array) -> Probe:
    """Give an unsupervised probe the sign under which it agrees with the model's own zero-shot answers.

    Agreement is the covariance, over the training examples, of the probe's probability of label 1 and the model's
    log-odds of it. What the log-odds have in common does not count, so a model that always prefers one label can still
    tell the ends apart. Choosing the sign by gold instead, as is often done, is information that nobody has.

    Args:
        probe: The probe; a supervised one knows its sign and is returned as it is.
        states: Shape (examples, 2, width), the training examples.
        reference: Shape (examples, 2), zero-shot label log-probabilities of the same examples, normalised or not.

    Returns:
        The probe or its mirror image.

    Raises:
        DataError: If the zero-shot answers are all the same.
        ValueError: If the shapes do not fit.
    """
    if reference.shape != (len(states), 2):
        raise ValueError(f"reference of shape {reference.shape} for {len(states)} examples")
    if probe.kind in SUPERVISED:
        return probe
    log_odds = reference[:, 1] - reference[:, 0]
    if np.ptp(log_odds) == 0:
        raise DataError(
            "the model's zero-shot answers are all the same and say nothing about a probe's sign",
            fix="check the task's template",
        )
    probability = np.exp(probe.log_probs(states)[:, 1])
    if np.mean((probability - probability.mean()) * (log_odds - log_odds.mean())) >= 0:
        return probe
    return replace(probe, weights=-probe.weights, bias=-probe.bias)


def middle_layer(n_layers: int) -> int:
    """The layer to read by default: chosen beforehand, so that no result can have chosen it.

    Args:
        n_layers: Size of the layer axis of the states, embeddings included.

    Returns:
        Index into that axis.
    """
    return n_layers // 2


def sweep_layers(
    kind: ProbeKind,
    train: LayeredStates,
    test: LayeredStates,
    *,
    reference: Array,
    truth: Sequence[int],
    gold: Sequence[int] | None,
    rng: np.random.Generator,
) -> list[LayerAccuracy]:
    """Fit and test a probe on every layer, to report all of them: the best one on the test examples is no result.

    Args:
        kind: See `fit_probe`.
        train: Shape (examples, 2, layers + 1, width).
        test: Shape (test examples, 2, layers + 1, width).
        reference: Shape (examples, 2), zero-shot label log-probabilities of the training examples; see `orient`.
        truth: Gold label of each test example.
        gold: Gold label of each training example, for ``supervised`` alone.
        rng: See `fit_probe`.

    Returns:
        One entry for each layer, ascending.

    Raises:
        ElicitorError: As `fit_probe` and `orient` do.
        ValueError: If the shapes do not fit.
    """
    if len(truth) != len(test) or train.shape[1:] != test.shape[1:]:
        raise ValueError(f"train of shape {train.shape}, test of shape {test.shape} and {len(truth)} true labels")
    _check_fit(kind, train, gold)
    sweep = []
    for layer, fitted in enumerate(_fit_layers(kind, train, gold, rng)):
        probe = orient(fitted, train[:, :, layer], reference)
        answers = probe.log_probs(test[:, :, layer]).argmax(axis=1)
        sweep.append(LayerAccuracy(layer, float(np.mean(answers == np.asarray(truth))), probe.loss))
    return sweep


def lowest_loss_layer(sweep: Sequence[LayerAccuracy]) -> int:
    """The layer on which CCS had its lowest loss on the training examples: a choice that needs no gold.

    Args:
        sweep: What `sweep_layers` gave for ccs.

    Returns:
        Index into the layer axis.

    Raises:
        ConfigError: If the sweep has no losses.
    """
    losses = {entry.layer: entry.loss for entry in sweep if entry.loss is not None}
    if not losses:
        raise ConfigError("only ccs has a loss by which a layer can be chosen", fix="use the middle layer")
    return min(losses, key=lambda layer: losses[layer])


def _check_fit(kind: ProbeKind, states: PairStates | LayeredStates, gold: Sequence[int] | None) -> None:
    check_binary(states.shape[1])
    if kind not in PROBES:
        raise ConfigError(f"unknown probe {kind!r}", fix=f"choose from {', '.join(PROBES)}")
    if kind not in SUPERVISED and gold is not None:
        raise ConfigError(f"probe {kind} was given gold labels", fix="unsupervised probes are fitted without")
    if len(states) < 2:
        raise DataError(f"a probe cannot be fitted to {len(states)} examples", fix="give it at least two")
    if kind in SUPERVISED and gold is None:
        raise ConfigError(f"probe {kind} needs gold labels of its training examples", fix="give gold, or leave it out")


def _fit_layers(
    kind: ProbeKind, states: LayeredStates, gold: Sequence[int] | None, rng: np.random.Generator
) -> list[Probe]:
    """One probe for each layer, of what `_check_fit` let pass; see `fit_probe`."""
    standards = [_standard(states[:, :, layer].astype(np.float64)) for layer in range(states.shape[2])]
    if kind == "ccs":
        return _fit_ccs(states, standards, rng)
    probes = []
    for layer, (mean, scale) in enumerate(standards):
        sides = (states[:, :, layer] - mean) / scale
        difference = sides[:, 1] - sides[:, 0]
        bias = 0.0
        if kind == "pca":
            weights = _unit_spread(_first_component(difference), difference)
        elif kind == "random":
            weights = _unit_spread(rng.standard_normal(difference.shape[1:]), difference)
        else:
            assert gold is not None  # checked
            weights, bias = _fit_supervised(difference, gold)
        probes.append(Probe(kind, mean, scale, weights, bias))
    return probes


def _standard(states: Array) -> tuple[Array, Array]:
    """Mean and standard deviation over examples, the latter infinite for constants; the shape of one example each."""
    mean, scale = states.mean(axis=0), states.std(axis=0)
    # What varies by no more than rounding is constant; to divide by that would make signal out of rounding.
    return mean, np.where(scale > 1e-6 * np.abs(states).max(axis=0), scale, np.inf)


def _unit_spread(direction: Array, difference: Array) -> Array:
    """The direction, so long that what it gives has standard deviation 1 where it varies at all."""
    spread = float((difference @ direction).std())
    return direction / spread if spread > 0 else direction


def _first_component(difference: Array) -> Array:
    """Unit direction of largest variance, shape (width,); its sign is arbitrary."""
    return np.asarray(np.linalg.svd(difference - difference.mean(axis=0), full_matrices=False)[2][0])


def _fit_ccs(states: LayeredStates, standards: Sequence[tuple[Array, Array]], rng: np.random.Generator) -> list[Probe]:
    """Minimise (p1 + p0 - 1)^2 + min(p1, p0)^2 (Burns et al. 2022, section 2.2) on every layer.

    All layers and all restarts are fitted in one loop: Adam treats every number on its own, so they do not mix.
    """
    import torch

    layers, examples, width = len(standards), len(states), states.shape[3]
    bound = width**-0.5
    data = torch.empty(layers, 2 * examples, width)
    weights = torch.empty(layers, width, RESTARTS)
    bias = torch.empty(layers, 1, RESTARTS)
    for layer, (mean, scale) in enumerate(standards):
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        data[layer] = torch.from_numpy((states[:, :, layer] - mean) / scale).reshape(-1, width)
        weights[layer].uniform_(-bound, bound, generator=generator)
        bias[layer].uniform_(-bound, bound, generator=generator)
    weights.requires_grad_()
    bias.requires_grad_()

    def losses() -> torch.Tensor:
        p0, p1 = torch.sigmoid(data @ weights + bias).reshape(layers, examples, 2, RESTARTS).unbind(dim=2)
        return ((p1 + p0 - 1) ** 2 + torch.minimum(p1, p0) ** 2).mean(dim=1)

    optimizer = torch.optim.AdamW([weights, bias], lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    for _ in range(STEPS):
        optimizer.zero_grad()
        losses().sum().backward()
        optimizer.step()
    final, weights, bias = losses().detach(), weights.detach(), bias.detach()
    probes = []
    for layer, (mean, scale) in enumerate(standards):
        best = int(final[layer].argmin())
        direction = weights[layer, :, best].double().numpy()
        probes.append(Probe("ccs", mean, scale, direction, float(bias[layer, 0, best]), float(final[layer, best])))
    return probes


def _fit_supervised(difference: Array, gold: Sequence[int]) -> tuple[Array, float]:
    """Logistic regression on standardised differences; weights, for differences as they are, and bias."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ConfigError("the supervised probe needs scikit-learn", fix="pip install 'elicitor[eval]'") from error
    if len(gold) != len(difference):
        raise ValueError(f"{len(gold)} gold labels for {len(difference)} examples")
    if len(set(gold)) != 2:
        raise DataError("gold of the training examples holds one label alone", fix="give it examples of both")
    _, scale = _standard(difference)
    model = LogisticRegression(max_iter=1000).fit(difference / scale, np.asarray(gold))
    return np.asarray(model.coef_[0] / scale, dtype=np.float64), float(model.intercept_[0])


def _log_sigmoid(logits: Array) -> Array:
    return np.asarray(-np.logaddexp(0.0, -logits))
