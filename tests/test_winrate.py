import numpy as np
import pytest

from elicitor.backends.fake import FakeBackend
from elicitor.errors import ConfigError
from elicitor.winrate import Duel, Verdicts, language_judge, reward_judge, summarize, win_rate

DUELS = [Duel("p", "aaa", "b"), Duel("p", "a", "bb"), Duel("q", "a", "b"), Duel("r", "aaaa", "bb")]


def figures(leads, duels=DUELS):
    verdicts = Verdicts(np.array(leads, dtype=float))
    return summarize(duels, verdicts, names=("x", "y"), judge="j", rng=np.random.default_rng(0))


def test_one_order_to_the_letter():
    result = figures([[2.0, -1.0, 0.0, 3.0]])
    assert result.win_rate.value == (1 + 0 + 0.5 + 1) / 4
    assert (result.win_rate.n, result.win_rate.groups) == (4, 3)
    assert (result.shown_first, result.agreement, result.draws) == (None, None, 0.25)
    assert result.longer == 1.0
    assert result.mean_characters == (9 / 4, 6 / 4)


def test_two_orders_are_half_a_vote_each():
    # Leads are towards the first policy: it is shown first in the first row and second in the second.
    result = figures([[1.0, 1.0, -1.0, 1.0], [1.0, -1.0, -1.0, -1.0]])
    assert result.win_rate.value == (1 + 0.5 + 0 + 0.5) / 4
    assert result.agreement == 0.5
    assert result.draws == 0.5
    assert result.shown_first is not None
    assert result.shown_first.value == (0.5 + 1 + 0.5 + 1) / 4


def test_a_judge_that_always_prefers_what_comes_first_calls_all_a_draw():
    result = figures([[1.0] * 4, [-1.0] * 4])
    assert (result.win_rate.value, result.draws) == (0.5, 1.0)
    assert result.shown_first is not None
    assert result.shown_first.value == 1.0
    assert result.agreement == 0.0


def test_five_wins_of_five_are_not_certain():
    result = figures([[1.0] * 5], [Duel(str(k), "a", "b") for k in range(5)])
    assert str(result.win_rate) == "1.000 [0.566, 1.000]"


def test_a_seed_that_no_generator_takes_is_refused():
    with pytest.raises(ConfigError, match="seeds got -1"):
        win_rate("fake", "fake", "prompts.jsonl", judges=["fake"], seed=-1)


def test_changing_sides_turns_the_win_rate_round():
    leads = np.array([[1.0, 2.0, -1.0, 0.0], [1.0, -2.0, 1.0, 0.0]])
    turned = [Duel(duel.prompt, duel.second, duel.first) for duel in DUELS]
    there, back = figures(leads), figures(-leads[::-1], turned)
    assert there.win_rate.value + back.win_rate.value == pytest.approx(1)
    assert there.longer == back.longer
    assert there.shown_first is not None
    assert back.shown_first is not None
    assert there.shown_first.value == back.shown_first.value


def test_a_reward_judges_without_an_order():
    judge = reward_judge(lambda prompts, responses: [float(len(text)) for text in responses])
    assert judge(DUELS).leads.tolist() == [[2.0, -1.0, 0.0, 2.0]]


def test_a_language_model_sees_both_orders():
    asked = []

    class Spy:
        def __getattr__(self, name):
            return getattr(FakeBackend(), name)

        def score(self, prompts, **options):
            backend = FakeBackend()
            asked.extend(backend.tokenizer.decode(sum(prompt.segments, ())) for prompt in prompts)
            return backend.score(prompts, **options)

    judge = language_judge(Spy())
    leads = judge(DUELS).leads
    assert leads.shape == (2, 4)
    assert "Response A: aaa\nResponse B: b\n" in asked[0]
    assert "Response A: b\nResponse B: aaa\n" in asked[4]
    turned = judge([Duel(duel.prompt, duel.second, duel.first) for duel in DUELS]).leads
    assert leads == pytest.approx(-turned[::-1])
