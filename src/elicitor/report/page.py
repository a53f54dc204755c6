"""Views as one HTML page that needs nothing else: no network, no other file.

The page has no ``eval`` and runs only the scripts whose hashes its Content-Security-Policy names, so text from data could not
run even if escaping failed. Text from data reaches it in two ways: through Jinja's escaping, and as JSON that scripts put
into text nodes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from elicitor.errors import ConfigError
from elicitor.files import write_atomic
from elicitor.report.charts import charts
from elicitor.report.examples import example_data
from elicitor.report.page_tables import ablation_table, cost_rows, result_table, run_rows, tiles, training_rows
from elicitor.report.views import Views
from elicitor.visible import all_visible, visible

TEMPLATES = Path(__file__).parent / "templates"
SECTIONS = {
    "accuracy": "Test accuracy",
    "ablations": "Ablations",
    "trainings": "Trainings",
    "search": "Search",
    "confidence": "Confidence",
}
"""Sections that hold figures, in the order of the page."""
_SCRIPTS = ("page.js", "examples.js", "detail.js")
_LIVE_SCRIPTS = ("live.js",)


def require_report() -> None:
    """Refuse before anything is read what could not be written after it.

    Raises:
        ConfigError: If the libraries of the page are not installed.
    """
    try:
        import jinja2  # noqa: F401
        import vl_convert  # noqa: F401
    except ImportError as error:
        raise ConfigError("the report needs jinja2 and vl-convert", fix="pip install 'elicitor[report]'") from error


def page_data(views: Views, *, live: bool = False) -> dict[str, Any]:
    """What the page's scripts draw from, as JSON values; a live page asks for it again.

    Args:
        views: What is shown.
        live: Whether examples can be marked.

    Returns:
        Figures, key numbers and examples.
    """
    return {
        "live": live,
        "charts": all_visible([asdict(chart) for chart in charts(views)]),
        "tiles": all_visible(tiles(views)),
        "runs": [example_data(run) for run in views.runs],
    }


def render_page(views: Views, *, live: bool = False) -> str:
    """The page.

    Args:
        views: What is shown; see `elicitor.report.gather`.
        live: For the page of a running server, which it asks for news and sends marks to; otherwise it reaches nothing.

    Returns:
        HTML, complete in itself.

    Raises:
        ConfigError: If the libraries of the page are not installed.
    """
    require_report()
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    data = page_data(views, live=live)
    style = _read("page.css")
    names = _SCRIPTS + (_LIVE_SCRIPTS if live else ())
    scripts = [_library(), "\n".join(_read(name) for name in names)]
    return environment.get_template("page.html").render(
        title=_title(views),
        live=live,
        views=views,
        sections=_sections(views, data["charts"]),
        unaudited=", ".join(run.name for run in views.runs if run.audit is None),
        has_reliability=any(run.reliability for run in views.runs),
        tiles=data["tiles"],
        overview=bool(views.runs or views.notes),
        run_rows=run_rows(views.runs),
        results=[(named, result_table(named.result)) for named in views.all_results()],
        ablations=[(view, ablation_table(view)) for view in views.ablations],
        trainings=training_rows(views.trainings),
        costs=cost_rows(views),
        policy=_policy(scripts, style, live=live),
        style=Markup(style),
        scripts=[Markup(script) for script in scripts],
        data=Markup(_embedded(data)),
    )


def write_page(views: Views, file: str | Path) -> None:
    """Write the page; an earlier one is replaced as a whole.

    Args:
        views: What is shown.
        file: HTML file; its folder is made where it does not exist.

    Raises:
        ConfigError: If the libraries of the page are not installed, or the file cannot be written.
    """
    page, file = render_page(views), Path(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, page)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}", fix="choose another -o FILE") from error


def _sections(views: Views, drawn: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Title of each section and whether it is shown; figures that a live page gets later unhide theirs."""
    filled = {chart["section"] for chart in drawn} | ({"accuracy"} if views.runs else set())
    filled |= {"trainings"} if views.trainings else set()
    return {key: {"title": title, "shown": key in filled} for key, title in SECTIONS.items()}


def _title(views: Views) -> str:
    shown = ", ".join(views.names[:3])
    return shown if len(views.names) <= 3 else f"{shown} and {len(views.names) - 3} more"


def _policy(scripts: Sequence[str], style: str, *, live: bool) -> str:
    """Content-Security-Policy: these scripts, this style, and no address but, for a live page, its own."""
    allowed = " ".join(map(_hash, scripts))
    reached = "'self'" if live else "'none'"
    rules = [
        "default-src 'none'",
        f"script-src {allowed}",
        f"style-src {_hash(style)}",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        f"connect-src {reached}",
    ]
    return "; ".join(rules)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _embedded(values: Any) -> str:
    """JSON that is safe between script tags: no ``<`` of data is left in it."""
    text = json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _read(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


@cache
def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    if "</script" in bundle.lower() or "<!--" in bundle:
        raise ConfigError(
            "this version of vl-convert cannot be put into a page", fix="pip install -U vl-convert-python"
        )
    return bundle
