"""The site builds without a warning, holds every page, and fetches nothing from a network."""

import importlib
import os
import re
import subprocess
import sys

import pytest
from pages import ROOT

pytest.importorskip("mkdocs")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert 'not included in the "nav"' not in done.stderr, done.stderr
    return folder


def test_pages_load_nothing_from_elsewhere(site):
    loads = re.compile(
        r"""<(?:script|img|iframe|source)[^>]*\bsrc=["']?(?:https?:)?//|<link[^>]*\bhref=["']?(?:https?:)?//"""
    )
    imports = re.compile(r"""@import|url\(["']?(?:https?:)?//""")
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(list((ROOT / "docs").glob("*.md")))
    for page in pages:
        assert not loads.search(page.read_text(encoding="utf-8")), page
    for style in site.rglob("*.css"):
        assert not imports.search(style.read_text(encoding="utf-8")), style


def test_formulas_and_functions_are_on_the_page(site):
    concepts = (site / "concepts" / "index.html").read_text(encoding="utf-8")
    assert concepts.count("<math") == len(
        re.findall(r"(?<!\$)\$\$?[^$]+\$\$?", (ROOT / "docs" / "concepts.md").read_text())
    )
    assert "arithmatex" not in concepts
    assert 'id="elicitor.objective.predictability"' in concepts
    assert 'id="elicitor.labelling.label"' in (site / "api" / "index.html").read_text(encoding="utf-8")


def test_every_part_of_the_paper_has_its_place():
    text = (ROOT / "docs" / "paper-index.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("| ")
    ]
    assert [row for row in rows if len(row) != 3 or not all(row)] == []
    parts = text.split("## ")[1:]
    assert [part.split("\n")[0] for part in parts] == [
        "Sections",
        "Equations",
        "Algorithms",
        "Figures",
        "Tables",
        "Appendices",
    ]
    figures = {row[0].split(",")[0].split(" ")[0] for row in rows}
    assert figures >= {str(number) for number in range(1, 13)}
    for row in rows:
        # Who leaves something out says why.
        assert not re.search(r"(?i)not here\W*$", row[2]), row
    for name in set(re.findall(r"`(elicitor\.[\w.]+)`", text)):
        place, _, attribute = name.rpartition(".")
        try:
            found = importlib.import_module(place)
        except ModuleNotFoundError:
            place, _, owner = place.rpartition(".")
            found = getattr(importlib.import_module(place), owner)
        assert hasattr(found, attribute), name
