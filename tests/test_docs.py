"""The documentation's own claims, where a machine can check them."""

import re
from pathlib import Path

import pytest
import yaml

from elicitor.config import RunConfig, setting_keys
from elicitor.data import load_dataset
from elicitor.tasks import BUILT_IN, load_task

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def default(key):
    node = RunConfig
    *parents, last = key.split(".")
    for name in parents:
        node = node.model_fields[name].annotation
    field = node.model_fields[last]
    if field.is_required():
        return "required"
    return (
        "none"
        if field.default is None or field.default_factory is not None
        else f"`{str(field.default).lower()}`"
        if field.default in (True, False) and isinstance(field.default, bool)
        else f"`{field.default}`"
    )


def test_every_setting_is_documented_with_its_default():
    rows = re.findall(r"^\| `([\w.]+)` \| (.+?) \| (.+) \|$", (ROOT / "docs" / "configuration.md").read_text(), re.M)
    assert rows == [(key, default(key), meaning) for key, meaning in setting_keys().items()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", ["README.md", "docs/tasks.md"])
def test_task_files_shown_are_valid(page):
    shown = re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.S)
    assert shown
    for text in shown:
        task = load_task(yaml.load(text, Loader=yaml.BaseLoader))
        assert len(task.label_space) >= 2


def test_the_readme_begins_with_the_two_commands():
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert blocks[0].rstrip().endswith("elicitor quickstart")
    assert blocks[1] == "bash .ci/run\n"
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_built_in_tasks_are_documented():
    text = (ROOT / "docs" / "tasks.md").read_text()
    for name in BUILT_IN:
        assert f"`{name}`" in text


def test_file_formats_shown_load(tmp_path):
    shown = re.findall(r"```(jsonl|csv)\n(.*?)```", (ROOT / "docs" / "data.md").read_text(), re.S)
    assert {kind for kind, _ in shown} == {"jsonl", "csv"}
    for number, (kind, text) in enumerate(shown):
        path = tmp_path / f"{number}.{kind}"
        path.write_text(text)
        assert len(load_dataset(str(path), load_task("sentiment"))) == 2
