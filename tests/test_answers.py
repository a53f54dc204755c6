import json

import numpy as np

from elicitor.answers import Answers
from elicitor.backends.base import Cost
from elicitor.probes import LayerAccuracy


def answers(seed, **changes):
    log_probs = np.log(np.random.default_rng(seed).dirichlet([1, 1], size=(1, 3)))
    cost = Cost(prompts=seed, tokens_computed=10 * seed, tokens_reused=1, seconds=0.1)
    fields = {"condition": "found", "log_probs": log_probs, "shots": [seed], "label_accuracy": [None], "cost": cost}
    return Answers(**(fields | changes))


def test_seeds_that_were_answered_apart_stand_in_their_order():
    parts = [answers(3), answers(1, label_accuracy=[0.5])]
    whole = Answers.joined(parts)
    np.testing.assert_array_equal(whole.log_probs, np.stack([part.log_probs[0] for part in parts]))
    assert (whole.shots, whole.label_accuracy) == ([3, 1], [None, 0.5])
    assert (whole.cost.prompts, whole.cost.tokens_computed) == (4, 40)


def test_a_single_part_is_the_whole_with_its_layers():
    probe = answers(2, condition="pca_probe", layers=[LayerAccuracy(0, 0.75, None)])
    assert Answers.joined([probe]) is probe
    assert Answers.from_json(json.loads(json.dumps(probe.to_json()))).to_json() == probe.to_json()
