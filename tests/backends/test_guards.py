"""What would be silently wrong if nobody looked: each case is made to happen, and must be named."""

import json

import numpy as np
import pytest
from world_server import World, prompts

from elicitor import load_backend
from elicitor.backends.fake import FakeBackend
from elicitor.backends.score_cache import cached
from elicitor.data import load_dataset
from elicitor.errors import BackendError, LabelTokenError, ResumeMismatchError
from elicitor.evaluation import evaluate
from elicitor.files import read_rows
from elicitor.labelling import run
from elicitor.notices import ElicitorWarning
from elicitor.prompts import PromptEncoder
from elicitor.tasks import load_task

SHORT = (b"N", b"Y")
TASK = {"template": "{text}:", "labels": {"no": "N", "yes": "Y"}}


class Stop(Exception):
    pass


def stop_at(iteration):
    def stop(step):
        if step.state.iteration == iteration:
            raise Stop

    return stop


def events(folder, kind):
    return [event for event in read_rows(folder / "events.jsonl") if event["kind"] == kind]


def change_weights(folder, change, *, dtype="float32"):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    with torch.no_grad():
        change(model)
    model.save_pretrained(folder)


def test_a_model_whose_scores_are_no_numbers_gives_no_labels(tiny_model, settings, tmp_path):
    change_weights(tiny_model, lambda model: model.lm_head.weight.fill_(float("nan")))
    with pytest.raises(
        BackendError, match=r"in float32 gave \d+ log-probabilities that are not finite; check the weights"
    ):
        run(settings(str(tiny_model)), tmp_path / "run")
    assert not (tmp_path / "run" / "labels.jsonl").exists()


def test_activations_too_large_for_float16_are_named_with_the_way_out(tiny_model, settings, tmp_path):
    """Float32 and bfloat16 reach 3e38; what a layer adds here is beyond 65504, where float16 ends."""
    torch = pytest.importorskip("torch")

    def inflate(model):
        for layer in model.model.layers:
            layer.mlp.down_proj.weight.copy_(torch.sign(layer.mlp.down_proj.weight) * 6e4)
            layer.mlp.up_proj.weight.mul_(100)

    change_weights(tiny_model, inflate)
    config = settings(str(tiny_model))
    for dtype in ("float32", "bfloat16"):
        wide = config.model_copy(update={"backend": config.backend.model_copy(update={"dtype": dtype})})
        assert run(wide, tmp_path / dtype).labels
    half = config.model_copy(update={"backend": config.backend.model_copy(update={"dtype": "float16"})})
    with pytest.raises(
        BackendError, match=r"in float16 gave .* set backend\.dtype=bfloat16 or float32: float16 holds no"
    ):
        run(half, tmp_path / "float16")


def test_a_draw_from_what_is_no_distribution_is_refused(tiny_model):
    """The last token of the vocabulary used to be drawn."""
    change_weights(tiny_model, lambda model: model.lm_head.weight.fill_(float("nan")))
    model = load_backend(str(tiny_model))
    with pytest.raises(BackendError, match=r"in float32 gave a next-token distribution that is not finite"):
        model.generate((5,), max_new_tokens=2, temperature=1.0, stop=(), rngs=[np.random.default_rng(0)])


@pytest.mark.parametrize(("search", "n"), [("icm", 10), ("icm", 5), ("bootstrap", 70)])
def test_a_model_that_thinks_of_other_words_is_warned_about_once(tiny_model, settings, tmp_path, search, n):
    """In the midst of a search, at its end where it is short, and at its start where that asks about everything."""
    config = settings(str(tiny_model), task={"template": "{text}:", "labels": {"no": " nein", "yes": " jawohl"}})
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"id": f"e{i}", "text": f"t{i}"}) + "\n" for i in range(n)))
    bootstrap = config.bootstrap.model_copy(update={"rounds": 1})
    icm = config.icm.model_copy(update={"iterations": 2 if n == 5 else 15})
    done = run(config.model_copy(update={"search": search, "bootstrap": bootstrap, "icm": icm}), tmp_path / "run")
    (warned,) = (event for event in events(done.path, "warned") if "probability together" in event["message"])
    assert done.metrics["label_mass"] < 1e-3
    assert warned["message"] in done.metrics["warnings"]
    assert "choose the words it would write there" in warned["message"]


def test_a_model_that_thinks_of_the_labels_is_not(settings, tmp_path):
    done = run(settings("fake"), tmp_path / "run")
    assert done.metrics["label_mass"] == pytest.approx(1.0)
    assert done.metrics["warnings"] == []
    tokens = done.metrics["scoring"].pop("tokens_computed")
    assert done.metrics["scoring"] == {"repeat_difference": 0.0, "batch_difference": 0.0, "failure": None}
    assert 0 < tokens < 0.1 * done.metrics["cost"]["tokens_computed"]


def test_mass_and_check_reach_the_console(elicitor, tiny_model, tmp_path):
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"id": i, "text": f"t{i}"}) + "\n" for i in range(6)))
    (tmp_path / "task.yaml").write_text('template: "{text}:"\nlabels: {no: " nein", yes: " jawohl"}\n')
    code, out, err = elicitor("label", "x.jsonl", "--task", "task.yaml", "--model", tiny_model, "-o", "run")
    assert code == 0
    assert "the labels have 0% of the model's probability; a prompt scored twice differs by 0 nats" in out
    for printed in (out, err):
        assert "warning: the labels have" in printed


class Restless(FakeBackend):
    """Says something a little different each time it is asked about more than ``alone`` prompts."""

    def __init__(self, *, size, alone=0):
        super().__init__()
        object.__setattr__(self, "shift", (size, alone, []))

    def score(self, prompts, *, keep=False, on_progress=None):
        scores = super().score(prompts, keep=keep, on_progress=on_progress)
        size, alone, calls = self.shift
        calls.append(len(prompts))
        if len(prompts) > alone:
            scores.log_probs[:, 0] -= size * len(calls)
        return scores


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_model_that_answers_differently_when_asked_again(settings, tmp_path, store, on_disk):
    model = Restless(size=0.05)
    done = run(settings("fake"), tmp_path / "run", backend=cached(model, store) if on_disk else model)
    # Scored first and fourth; a cache on disk would have hidden it.
    assert done.metrics["scoring"]["repeat_difference"] == pytest.approx(0.15)
    assert any("not deterministic: one prompt scored twice differs by 0.15 nats" in w for w in done.metrics["warnings"])


def test_a_model_whose_answers_depend_on_the_prompts_beside_them(settings, tmp_path):
    done = run(settings("fake"), tmp_path / "run", backend=Restless(size=0.2, alone=1))
    scoring = done.metrics["scoring"]
    assert scoring["repeat_difference"] == 0.0
    assert scoring["batch_difference"] > 0.5
    assert [w for w in done.metrics["warnings"] if "depend on the prompts beside it" in w]


def test_a_check_that_a_server_refuses_is_reported_and_stops_nothing(start, settings, tmp_path):
    """The check's prompts hold one demonstration; behind more of them the server may well list the labels."""
    refused = {"status": 400, "body": {"error": "too short"}}

    def fault(number, path):
        return refused if path == "/v1/completions" and world.asked == 2 else None

    class Counting(World):
        @property
        def asked(self):
            return sum(path == "/v1/completions" for path, _, _ in self.requests)

    world = Counting(labels=SHORT)
    world.fault = fault
    done = run(settings(start(world)), tmp_path / "run")
    assert done.metrics["scoring"]["repeat_difference"] is None
    assert "too short" in done.metrics["scoring"]["failure"]


def test_a_run_is_checked_once_however_often_it_goes_on(settings, tmp_path):
    whole = run(settings("fake"), tmp_path / "whole")
    for iteration in (3, 6):
        with pytest.raises(Stop):
            run(settings("fake"), tmp_path / "run", resume=True, observer=stop_at(iteration))
    done = run(settings("fake"), tmp_path / "run", resume=True)
    assert len(events(done.path, "checked")) == 1
    for name in ("scoring", "label_mass", "warnings"):
        assert done.metrics[name] == whole.metrics[name]


def test_other_weights_in_the_same_folder_end_a_resumed_run_and_are_noted_by_eval(tiny_model, settings, tmp_path):
    config = settings(str(tiny_model))
    done = run(config, tmp_path / "done")
    with pytest.raises(Stop):
        run(config, tmp_path / "run", observer=stop_at(3))
    test = tmp_path / "test.jsonl"
    rows = [{"id": f"t{i}", "text": f"test {i}", "label": ["no", "yes"][i % 2]} for i in range(6)]
    test.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"conditions": ["zero_shot", "found"]}
    note = "the model that is asked has other weights, precision or device than the one that found the labels"
    assert note not in evaluate(done, test, **options).notes
    change_weights(tiny_model, lambda model: model.lm_head.weight.add_(0.5))
    with pytest.raises(ResumeMismatchError, match=r"the manifest entry model|manifest entry"):
        run(config, tmp_path / "run", resume=True)
    assert note in evaluate(done, test, **options).notes


def test_other_texts_under_the_same_ids_end_a_resumed_run(settings, tmp_path):
    config = settings("fake")
    with pytest.raises(Stop):
        run(config, tmp_path / "run", observer=stop_at(3))
    (tmp_path / "x.jsonl").write_text((tmp_path / "x.jsonl").read_text().replace("text 3", "text three"))
    with pytest.raises(ResumeMismatchError, match="data"):
        run(config, tmp_path / "run", resume=True)


@pytest.mark.parametrize("command", ["eval", "audit", "review", "train sft", "export"])
def test_other_texts_under_the_same_ids_are_no_longer_what_the_labels_are_of(elicitor, settings, tmp_path, command):
    pytest.importorskip("trl")
    run(settings("fake"), tmp_path / "run")
    more = {"eval": ["--test", "x.jsonl"], "export": ["--format", "dataset", "-o", "out"], "train sft": ["-o", "out"]}
    words = [*command.split(), "run", *more.get(command, [])]
    file = tmp_path / "x.jsonl"
    rows = [json.loads(line) | {"text": f"another {k}"} for k, line in enumerate(file.read_text().splitlines())]
    file.write_text("".join(json.dumps(row | {"label": "yes"}) + "\n" for row in rows))
    code, _, err = elicitor(*words)
    assert code == 2
    assert "x.jsonl is no longer what run labelled: texts, ids, groups or keys have changed" in err


def saved_tokenizer(folder, *, normalizer=None, **special):
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    words = tokenizers.Tokenizer(tokenizers.models.BPE())
    if normalizer:
        words.normalizer = normalizer
    words.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=280, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    words.train_from_iterator(["a text: no yes"], trainer)
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)


def test_a_tokenizer_without_start_and_end_tokens_reads_the_text_alone(tiny_model, settings, tmp_path):
    for file in tiny_model.glob("*token*"):
        file.unlink()
    saved_tokenizer(tiny_model)
    model = load_backend(str(tiny_model))
    assert model.tokenizer.start_ids == ()
    done = run(settings(str(tiny_model)), tmp_path / "run")
    assert len(done.labels) == 10
    config = settings(str(tiny_model))
    task = load_task(TASK)
    encoder = PromptEncoder(model.tokenizer, task, load_dataset(config.data, task))
    assert model.tokenizer.decode([t for s in encoder.prompt_with([], 0).segments for t in s]) == "text 0:"


def test_labels_that_the_tokenizer_makes_equal_are_refused(tiny_model, settings, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    for file in tiny_model.glob("*token*"):
        file.unlink()
    saved_tokenizer(tiny_model, normalizer=tokenizers.normalizers.Lowercase())
    task = {"template": "{text}:", "labels": {"no": " Yes", "yes": " yes"}}
    with pytest.raises(LabelTokenError, match=r"the tokens of verbalizer ' Yes' begin those of ' yes'"):
        run(settings(str(tiny_model), task=task), tmp_path / "run")


def test_an_alias_is_named_and_bound_to_what_it_stands_for(start):
    world = World(labels=SHORT, answers_as="world-2026-01")
    with pytest.warns(ElicitorWarning, match="answers as model 'world-2026-01' where 'world' was asked for"):
        backend = load_backend(start(world))
    assert "world-2026-01" in backend.fingerprint
    backend.score(prompts(SHORT))
    world.answers_as = "world-2026-07"
    with pytest.raises(BackendError, match=r"answers as model 'world-2026-07' now, it answered as 'world-2026-01'"):
        backend.score(prompts(SHORT))


def test_a_server_that_is_started_anew_with_another_model_is_noticed(start, settings, tmp_path):
    world = World(labels=SHORT)

    def exchange(step):
        if step.state.iteration == 4:
            world.answers_as = "moon"

    with pytest.raises(BackendError, match="answers as model 'moon' now"):
        run(settings(start(world)), tmp_path / "run", observer=exchange)


def test_a_server_that_counts_no_tokens_is_warned_about(start):
    with pytest.warns(ElicitorWarning, match="does not tell how many prompt tokens it reads"):
        load_backend(start(World(labels=SHORT, usage=False)))


def test_code_that_comes_with_a_model_is_warned_about():
    with pytest.warns(ElicitorWarning, match="runs with all of your rights"):
        load_backend("fake", trust_remote_code=True)


def test_labels_beyond_a_servers_list_are_an_error_never_a_number(start, settings, tmp_path):
    world = World(labels=SHORT, exact=False, max_top=3, ahead=3)
    with pytest.raises(BackendError, match="the label is unknown"):
        run(settings(start(world), top_k=3), tmp_path / "run")
    assert not (tmp_path / "run" / "labels.jsonl").exists()
