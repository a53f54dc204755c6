"""Options that several commands share, and what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elicitor.errors import ConfigError

if TYPE_CHECKING:
    from elicitor.config import RunConfig

OutputDir = Annotated[Path | None, typer.Option("--output-dir", "-o", help="Run folder [default: runs/TASK-TIME].")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file with settings; flags win over it.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Any setting, e.g. objective.alpha=30.")
]


def run_settings(
    flags: dict[str, Any], *, config: Path | None, overrides: list[str], output_dir: Path | None, resume: bool
) -> RunConfig:
    """Settings of a run; with --resume those that are not given come from the run folder."""
    from elicitor.config import build_config, check_trust
    from elicitor.runs import CONFIG, has_run

    if resume and output_dir is None:
        raise ConfigError("--resume needs to know the run", fix="add --output-dir FOLDER")
    if resume and config is None and output_dir is not None and has_run(output_dir):
        config = output_dir / CONFIG
    settings = build_config(file=config, flags=flags, overrides=overrides)
    if config is not None and not any(text.startswith("backend.trust_remote_code=") for text in overrides):
        check_trust(settings, config)
    return settings


def new_folder(settings: RunConfig) -> Path:
    """Run folder named after the task and the time."""
    name = settings.task if isinstance(settings.task, str) else str(settings.task.get("name", "table"))
    return Path("runs") / f"{Path(name).stem}-{now()}"


def now() -> str:
    """The time as a part of a file name."""
    import datetime

    return datetime.datetime.now().strftime("%Y%m%d-%H%M%S")


def numbers(flag: str, text: str) -> list[int]:
    """Whole numbers with commas."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"{flag} got {text!r}", fix="write whole numbers with commas, such as 0,1,2") from error


def check_limit(limit: int | None, *, flag: str = "--limit") -> None:
    """Refuse a limit below 1.

    Raises:
        ConfigError: If it is.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"{flag} got {limit}", fix="give 1 or more")
