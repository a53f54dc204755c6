"""Measure on which small task the bundled model shows what elicitation is: the notebook behind ``elicitor quickstart``.

For every task (a JSONL file with ``id``, ``text``, ``label``) it compares zero-shot, random few-shot, golden few-shot,
bootstrapping and the annealed search, each raw and batch-calibrated, on a test part that no prompt was chosen on. The
scorer here calls transformers directly and is written independently of the package, so it also checks the package.

    python bench/quickstart_tasks.py --model FOLDER --tasks sentiment,spam --json out.json
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

Array = NDArray[np.float64]
CANDIDATES = Path(__file__).parent / "quickstart_candidates"
PACK_TOKENS = 1024


@dataclass(frozen=True)
class Task:
    """Prompt wording of one candidate; demonstrations are the template, the verbalizer and a blank line."""

    template: str
    verbalizers: dict[str, str]


TASKS = {
    "sentiment": Task("Review: {}\nSentiment:", {"-": " negative", "+": " positive"}),
    "spam": Task("Message: {}\nType:", {"ordinary": " normal", "spam": " spam"}),
    "tense": Task("Sentence: {}\nTime:", {"past": " past", "future": " future"}),
    "polite": Task("Sentence: {}\nTone:", {"rude": " rude", "polite": " polite"}),
    "topic": Task("Text: {}\nTopic:", {"sport": " sports", "food": " food"}),
    "subj": Task("Statement: {}\nType:", {"fact": " fact", "opinion": " opinion"}),
    "movie": Task("Review: {}\nSentiment:", {"0": " negative", "1": " positive"}),
}


@dataclass
class Data:
    """A task's texts as token ids, with gold kept for judging only."""

    queries: list[list[int]]
    verbalizers: list[list[int]]
    end: list[int]
    gold: NDArray[np.int64]

    def demonstration(self, i: int, label: int) -> list[int]:
        return self.queries[i] + self.verbalizers[label] + self.end

    def context(self, labelled: Sequence[tuple[int, int]]) -> list[int]:
        return [token for i, label in labelled for token in self.demonstration(i, label)]


class Scorer:
    """Label log-probabilities after a context; neighbouring contexts share one cache, queries share one packed pass."""

    def __init__(self, folder: str) -> None:
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
        self.cache = transformers.DynamicCache(config=self.model.config)
        self.held: list[int] = []
        self.tokens = 0
        bos = self.tokenizer.bos_token_id
        self.start = [bos] if self.tokenizer("a").input_ids[0] == bos else []

    def load(self, rows: Sequence[dict[str, str]], task: Task) -> Data:
        labels = list(task.verbalizers)
        encode = lambda text: self.tokenizer(text, add_special_tokens=False).input_ids  # noqa: E731
        return Data(
            queries=[encode(task.template.format(row["text"])) for row in rows],
            verbalizers=[encode(task.verbalizers[label]) for label in labels],
            end=encode("\n\n"),
            gold=np.array([labels.index(str(row["label"])) for row in rows]),
        )

    def _hidden(self, tokens: list[int], positions: list[int] | None = None, mask: Any = None) -> Any:
        self.tokens += len(tokens)
        return self.model.model(
            input_ids=torch.tensor([tokens]),
            attention_mask=mask,
            position_ids=None if positions is None else torch.tensor([positions]),
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state[0]

    def _crop(self, length: int) -> None:
        if (surplus := self.cache.get_seq_length() - length) > 0:
            self.cache.crop(-surplus)  # transformers 5: a negative number is how many tokens to remove

    def seek(self, context: list[int]) -> None:
        """Make the cache hold exactly this context."""
        shared = 0
        while shared < min(len(self.held), len(context)) and self.held[shared] == context[shared]:
            shared += 1
        self._crop(shared)
        for begin in range(shared, len(context), PACK_TOKENS):
            self._hidden(context[begin : begin + PACK_TOKENS])
        self.held = list(context)

    def pack(self, nodes: Sequence[tuple[list[int], int]], wanted: Sequence[tuple[int, int]], vocabulary: list[int]) -> Array:
        """One pass over a tree of token pieces ``(tokens, parent)`` on the cached context.

        Returns log-probabilities of ``vocabulary`` after each ``wanted`` (node, offset).
        """
        past = len(self.held)
        begins, depths, tokens, positions = [], [], [], []
        total = sum(len(piece) for piece, _ in nodes)
        visible = torch.zeros(total, total, dtype=torch.bool)
        for piece, parent in nodes:
            begin, depth = len(tokens), 0 if parent < 0 else depths[parent]
            if parent >= 0:
                last = begins[parent] + len(nodes[parent][0]) - 1
                visible[begin : begin + len(piece)] = visible[last]
            visible[begin : begin + len(piece), begin : begin + len(piece)] = torch.ones(len(piece), len(piece)).tril() > 0
            begins.append(begin)
            depths.append(depth + len(piece))
            tokens += piece
            positions += range(past + depth, past + depth + len(piece))
        mask = torch.cat([torch.ones(total, past, dtype=torch.bool), visible], dim=1)
        bias = torch.zeros(mask.shape, dtype=torch.bfloat16).masked_fill(~mask, torch.finfo(torch.bfloat16).min)
        hidden = self._hidden(tokens, positions, bias[None, None])
        self._crop(past)
        rows = hidden[[begins[node] + offset for node, offset in wanted]]
        return self.model.lm_head(rows).float().log_softmax(-1)[:, vocabulary].double().numpy()

    def _verdicts(self, data: Data, pieces: Sequence[tuple[list[int], int]], asked: Sequence[int]) -> Array:
        """Normalised label log-probabilities at the end of each asked piece; verbalizers may have several tokens."""
        nodes, wanted = list(pieces), []
        for node in asked:
            wanted.append((node, len(nodes[node][0]) - 1))
            for words in data.verbalizers:
                if len(words) > 1:
                    nodes.append((words[:-1], node))
                    wanted += [(len(nodes) - 1, k) for k in range(len(words) - 1)]
        vocabulary = sorted({token for words in data.verbalizers for token in words})
        column = {token: k for k, token in enumerate(vocabulary)}
        values = iter(self.pack(nodes, wanted, vocabulary))
        result = np.zeros((len(asked), len(data.verbalizers)))
        for row in result:
            first = next(values)
            for label, words in enumerate(data.verbalizers):
                row[label] = first[column[words[0]]]
                row[label] += sum(next(values)[column[token]] for token in words[1:])
        return normalize(result)

    def predict(self, data: Data, targets: Sequence[int], labelled: Sequence[tuple[int, int]]) -> Array:
        """Every target after the same labelled examples."""
        self.seek(self.start + data.context(labelled))
        rows, block, size = [], [], 0
        for i in targets:
            if block and size + len(data.queries[i]) > PACK_TOKENS:
                rows.append(self._verdicts(data, block, range(len(block))))
                block, size = [], 0
            block.append((data.queries[i], -1))
            size += len(data.queries[i])
        rows.append(self._verdicts(data, block, range(len(block))))
        return np.concatenate(rows)

    def leave_one_out(self, data: Data, labels: dict[int, int], rng: np.random.Generator, *, leaf: int = 8) -> Array:
        """Each labelled example after all the others, along a tree of shared prefixes; rows in the order of ``labels``."""
        found: dict[int, Array] = {}

        def flatten(pieces: list[tuple[list[int], int]], at: int, members: list[int], asked: dict[int, int]) -> None:
            if len(members) == 1:
                pieces.append((data.queries[members[0]], at))
                asked[members[0]] = len(pieces) - 1
                return
            half = len(members) // 2
            for shown, rest in ((members[half:], members[:half]), (members[:half], members[half:])):
                pieces.append((data.context([(i, labels[i]) for i in shown]), at))
                flatten(pieces, len(pieces) - 1, rest, asked)

        def visit(prefix: list[int], members: list[int]) -> None:
            if len(members) <= leaf:
                pieces: list[tuple[list[int], int]] = []
                asked: dict[int, int] = {}
                flatten(pieces, -1, members, asked)
                self.seek(prefix)
                found.update(zip(asked, self._verdicts(data, pieces, list(asked.values())), strict=True))
                return
            half = len(members) // 2
            for shown, rest in ((members[half:], members[:half]), (members[:half], members[half:])):
                visit(prefix + data.context([(i, labels[i]) for i in shown]), rest)

        visit(self.start, [int(i) for i in rng.permutation(list(labels))])
        return np.stack([found[i] for i in labels])


def normalize(values: Array) -> Array:
    return values - np.logaddexp.reduce(values, axis=-1, keepdims=True)


def calibrate(values: Array) -> Array:
    return normalize(values - values.mean(axis=0))


def choose(values: Array, calibrated: bool) -> NDArray[np.int64]:
    return (calibrate(values) if calibrated else values).argmax(axis=1)


def interval(correct: NDArray[np.bool_], *, draws: int = 2000) -> list[float]:
    """Mean and 95% interval over examples (last axis) resampled together with seeds (first axis)."""
    rng = np.random.default_rng(0)
    table = np.atleast_2d(correct).astype(float)
    columns = rng.integers(table.shape[1], size=(draws, table.shape[1]))
    seeds = rng.integers(table.shape[0], size=(draws, table.shape[0]))
    means = [table[np.ix_(s, c)].mean() for s, c in zip(seeds, columns, strict=True)]
    return [round(float(x), 3) for x in (table.mean(), *np.quantile(means, [0.025, 0.975]))]


def balanced_random(n: int, n_labels: int, rng: np.random.Generator) -> list[int]:
    return [int(y) for y in rng.permutation(np.arange(n) % n_labels)]


def bootstrap(
    scorer: Scorer, data: Data, pool: Sequence[int], rng: np.random.Generator, *, start: str, calibrated: bool, rounds: int
) -> list[dict[str, Any]]:
    """Relabel everything from everything outside its fold, again and again."""
    n_labels = len(data.verbalizers)
    labels = dict(zip(pool, balanced_random(len(pool), n_labels, rng), strict=True))
    if start == "zero_shot":
        labels = dict(zip(pool, choose(scorer.predict(data, pool, []), calibrated).tolist(), strict=True))
    history = [describe(data, labels)]
    for _ in range(rounds):
        order = [int(i) for i in rng.permutation(pool)]
        scores: dict[int, Array] = {}
        for fold in np.array_split(order, 4):
            members = set(fold.tolist())
            shown = [(i, labels[i]) for i in order if i not in members]
            scores.update(zip(fold.tolist(), scorer.predict(data, fold.tolist(), shown), strict=True))
        labels = dict(zip(pool, choose(np.stack([scores[i] for i in pool]), calibrated).tolist(), strict=True))
        history.append(describe(data, labels))
    return history


def describe(data: Data, labels: dict[int, int]) -> dict[str, Any]:
    found, gold = np.array(list(labels.values())), data.gold[list(labels)]
    return {
        "accuracy": round(float((found == gold).mean()), 3),
        "class_rates": [round(float((found == y).mean()), 3) for y in range(len(data.verbalizers))],
    }


@dataclass
class Search:
    """Outcome of one annealed search."""

    labels: dict[int, int]
    curve: list[tuple[int, int, float]] = field(default_factory=list)
    accepted: int = 0
    evaluations: int = 0
    tokens: int = 0
    seconds: float = 0.0


def icm(
    scorer: Scorer,
    data: Data,
    pool: Sequence[int],
    rng: np.random.Generator,
    *,
    calibrated: bool,
    alpha: float = 50.0,
    iterations: int | None = None,
    seeds: int = 8,
    initial_temperature: float = 10.0,
) -> Search:
    """The annealed search as the package's defaults run it, without constraints (no groups here)."""
    began, spent = time.perf_counter(), scorer.tokens
    n_labels = len(data.verbalizers)
    first = [int(i) for i in rng.permutation(pool)[:seeds]]
    labels = dict(zip(first, balanced_random(len(first), n_labels, rng), strict=True))
    result = Search(labels)

    def evaluate(held: dict[int, int]) -> tuple[float, Array, Array]:
        raw = scorer.leave_one_out(data, held, rng)
        offset = raw.mean(axis=0) if calibrated else np.zeros(n_labels)
        scores = normalize(raw - offset)
        own = scores[np.arange(len(held)), list(held.values())]
        others = np.log1p(-np.exp(np.minimum(own, -1e-12)))
        result.evaluations += 1
        return alpha * float((own - others).mean()), raw, offset

    utility, raw, offset = evaluate(labels)
    unchanged = 0
    for iteration in range(1, (iterations or 3 * len(pool)) + 1):
        picked = int(rng.choice(pool))
        known = list(labels)
        if picked in labels:
            seen = raw[known.index(picked)]
        else:
            seen = scorer.predict(data, [picked], [(int(i), labels[int(i)]) for i in rng.permutation(known)])[0]
        proposed = int((seen - offset).argmax())
        unchanged += 1
        if labels.get(picked) != proposed:
            candidate = labels | {picked: proposed}
            total, rows, bias = evaluate(candidate)
            heat = max(0.01, initial_temperature / (1 + 0.99 * math.log(iteration)))
            if total > utility or rng.random() < math.exp((total - utility) / heat):
                labels, utility, raw, offset, unchanged = candidate, total, rows, bias, 0
                result.accepted += 1
                result.curve.append((iteration, len(labels), describe(data, labels)["accuracy"]))
        if len(labels) == len(pool) and unchanged >= len(pool):
            break
    unlabelled = [i for i in pool if i not in labels]
    if unlabelled:
        shown = [(int(i), labels[int(i)]) for i in rng.permutation(list(labels))]
        filled = (scorer.predict(data, unlabelled, shown) - offset).argmax(axis=1)
        labels = labels | dict(zip(unlabelled, filled.tolist(), strict=True))
    result.labels = labels
    result.tokens, result.seconds = scorer.tokens - spent, time.perf_counter() - began
    return result


def few_shot(
    scorer: Scorer, data: Data, test: Sequence[int], shown: Sequence[Sequence[tuple[int, int]]]
) -> dict[str, Any]:
    """Test accuracy after each of several contexts (one a seed), raw and calibrated over the test batch."""
    scores = [scorer.predict(data, test, context) for context in shown]
    gold = data.gold[list(test)]
    row: dict[str, Any] = {}
    for name, calibrated in (("raw", False), ("batch", True)):
        correct = np.stack([choose(values, calibrated) == gold for values in scores])
        row[name] = interval(correct)
        row[f"{name}_by_seed"] = [round(float(c.mean()), 3) for c in correct]
    return row


def measure(scorer: Scorer, data: Data, args: argparse.Namespace) -> dict[str, Any]:
    """Everything measured on one task; even positions may be labelled and shown, odd positions are the test."""
    everything = np.random.default_rng(12345).permutation(len(data.gold))
    pool = sorted(int(i) for i in everything[: min(args.pool, len(everything) // 2)])
    test = sorted(int(i) for i in everything[len(everything) // 2 :][: args.test])
    n_labels, shots = len(data.verbalizers), min(args.shots, len(pool))
    order = {seed: [int(i) for i in np.random.default_rng(seed).permutation(pool)[:shots]] for seed in args.seeds}
    random = {s: balanced_random(shots, n_labels, np.random.default_rng(1000 + s)) for s in args.seeds}
    out: dict[str, Any] = {"pool": len(pool), "test": len(test), "shots": shots, "seeds": list(args.seeds)}
    out["zero_shot"] = few_shot(scorer, data, test, [[]])
    out["random"] = few_shot(scorer, data, test, [list(zip(order[s], random[s], strict=True)) for s in args.seeds])
    out["golden"] = few_shot(scorer, data, test, [[(i, int(data.gold[i])) for i in order[s]] for s in args.seeds])
    for start in args.bootstrap:
        for name, calibrated in (("none", False), ("batch", True)):
            runs = [
                bootstrap(
                    scorer, data, pool, np.random.default_rng(s), start=start, calibrated=calibrated, rounds=args.rounds
                )
                for s in args.seeds
            ]
            out[f"bootstrap_{start}_{name}"] = runs
    for name in args.icm:
        out[f"icm_{name}"] = []
        found = []
        for seed in args.icm_seeds:
            run = icm(scorer, data, pool, np.random.default_rng(seed), calibrated=name == "batch", alpha=args.alpha)
            labels = [(int(i), run.labels[int(i)]) for i in np.random.default_rng(seed).permutation(pool)]
            found.append(labels)
            summary = describe(data, run.labels) | {"seed": seed, "accepted": run.accepted, "evaluations": run.evaluations}
            out[f"icm_{name}"].append(
                summary | {"tokens": run.tokens, "seconds": round(run.seconds, 1), "curve": run.curve[:: args.curve_step]}
            )
            print("   ", name, json.dumps(summary | {"seconds": round(run.seconds, 1)}), flush=True)
        out[f"found_{name}"] = few_shot(scorer, data, test, found)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    integers = lambda text: [int(x) for x in text.split(",")]  # noqa: E731
    words = lambda text: [x for x in text.split(",") if x]  # noqa: E731
    parser.add_argument("--model", required=True, help="folder of a transformers causal LM")
    parser.add_argument("--tasks", type=words, default=[name for name in TASKS if name != "movie"])
    parser.add_argument("--data", help="JSONL file for the one task named, instead of the candidates beside this script")
    parser.add_argument("--pool", type=int, default=64, help="examples that may be labelled and shown, at most")
    parser.add_argument("--test", type=int, default=200, help="test examples, at most")
    parser.add_argument("--shots", type=int, default=32, help="demonstrations of random and golden few-shot")
    parser.add_argument("--seeds", type=integers, default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=4, help="rounds of bootstrapping")
    parser.add_argument("--bootstrap", type=words, default=["zero_shot", "random"], help="starts of bootstrapping")
    parser.add_argument("--icm", type=words, default=[], help="calibrations of the annealed search: none,batch")
    parser.add_argument("--icm-seeds", type=integers, default=[0, 1, 2, 3, 4])
    parser.add_argument("--alpha", type=float, default=50.0)
    parser.add_argument("--curve-step", type=int, default=8)
    parser.add_argument("--template", help="replaces the template, for trying wordings")
    parser.add_argument("--verbalizers", type=json.loads, help="JSON object that replaces the verbalizers")
    parser.add_argument("--json", type=Path, help="write all figures here")
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.set_grad_enabled(False)
    transformers.logging.disable_progress_bar()
    scorer = Scorer(args.model)
    results: dict[str, Any] = {
        "torch": torch.__version__, "transformers": transformers.__version__, "python": platform.python_version(), "tasks": {}
    }
    for name in args.tasks:
        task = TASKS[name]
        task = Task(args.template or task.template, args.verbalizers or task.verbalizers)
        path = Path(args.data) if args.data else CANDIDATES / f"{name}.jsonl"
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        data = scorer.load(rows, task)
        began = time.perf_counter()
        out = measure(scorer, data, args) | {"template": task.template, "verbalizers": task.verbalizers}
        results["tasks"][name] = out
        print(f"{name}: pool {out['pool']}, test {out['test']}, {time.perf_counter() - began:.0f} s", flush=True)
        for key, value in out.items():
            if isinstance(value, dict) and "raw" in value:
                print(f"  {key:10} raw {value['raw']} batch {value['batch']} by seed {value['batch_by_seed']}")
            elif key.startswith("bootstrap"):
                print(f"  {key}: " + " | ".join(
                    " ".join(f"{h['accuracy']:.2f}({h['class_rates'][1]:.2f})" for h in run) for run in value))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
