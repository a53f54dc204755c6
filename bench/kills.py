"""Interrupt every command that writes, at random places among its file operations, go on, and compare with an unbroken run.

What strikes: SIGKILL, SIGTERM and Ctrl-C between any two file operations, SIGKILL in the middle of a write, SIGKILL after the
clock was set back by a day, SIGKILL from outside at a random instant, a full disk, a largest file that cannot grow, a folder
that becomes read-only; on a small Ray cluster also SIGKILL of a worker, which the command must survive by itself. Each trial
goes on until nothing strikes any more; then labels, events, tables, models and pages must be those of the unbroken run. The
exit code is 1 if anything differs, is half written, or is said with a traceback.

    python bench/kills.py --kills 300 --json kills.json
    python bench/kills.py --model bundled --kills 20
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arguments import names
from kill_cases import Case, broken_files, cases, copy_of, differences, is_leftover, outcome, prepare_inputs, warm_up
from kill_faults import DISK, KILLS, OUTSIDE, WORKER, End, Fault, Workers, run_forked, small_disk

from elicitor import runs
from elicitor.backends.gguf import cache_folder
from elicitor.console import environment
from elicitor.terminal import mistakes_in_a_line

SHARES = {"search": 0.50, "evaluate": 0.36, "ray": 0.02, "train": 0.09, "convert": 0.03}
"""Shares of the kills; a training takes seconds and a driver of Ray ten, a search a twentieth of one."""
MOST_IN_A_ROW = 3
LATER = (*KILLS[:-1], WORKER)
"""What may strike a command that goes on."""
FULL = "full disk"
TESTS = Path(__file__).parents[1] / "tests"
"""Has the tiny models and the cluster that tests use as well."""


@dataclass
class Tally:
    """What came of all trials of a case.

    Attributes:
        kills: Faults that struck, by kind.
        resumes: Commands that were started again after one.
        trials: Trials that were compared.
        problems: Whatever was not as promised.
        leftovers: Files with temporary names that were there at the end.
    """

    kills: Counter[str] = field(default_factory=Counter)
    resumes: int = 0
    trials: int = 0
    problems: list[str] = field(default_factory=list)
    leftovers: int = 0


@dataclass(frozen=True)
class Prepared:
    """A case with its unbroken run.

    Attributes:
        case: The command.
        home: What each trial begins with.
        whole: Outcome of the unbroken run.
        end: How that ended.
        workers: Finds the processes that work for it.
    """

    case: Case
    home: Path
    whole: dict[str, Any]
    end: End
    workers: Workers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300, help="faults that must have struck, in all")
    parser.add_argument("--seed", type=int, default=0, help="draws what strikes when")
    parser.add_argument("--model", default="fake:noise=1.5", help="model of searches and evaluations, or bundled")
    parser.add_argument(
        "--groups", type=names(SHARES), default=",".join(SHARES), help=f"which commands: {', '.join(SHARES)}"
    )
    parser.add_argument("--only", help="commands whose name contains this")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    os.environ.update(
        OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1", NO_COLOR="1", COLUMNS="120"
    )
    sys.path.append(str(TESTS))
    os.environ.pop("ELICITOR_CACHE", None)
    if options.model == "bundled":
        # Converted once; every trial would take its time for that.
        os.environ["ELICITOR_CACHE"] = str(cache_folder())

    # Every step is saved, as those of a real model are: a whole run with a fake one is through before the second time is due.
    runs._SAVE_SECONDS = 0
    # So that the small disk is unmounted whoever ends the harness.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="elicitor-kills-") as name, ExitStack() as stack:
        root = Path(name).resolve()
        tallies = strike_all(options, root, stack)
    seconds = time.perf_counter() - started
    show(tallies, seconds)
    if options.json:
        content = {
            "kills": options.kills,
            "seed": options.seed,
            "model": options.model,
            "seconds": seconds,
            "commands": {name: {**vars(tally), "kills": dict(tally.kills)} for name, tally in tallies.items()},
            "environment": environment(),
        }
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    if any(tally.problems for tally in tallies.values()):
        sys.exit(1)


def strike_all(options: argparse.Namespace, root: Path, stack: ExitStack) -> dict[str, Tally]:
    """All trials: group by group, because what a later group imports slows the forks of an earlier one."""
    from ray_cluster import free_address

    tiny, address = root / "tiny", free_address()
    wanted = [group for group in SHARES if group in options.groups]
    if "ray" in wanted and importlib.util.find_spec("ray") is None:
        wanted.remove("ray")
        print("ray is not installed: the group 'ray' is left out", flush=True)
    chosen = [
        case
        for case in cases(options.model, str(tiny), cluster=address)
        if case.group in wanted and (options.only is None or options.only in case.name)
    ]
    groups = [group for group in wanted if any(case.group == group for case in chosen)]
    shares = {group: SHARES[group] / sum(SHARES[one] for one in groups) for group in groups}
    disk = root / "disk"
    disk.mkdir()
    mounted = stack.enter_context(small_disk(disk, megabytes=48))
    if not mounted:
        print(f"no small disk can be mounted here (that takes root): {FULL!r} is left out", flush=True)
    home = root / "home"
    home.mkdir()
    tallies = {case.name: Tally() for case in chosen}
    draw = random.Random(options.seed)
    for group in groups:
        mine = [case for case in chosen if case.group == group]
        left = round(shares[group] * options.kills) if group != groups[-1] else options.kills - struck(tallies)
        with workers_for(group, root, address) as workers:
            for case in mine:
                warm_up(case)
            if not (home / "run").exists():
                prepare_inputs(home)
            if group in ("train", "convert") and not tiny.exists():
                # In a process of its own: what has run a model cannot be forked any more.
                code = f"import tiny_models as t, pathlib as p; t.write_tiny(p.Path({str(tiny)!r})); "
                code += f"t.write_tiny_gguf(p.Path({str(home / 'tiny.gguf')!r}))"
                subprocess.run([sys.executable, "-c", code], check=True, cwd=TESTS, capture_output=True)
            prepared = [prepare(case, home, root / "whole", workers) for case in mine]
            strike_group(prepared, tallies, draw, disk if mounted else root, kills=left, full=mounted)
    return tallies


@contextmanager
def workers_for(group: str, root: Path, address: str) -> Iterator[Workers]:
    """What finds the workers of a group's commands; the group ``ray`` has a cluster as long as the block lasts."""
    if group != "ray":
        yield list
        return
    from ray_cluster import cluster, workers_of

    with cluster(root, address=address, nodes=1, cpus=2) as running:
        # Before a command imports Ray, which reads them once.
        os.environ.update(running.environment)
        yield lambda: workers_of(running.nodes[0])


def strike_group(
    prepared: Sequence[Prepared], tallies: dict[str, Tally], draw: random.Random, where: Path, *, kills: int, full: bool
) -> None:
    """Trials of the commands of a group in turn, until so many kills have struck; ``full``: a disk can be filled."""
    group = prepared[0].case.group
    before, begun = struck(tallies), time.perf_counter()
    turn = 0
    while struck(tallies) < before + kills:
        one = prepared[turn % len(prepared)]
        if turn % len(prepared) == 0 and (done := struck(tallies) - before):
            gone = time.perf_counter() - begun
            rest = gone / done * (kills - done)
            print(f"{group}: {done} of {kills} kills, {done / gone:.1f} a second, {rest:.0f} s left", file=sys.stderr)
        kinds = [kind for kind in one.case.kinds if full or kind != FULL]
        # Kinds go round as well, one further with each round of the commands.
        kind = kinds[(turn + turn // len(prepared)) % len(kinds)]
        turn += 1
        trial(one, tallies[one.case.name], kind, draw, where, most=before + kills - struck(tallies))


def struck(tallies: dict[str, Tally]) -> int:
    """Faults that have struck so far."""
    return sum(tally.kills.total() for tally in tallies.values())


def prepare(case: Case, home: Path, place: Path, workers: Workers) -> Prepared:
    """Run a command unbroken; a second time, because what differs between two unbroken runs proves nothing."""
    ends = []
    outcomes = []
    for _ in range(2):
        copy_of(home, place)
        ends.append(run_forked(case.words, place, None))
        if ends[-1].code != 0:
            sys.exit(f"{case.name}: exit code {ends[-1].code} of the unbroken run\n{ends[-1].said}")
        outcomes.append(outcome(place, home, any_order=case.any_order))
    if found := differences(outcomes[0], outcomes[1]):
        sys.exit(f"{case.name}: two unbroken runs differ: {found[:3]}")
    if not outcomes[0]:
        sys.exit(f"{case.name}: the unbroken run has written nothing")
    return Prepared(case, home, outcomes[0], ends[-1], workers)


def trial(one: Prepared, tally: Tally, kind: str, draw: random.Random, where: Path, *, most: int) -> None:
    """Strike a command, and strike again while it goes on; then let it end and compare; one that lost a worker must just end.

    Args:
        one: The command.
        tally: Where what happens is counted.
        kind: What strikes first; later it is any kind.
        draw: Draws.
        where: Folder for the trial.
        most: Faults at most.
    """
    place = copy_of(one.home, where / "trial")
    name = one.case.name
    told = f"{name}, {kind}"
    end = None
    for number in range(min(most, draw.randint(1, MOST_IN_A_ROW))):
        now = kind if number == 0 else draw.choice([each for each in LATER if each in one.case.kinds])
        at = draw.random() if now in (OUTSIDE, WORKER) else draw.randint(1, one.end.operations)
        fault = Fault(now, at, draw.randint(0, 3000))
        end = run_forked(one.case.words, place, fault, seconds=one.end.seconds, workers=one.workers)
        if not end.struck:
            break
        tally.kills[now] += 1
        told = f"{name}, {now} at {fault.at:g} ({fault.size})"
        tally.problems += [f"{told}: {problem}" for problem in unlike_promised(fault, end)]
        tally.problems += [f"{told}: {file} is half written" for file in broken_files(place)]
        if now == WORKER:
            break
        tally.resumes += 1
    if end is None or (end.struck and now != WORKER):
        end = run_forked(one.case.words, place, None)
    tally.trials += 1
    if end.code != 0:
        tally.problems.append(f"{told}: exit code {end.code} when it went on: {end.said[-1500:]}")
        return
    left = outcome(place, one.home, any_order=one.case.any_order)
    tally.problems += [f"{told}: {found}" for found in differences(one.whole, left)[:3]]
    tally.leftovers += sum(1 for file in place.rglob("*") if file.is_file() and is_leftover(file))


def unlike_promised(fault: Fault, end: End) -> list[str]:
    """What a struck command said or returned against its promises."""
    last = end.said.strip().splitlines()[-1:] or [""]
    if "Traceback" in end.said:
        return [f"a traceback: {end.said[-1500:]}"]
    if fault.kind in DISK and end.code != 0:
        if end.code != 2 or not last[0].startswith("error: "):
            return [f"exit code {end.code}, said {last[0]!r}"]
        if not any(word in last[0] for word in ("free some space", "--output-dir", "writable", "-o FILE")):
            return [f"no way out is said: {last[0]!r}"]
    if fault.kind == "Ctrl-C" and end.code not in (0, 130):
        return [f"exit code {end.code} after Ctrl-C, said {last[0]!r}"]
    return []


def show(tallies: dict[str, Tally], seconds: float) -> None:
    """Print the table."""
    kinds = [kind for kind in (*KILLS, WORKER, *DISK) if any(tally.kills[kind] for tally in tallies.values())]
    print(
        f"{'command':<22}"
        + "".join(f"{kind:>{len(kind) + 2}}" for kind in (*kinds, "in all", "resumes", "differences"))
    )
    total = Tally()
    for name, tally in tallies.items():
        _row(name, tally, kinds)
        total.kills += tally.kills
        total.resumes += tally.resumes
        total.trials += tally.trials
        total.problems += tally.problems
        total.leftovers += tally.leftovers
    _row("in all", total, kinds)
    print(
        f"{total.kills.total()} kills in {total.trials} trials, {len(total.problems)} differences, "
        f"{total.leftovers} unread temporary files left, {seconds:.0f} s"
    )
    for problem in total.problems:
        print(f"\n{problem}")


def _row(name: str, tally: Tally, kinds: list[str]) -> None:
    counts = [(kind, tally.kills[kind]) for kind in kinds]
    counts += [("in all", tally.kills.total()), ("resumes", tally.resumes), ("differences", len(tally.problems))]
    print(f"{name:<22}" + "".join(f"{count:>{len(head) + 2}}" for head, count in counts), flush=True)


if __name__ == "__main__":
    with mistakes_in_a_line():
        main()
