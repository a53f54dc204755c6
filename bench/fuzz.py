"""Fuzzing of everything that comes from outside: data, settings, tasks, run folders, models' headers, answers and requests.

Hypothesis draws inputs, valid ones and mutations of valid ones (flipped, cut, spliced and doubled bytes), and gives them to
the functions that the commands call. An input is either accepted, and then its result is checked, or refused with an
`ElicitorError`. Anything else is a failure: another exception, a wrong result, more than the time or the memory that one input
may take. For each failure the smallest input that shows it is printed, and the exit code is 1.

    python bench/fuzz.py --examples 20000 --seed 0 --json fuzz.json
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
from fuzzing import GROUPS, Group

from elicitor.console import environment
from elicitor.errors import ElicitorError

SECONDS = 10.0
"""Seconds that one input may take; the slowest that are meant take a tenth of one."""
MEGABYTES = 512
"""Megabytes by which the inputs of a group may raise the peak of memory."""
ADDRESS_SPACE = 6 * 2**30
"""Bytes of address space of the whole process, the libraries and a hundred stacks among them."""

TESTS = Path(__file__).resolve().parents[1] / "tests"
"""Has the tiny model that tests use as well."""


class _HangError(BaseException):
    """An input takes too long; no handler of the product may swallow it."""


@dataclass
class Result:
    """What became of a group's inputs."""

    group: str
    tried: int = 0
    accepted: int = 0
    refused: int = 0
    untyped: int = 0
    hangs: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    megabytes: float = 0.0
    peak: float = 0.0
    kinds: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=1500, help="inputs of all groups together")
    parser.add_argument("--seed", type=int, default=0, help="seed of every draw")
    parser.add_argument("--only", choices=sorted(GROUPS), help="one group alone")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    sys.path.append(str(TESTS))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, resource.RLIM_INFINITY))
    signal.signal(signal.SIGALRM, _too_long)
    chosen = {options.only: GROUPS[options.only]} if options.only else GROUPS
    share = sum(group.weight for group in chosen.values())
    results = []
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        os.environ["ELICITOR_CACHE"] = str(Path(place) / "cache")
        for name, group in chosen.items():
            examples = max(1, round(options.examples * group.weight / share))
            results.append(run_group(name, group, Path(place) / name, examples=examples, seed=options.seed))
            print(line(results[-1]), flush=True)
    for result in results:
        for key, shown in result.failures.items():
            print(f"\n{result.group}: {key}\n{shown}")
    total = sum(result.tried for result in results)
    failed = sum(result.untyped + result.hangs for result in results)
    print(
        f"\n{total:,} inputs, seed {options.seed}: {sum(r.accepted for r in results):,} accepted, "
        f"{sum(r.refused for r in results):,} refused, {sum(r.untyped for r in results)} untyped errors or wrong results, "
        f"{sum(r.hangs for r in results)} hangs; peak {max(r.peak for r in results):.0f} MB, "
        f"{sum(r.seconds for r in results):.0f} s"
    )
    if options.json:
        figures = {
            "examples": options.examples,
            "seed": options.seed,
            "groups": [asdict(result) for result in results],
            "peak_megabytes": max(result.peak for result in results),
            "environment": environment(),
        }
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 1 if failed or any(result.failures for result in results) else 0


def run_group(name: str, group: Group, folder: Path, *, examples: int, seed: int) -> Result:
    """Try a group's inputs until they are used up or one fails; a failure is made small before it is kept."""
    folder.mkdir()
    result = Result(name)
    with group.open(folder) as check:
        # The peak from now on is that of these inputs.
        Path("/proc/self/clear_refs").write_text("5")
        before, begin = peak(), time.perf_counter()

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate, hypothesis.Phase.shrink],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(group.inputs)
        def attempt(given: Any) -> None:
            try_one(check, given, result)

        for given in group.always:
            with contextlib.suppress(Exception):
                try_one(check, given, result)
        if not result.failures:
            # What failed is in the result; hypothesis raises it once more.
            with contextlib.suppress(Exception, ExceptionGroup), contextlib.redirect_stdout(io.StringIO()):
                attempt()
        result.seconds = time.perf_counter() - begin
        result.peak = peak()
        result.megabytes = result.peak - before
    if not result.accepted:
        result.failures["nothing was accepted"] = "  the check, or the product, refuses all that is valid"
    if result.megabytes > MEGABYTES:
        result.failures[f"raised the peak by {result.megabytes:.0f} MB"] = f"at most {MEGABYTES} are allowed"
    return result


def try_one(check: Any, given: Any, result: Result) -> None:
    """One input; what fails is counted, kept under its place, and raised."""
    begin = time.perf_counter()
    result.tried += 1
    try:
        with within(SECONDS):
            check(given)
        result.accepted += 1
    except ElicitorError as error:
        if not str(error).strip() or "\n" in error.problem[:200].strip():
            keep(result, "a refusal without a line that says why", error, given)
            raise AssertionError("no message") from error
        result.refused += 1
        result.kinds[type(error).__name__] = result.kinds.get(type(error).__name__, 0) + 1
    except _HangError as error:
        result.hangs += 1
        keep(result, "hang", error, given)
        raise AssertionError("hang") from error
    except (Exception, SystemExit) as error:
        result.untyped += 1
        keep(result, f"{type(error).__name__}: {error}"[:160], error, given)
        raise
    finally:
        result.slowest = max(result.slowest, time.perf_counter() - begin)


def keep(result: Result, what: str, error: BaseException, given: Any) -> None:
    """Keep the newest input of a failure: hypothesis ends with the smallest."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/elicitor/" in frame.filename]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "the harness"
    result.failures[f"{type(error).__name__} at {where}"] = f"  {what}\n  input: {given!r:.2000}"


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Bound the time of a block; one that hangs in C ends the process with a traceback."""
    faulthandler.dump_traceback_later(6 * seconds, exit=True)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()


def _too_long(*_: Any) -> None:
    raise _HangError(f"more than {SECONDS:g} s")


def peak() -> float:
    """Most memory that this process has held, in megabytes."""
    # What getrusage says includes the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def line(result: Result) -> str:
    """A row of the table."""
    return (
        f"{result.group:<10} {result.tried:>6} tried {result.accepted:>6} accepted {result.refused:>6} refused "
        f"{result.untyped:>3} untyped {result.hangs:>3} hangs  {result.seconds:6.1f} s, "
        f"slowest {result.slowest * 1000:5.0f} ms, +{result.megabytes:.0f} MB"
    )


if __name__ == "__main__":
    sys.exit(main())
