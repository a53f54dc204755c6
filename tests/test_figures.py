import sys

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from elicitor import cli, figures
from elicitor.ablation import Ablation, Variant, VariantResult
from elicitor.backends.base import Cost
from elicitor.errors import ConfigError
from elicitor.evaluation import ConditionResult, Evaluation
from elicitor.figures import bar_figure, draw
from elicitor.metrics import Estimate
from elicitor.report.views import AblationView, NamedResult, Views


def estimate(value, *, spread=0.1, **changes):
    fields = {"lower": value - spread, "upper": value + spread, "n": 40, "groups": 20, "seeds": 3}
    return Estimate(value, **(fields | changes))


def evaluation(model="small", **values):
    rows = [
        ConditionResult(
            condition=name,
            demonstrations=8,
            label_accuracy=None,
            raw=one if isinstance(one, Estimate) else estimate(one),
            calibrated=estimate(0.99),
            auroc=None,
            calibration_error=estimate(0.2),
            gap_recovered=None,
            found_less_this=None,
            cost=Cost(),
        )
        for name, one in values.items()
    ]
    return Evaluation("a_task", model, 2, rows, None, Cost(), "none", [0, 1, 2], [])


@pytest.fixture
def axes(monkeypatch):
    """Axes of every figure that is written."""
    kept = []
    whole = Figure.savefig

    def keep(figure, *arguments, **options):
        kept.extend(figure.axes)
        whole(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return kept


def test_bars_stand_as_high_as_accuracies_with_their_intervals(axes, tmp_path):
    results = [
        evaluation(zero_shot=0.5, found=0.8),
        evaluation(zero_shot=0.6, golden=Estimate(0.9, None, None, 4, 1, 1)),
    ]
    bar_figure(results, ["first", "$5 & more"], tmp_path / "bars.svg")
    (drawn,) = axes
    by_name = {container.get_label(): container for container in drawn.containers if container.get_label()[0] != "_"}
    assert [bar.get_height() for bar in by_name["zero_shot"]] == [0.5, 0.6]
    assert [bar.get_height() for bar in by_name["found"]] == [0.8]
    lower, upper = by_name["found"].errorbar.lines[2][0].get_segments()[0][:, 1]
    assert (lower, upper) == pytest.approx((0.7, 0.9))
    lower, upper = by_name["golden"].errorbar.lines[2][0].get_segments()[0][:, 1]
    assert lower == upper == 0.9
    assert "$5 &amp; more" in (tmp_path / "bars.svg").read_text()


def test_one_task_under_several_models_is_drawn_over_models(axes, tmp_path):
    views = Views(
        ["a", "b"],
        results=[
            NamedResult("a", evaluation("small", found=0.6, golden=0.7)),
            NamedResult("b", evaluation("large", found=0.8, golden=0.9)),
        ],
    )
    assert draw(views, tmp_path / "both.png") == ["bars", "scaling"]
    scaling = axes[1]
    assert [tick.get_text() for tick in scaling.get_xticklabels()] == ["small", "large"]
    assert [list(container.lines[0].get_ydata()) for container in scaling.containers] == [[0.6, 0.8], [0.7, 0.9]]
    assert "n = 40 in 20 groups; seeds 0, 1, 2" in scaling.texts[0].get_text()
    assert draw(views, tmp_path / "one.pdf", only=["scaling"]) == ["scaling"]
    assert (tmp_path / "one.pdf").read_bytes()[:4] == b"%PDF"


def test_a_long_caption_leaves_the_bars_their_room(axes, tmp_path):
    names = [f"a task with a name of its own, number {i}" for i in range(6)]
    results = [NamedResult(name, evaluation(found=estimate(0.6, n=40 + i))) for i, name in enumerate(names)]
    draw(Views(names, results=results), tmp_path / "bars.png", only=["bars"])
    (drawn,) = axes
    text = drawn.texts[0].get_text()
    assert all(f"n = {40 + i}" in text.replace("\n", " ") for i in range(6))
    assert "\n" in text
    assert drawn.get_position().width > 0.8
    whole = drawn.figure.bbox
    canvas = FigureCanvasAgg(drawn.figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    assert drawn.texts[0].get_window_extent(renderer).x1 < whole.x1
    assert drawn._left_title.get_window_extent(renderer).y1 <= whole.y1


def test_ablations_stand_beside_their_base(axes, tmp_path):
    rows = [
        VariantResult(Variant(factor, value), estimate(accuracy), None, 1.0, 0.0, 0.5, Cost())
        for factor, value, accuracy in (("base", "", 0.8), ("init", "golden", 0.9), ("init", "wrong", 0.4))
    ]
    views = Views(["abl"], ablations=[AblationView("abl", Ablation(tmp_path, [0, 1, 2], rows))])
    assert draw(views, tmp_path / "ablation.svg") == ["ablation"]
    (drawn,) = axes
    points = [(container.lines[0].get_xdata()[0], container.lines[0].get_ydata()[0]) for container in drawn.containers]
    assert points == [(0.4, 0), (0.9, 1), (0.8, 2)]
    assert [tick.get_text() for tick in drawn.get_yticklabels()] == ["init=wrong", "init=golden", "base"]
    assert drawn.lines[-1].get_xdata()[0] == 0.8


def test_what_cannot_be_drawn_is_refused(tmp_path):
    views = Views(["a"], results=[NamedResult("a", evaluation(found=0.6))])
    with pytest.raises(ConfigError, match=r"no format that can be drawn; end it in \.png, \.pdf, \.svg"):
        draw(views, tmp_path / "x.jpeg")
    with pytest.raises(ConfigError, match="hold nothing for figure 'utility'; choose from bars"):
        draw(views, tmp_path / "x.png", only=["utility"])
    with pytest.raises(ConfigError, match="hold nothing for a figure"):
        draw(Views([]), tmp_path / "x.png")
    with pytest.raises(ConfigError, match="cannot be written"):
        draw(views, tmp_path / "nowhere" / "x.png")


def test_without_matplotlib_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"pip install 'elicitor\[eval\]'"):
        figures.draw(Views([]), tmp_path / "x.png")


def test_the_command_says_what_it_drew(monkeypatch, capsys, tmp_path):
    from elicitor.config import build_config
    from elicitor.labelling import run

    (tmp_path / "x.jsonl").write_text("".join(f'{{"id": "e{i}", "text": "text {i}"}}\n' for i in range(12)))
    run(build_config(flags={"data": str(tmp_path / "x.jsonl"), "task": "sentiment", "model": "fake"}), tmp_path / "run")
    monkeypatch.setattr(sys, "argv", ["elicitor", "plot", str(tmp_path / "run"), "-o", str(tmp_path / "way.png")])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert not left.value.code
    assert capsys.readouterr().out == f"utility: {tmp_path / 'way.png'}\n"
    assert (tmp_path / "way.png").read_bytes()[1:4] == b"PNG"
