"""Work under a progress bar on standard error, with rate and time left; a log where there is no terminal."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from elicitor.ablation import Ablation, run_ablation
from elicitor.audit import Audit, audit
from elicitor.config import RunConfig
from elicitor.control import on_pause, working_time
from elicitor.distributed import RayOptions, WorkerPool
from elicitor.dry_run import DryRun, estimate
from elicitor.evaluation import Evaluation, evaluate
from elicitor.labelling import Run, Step, prepare, run
from elicitor.models import load_backend
from elicitor.notices import shown_by
from elicitor.pooled import run_on_pool
from elicitor.runs import refuse_used
from elicitor.search.events import Proposal, Warned
from elicitor.solutions import Sampled, SampleSettings, SamplingCost, sample_solutions, sampling_cost
from elicitor.suite import Suite, SuiteConfig, run_suite
from elicitor.suite_cost import PartCost, suite_cost
from elicitor.terminal import one_line, terminal

_PLAIN_INTERVAL = 10.0
"""Seconds between progress lines when standard error is not a terminal."""
_QUIET_INTERVAL = 30.0
"""Seconds without such a line after which one tells of a step that is still under way."""


class Display:
    """One progress bar that also works as a log where there is no terminal."""

    def __init__(self, description: str) -> None:
        self._console = terminal(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[detail]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
            get_time=working_time,
        )
        self._task = self._bar.add_task(description, total=None, detail="")
        self._description = self._shown = description
        self._tokens = 0
        self._started = working_time()
        self._last_line = self._started
        self._first: tuple[int, float] | None = None
        self._done = ""
        self._listening = ExitStack()

    def __enter__(self) -> Display:
        self._listening.enter_context(on_pause(self.paused))
        self._listening.enter_context(shown_by(self.warn))
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        self._listening.close()

    def tokens(self, count: int) -> None:
        """Count computed tokens; called after each forward pass."""
        self._tokens += count
        self._bar.update(self._task, detail=self._rate())
        if self._is_due(_QUIET_INTERVAL):
            elapsed = self._last_line - self._started
            line = f"{self._shown}:{self._done} {self._tokens:,} tokens {self._rate()} elapsed {elapsed:.0f} s"
            self._console.print(line, markup=False, soft_wrap=True)

    def warn(self, message: str) -> None:
        """Show a warning above the bar."""
        self._console.print(one_line(f"warning: {message}"), soft_wrap=True)

    def update(self, completed: int, total: int, detail: str) -> None:
        """Show how far the work is."""
        detail = f"{detail} {self._rate()}".strip()
        self._bar.update(self._task, completed=completed, total=total, detail=detail)
        self._done = f" {completed}/{total}"
        if self._first is None:
            # A first report of several steps, or of one within a second, may be of what a resume found done: it gives no pace.
            now = working_time()
            is_first = completed <= 1 and now - self._started >= 1.0
            self._first = (0, self._started) if is_first else (completed, now)
        if self._is_due(_PLAIN_INTERVAL):
            known, since = self._first
            left = ""
            if completed > known:
                pace = (self._last_line - since) / (completed - known)
                left = f", left at most {pace * (total - completed):.0f} s"
            where = f"{completed}/{total} {detail}".strip()
            line = f"{self._description}: {where} elapsed {self._last_line - self._started:.0f} s{left}"
            self._console.print(line, markup=False, soft_wrap=True)

    def part(self, done: int, parts: int) -> None:
        """Show how many parts are done."""
        self.update(done, parts, "")

    def batches(self, done: int, batches: int) -> None:
        """Show how many batches are done."""
        self.update(done, batches, "batches")

    def stage(self, name: str) -> None:
        """Show what begins now; the clock of the rate runs from the last stage before any work is told of."""
        if self._tokens == 0 and self._first is None:
            self._started = working_time()
        name = one_line(name)
        self._shown = f"{self._description}: {name}"
        self._bar.update(self._task, description=self._shown)
        if not self._console.is_terminal:
            self._console.print(f"{self._description}: {name}", markup=False, soft_wrap=True)

    def paused(self, waits: bool) -> None:
        """Show that the work waits until it is told to go on, or that it does go on."""
        self._bar.update(self._task, description=f"{self._shown}: paused" if waits else self._shown)
        if not self._console.is_terminal:
            news = "paused; 'elicitor control FOLDER resume' goes on" if waits else "goes on"
            self._console.print(f"{self._description}: {news}", markup=False, soft_wrap=True)

    def _is_due(self, interval: float) -> bool:
        """Whether there is no terminal and no line has been printed for so many seconds; one is then."""
        now = working_time()
        if self._console.is_terminal or now - self._last_line < interval:
            return False
        self._last_line = now
        return True

    def _rate(self) -> str:
        """Tokens a second; nothing where none are counted."""
        rate = self._tokens / max(working_time() - self._started, 1e-3)
        return f"{rate:,.0f} tok/s" if self._tokens else ""


def label_with_progress(config: RunConfig, folder: Path, *, resume: bool, cluster: RayOptions | None = None) -> Run:
    """Run a labelling run under a progress bar; see `elicitor.labelling.run`."""
    with Display(f"label {config.search}") as display:
        if cluster is not None:
            if not resume:
                refuse_used(folder)
            display.stage("starting Ray")
            with WorkerPool(cluster) as pool:
                (done,) = run_on_pool(
                    [(config, folder)],
                    pool,
                    resume=resume,
                    on_progress=display.tokens,
                    on_stage=display.stage,
                    on_part=display.batches,
                )
            return done
        judged: list[bool] = []

        def observe(step: Step) -> None:
            heat = ""
            for event in step.events:
                if isinstance(event, Warned):
                    display.warn(event.message)
                if isinstance(event, Proposal):
                    heat = f"T {event.temperature:.2f} "
                    if event.utility_proposed is not None:
                        judged.append(event.accepted)
            accepted = f"accepted {sum(judged[-50:]) / len(judged[-50:]):.0%} " if judged else ""
            batch = f"batch {step.batch + 1}/{step.n_batches} " if step.n_batches > 1 else ""
            labelled = f"labelled {len(step.state.assignment.labelled)}/{step.n_examples}"
            detail = f"{batch}U {step.state.utility.total:.2f} {heat}{accepted}{labelled}"
            # Batches are about equally large, so the steps left in all are about as many in each.
            display.update(step.batch * step.budget + step.state.iteration, step.n_batches * step.budget, detail)

        return run(config, folder, resume=resume, observer=observe, on_progress=display.tokens, on_stage=display.stage)


def estimate_with_progress(config: RunConfig) -> DryRun:
    """Estimate what a run would cost, under a progress bar; see `elicitor.dry_run.estimate`."""
    with Display("dry run") as display:
        return estimate(prepare(config, on_stage=display.stage))


def evaluate_with_progress(
    folder: Path | Sequence[Path], test: str, *, seeds: Sequence[int], **options: Any
) -> Evaluation:
    """Evaluate under a progress bar; see `elicitor.evaluation.evaluate`."""
    with Display("eval") as display:
        return evaluate(
            folder,
            test,
            seeds=seeds,
            on_progress=display.tokens,
            on_stage=display.stage,
            on_part=display.part,
            **options,
        )


def suite_with_progress(config: SuiteConfig, folder: Path, *, resume: bool, cluster: RayOptions | None = None) -> Suite:
    """Run a suite under a progress bar; see `elicitor.suite.run_suite`."""
    with Display("suite") as display, ExitStack() as stack:
        pool = None
        if cluster is not None:
            display.stage("starting Ray")
            pool = stack.enter_context(WorkerPool(cluster))
        return run_suite(
            config,
            folder,
            resume=resume,
            pool=pool,
            command=shlex.join(["elicitor", *sys.argv[1:]]),
            on_progress=display.tokens,
            on_stage=display.stage,
            on_part=display.part,
        )


def suite_cost_with_progress(config: SuiteConfig) -> list[PartCost]:
    """Count what a suite would cost, under a progress bar; see `elicitor.suite_cost.suite_cost`."""
    with Display("dry run") as display:
        return suite_cost(config, on_stage=display.stage)


def ablate_with_progress(
    base: RunConfig, factors: Mapping[str, Sequence[str]], folder: Path, *, seeds: Sequence[int], resume: bool
) -> Ablation:
    """Run an ablation under a progress bar; see `elicitor.ablation.run_ablation`."""
    with Display("ablate") as display:
        return run_ablation(
            base,
            factors,
            folder,
            seeds=seeds,
            resume=resume,
            on_progress=display.tokens,
            on_stage=display.stage,
            on_part=display.part,
        )


def audit_with_progress(folder: Path, **options: Any) -> Audit:
    """Audit a run under a progress bar; see `elicitor.audit.audit`."""
    with Display("audit") as display:
        return audit(folder, on_progress=display.tokens, on_stage=display.stage, on_part=display.part, **options)


def sample_with_progress(
    questions: str, output: Path, *, model: str, settings: SampleSettings, resume: bool
) -> Sampled:
    """Draw solutions under a progress bar; see `elicitor.solutions.sample_solutions`."""
    with Display("sample") as display:
        return sample_solutions(
            questions,
            output,
            model=model,
            settings=settings,
            resume=resume,
            on_progress=display.tokens,
            on_stage=display.stage,
            on_part=display.part,
        )


def sampling_cost_with_progress(questions: str, model: str, settings: SampleSettings) -> SamplingCost:
    """Count what drawing solutions would cost at most; see `elicitor.solutions.sampling_cost`."""
    with Display("dry run") as display:
        return sampling_cost(questions, load_backend(model, on_stage=display.stage), settings)
