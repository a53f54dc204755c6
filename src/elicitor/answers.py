"""What a model answered on a test set under one condition, as it is computed, sent by workers and kept on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from elicitor.backends.base import Cost
from elicitor.baselines import Condition
from elicitor.objective import Array
from elicitor.probes import LayerAccuracy


@dataclass(frozen=True, slots=True)
class Answers:
    """What the model answered on the test set under one condition.

    Attributes:
        condition: Which.
        log_probs: Shape (seeds, test examples, labels), normalised over the labels.
        shots: Demonstrations of each seed.
        label_accuracy: Share of the demonstrations' labels that agree with gold, by seed; None without gold or labels.
        cost: Of all seeds, making the labels included where the condition makes them.
        layers: Accuracy of a probe at each layer under the first seed, where a sweep was asked for.
    """

    condition: Condition
    log_probs: Array
    shots: list[int]
    label_accuracy: list[float | None]
    cost: Cost
    layers: list[LayerAccuracy] | None = None

    def to_json(self) -> dict[str, Any]:
        """The answers as JSON values; floats keep every bit."""
        return {**asdict(self), "log_probs": self.log_probs.tolist()}

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """Answers of several seeds under one condition, from those of each seed alone; of a single part, that part."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            parts[0].condition,
            np.concatenate([part.log_probs for part in parts]),
            [shots for part in parts for shots in part.shots],
            [accuracy for part in parts for accuracy in part.label_accuracy],
            sum((part.cost for part in parts), Cost()),
        )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Answers:
        """Rebuild from `to_json`."""
        log_probs = np.asarray(values["log_probs"], dtype=np.float64)
        layers = values["layers"] and [LayerAccuracy(**layer) for layer in values["layers"]]
        return cls(**{**values, "log_probs": log_probs, "cost": Cost(**values["cost"]), "layers": layers})
