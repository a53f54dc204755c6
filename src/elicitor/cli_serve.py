"""The command that serves a model over HTTP."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elicitor.errors import BackendError, ConfigError
from elicitor.terminal import say_line
from elicitor.yaml_files import read_value

if TYPE_CHECKING:
    from elicitor.serving import Totals

KEY_VARIABLE = "ELICITOR_SERVER_KEY"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("serve-hf")(serve_command)


def serve_command(
    model: Annotated[str, typer.Option(help="bundled, hf:NAME, gguf:FILE, fake or a folder.")] = "bundled",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)] = 8000,
    host: Annotated[str, typer.Option(help="Address; others than loopback let the network in.")] = "127.0.0.1",
    max_waiting: Annotated[int, typer.Option(help="Requests that may wait before 429 is answered.", min=1)] = 128,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="E.g. backend.dtype=bfloat16.")
    ] = None,
) -> None:
    """Serve one loaded model to many searches.

    OpenAI-compatible completions, with prefixes kept from request to request.
    """
    settings = _backend_settings(overrides or [])
    try:
        from elicitor.local_http import LOOPBACK, bound, serve
        from elicitor.serving import Limits, create_app
    except ImportError as error:
        raise BackendError(f"serving needs {error.name}", fix="pip install 'elicitor[serve,hf]'") from error
    from elicitor.models import load_backend
    from elicitor.progress import Display

    key = os.environ.get(KEY_VARIABLE) or None
    if host not in LOOPBACK and not key:
        raise ConfigError(
            f"--host {host} lets the network in, and there is no key",
            fix=f"set the environment variable {KEY_VARIABLE} to a secret of your own",
        )
    with bound(host, port) as listener:
        with Display("serve-hf") as display:
            backend = load_backend(model, on_stage=display.stage, **settings)
        if host not in LOOPBACK:
            say_line(f"warning: whoever reaches {host} and has the key can use this model; it is sent unencrypted")
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listener.getsockname()[1]}/v1"

        def ready() -> None:
            listener.listen(128)
            say_line(f"ready: {backend.name} at {address} (Ctrl-C ends it)")

        def close(totals: Totals) -> None:
            say_line(f"stopped: {totals.summary()}")

        app = create_app(
            backend,
            key=key,
            limits=Limits(waiting=max_waiting),
            allowed_hosts=[*LOOPBACK, "[::1]"] if host in LOOPBACK else None,
            on_ready=ready,
            on_close=close,
        )
        serve(app, listener)


def _backend_settings(overrides: list[str]) -> dict[str, Any]:
    settings = {}
    for text in overrides:
        key, sign, raw = text.partition("=")
        if not sign or not key.startswith("backend."):
            raise ConfigError(f"--set got {text!r}", fix="write backend.KEY=VALUE, such as backend.dtype=bfloat16")
        settings[key.removeprefix("backend.")] = read_value(raw, place=f"--set {key}")
    return settings
