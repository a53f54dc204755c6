"""Commands about a run that somebody looks after: control, watch, review."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elicitor.cli_options import Json
from elicitor.errors import ConfigError
from elicitor.terminal import say

if TYPE_CHECKING:
    from elicitor.config import RunConfig

Folder = Annotated[Path, typer.Argument(help="Folder of 'elicitor label' or of a training.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("control")(control_command)
    app.command("watch")(watch_command)
    app.command("review")(review_command)


def control_command(
    run: Folder,
    action: Annotated[
        str | None, typer.Argument(help="What to ask: pause, resume or stop; leave it out to see the state.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Pause, resume or stop what runs in a folder.

    It obeys after the step that it is at; no result changes.
    """
    from elicitor.control import ACTIONS, pending, request, state_of
    from elicitor.follow import check_watchable

    check_watchable(run)
    if action is not None and action not in ACTIONS:
        raise ConfigError(f"got {action!r}", fix=f"use {', '.join(ACTIONS)}")
    state = state_of(run) if action is None else request(run, action)
    waiting = pending(run)
    if as_json:
        from elicitor.terminal import print_json

        print_json({"state": state, "asked": waiting})
        return
    say(state if waiting is None or state == "stopping" else f"{state}, asked to {waiting}")


def watch_command(
    run: Folder,
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)] = 0,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Serve a live page of a run or training.

    To this machine alone: progress, control, and review of labels.
    The address holds a token: whoever knows it may control the run. Ctrl-C ends the page, not the run.
    """
    import secrets
    import webbrowser

    from elicitor import report
    from elicitor.follow import follow
    from elicitor.report.page import require_report

    follower = follow(run)
    require_report()
    try:
        from elicitor.local_http import bound, serve
        from elicitor.watching import create_app
    except ImportError as error:
        raise ConfigError(f"watching needs {error.name}", fix="pip install 'elicitor[serve,report]'") from error

    token = secrets.token_urlsafe()
    with bound("127.0.0.1", port) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/{token}/"

        def ready() -> None:
            listener.listen(128)
            say(f"watching {run} at {address} (Ctrl-C ends the page, not the run)", flush=True)
            if open_page:
                webbrowser.open(address)

        app = create_app(
            run,
            follower=follower,
            page=lambda: report.render_page(report.gather([run]), live=True),
            data=lambda: report.page_data(report.gather([run]), live=True),
            token=token,
            on_ready=ready,
        )
        # More connections than that are refused with 503.
        serve(app, listener, on_exit=app.close, limit_concurrency=256)


def review_command(
    run: Annotated[Path, typer.Argument(help="Run folder of 'elicitor label'.")],
    mark: Annotated[
        list[str] | None,
        typer.Option("--mark", metavar="ID=VERDICT", help="Say that a label is right or wrong; may be repeated."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Mark labels as right or wrong.

    See what to look at next, and an estimate of how many of all labels are right.
    """
    from elicitor.review import VERDICTS, Reviewer
    from elicitor.runs import load_run_config

    load_run_config(run)
    given = [text.rpartition("=") for text in mark or ()]
    for name, sign, verdict in given:
        if not sign or not name or verdict not in VERDICTS:
            raise ConfigError(f"--mark got {name + sign + verdict!r}", fix="write ID=right or ID=wrong")
    reviewer = Reviewer(run)
    for name, _, verdict in given:
        reviewer.mark(name, "right" if verdict == "right" else "wrong")
    from elicitor.console_review import show_review

    show_review(run, reviewer.review(), as_json=as_json)


def with_first_labels(
    settings: RunConfig, init: str | None, review: Path | None, *, resume: bool, into: Path | None = None
) -> RunConfig:
    """Settings of ``label`` with the first labels that ``--init`` and ``--review`` ask for.

    The labels are written beside the marks, or ``into`` another folder.

    Raises:
        ConfigError: If the two do not go together.
    """
    if init not in (None, "review"):
        key = f"{settings.search}.start"
        raise ConfigError(f"--init got {init!r}", fix=f"use review, or set {key} with --set for other first labels")
    if (init is None) != (review is None):
        raise ConfigError("--init review and --review RUN go together", fix="give both or neither")
    # A run that was begun has its first labels, whatever has been marked since.
    if review is None or (resume and settings.start_labels is not None):
        return settings
    from elicitor.reviewed import start_from_review

    return start_from_review(settings, review, into=into)
