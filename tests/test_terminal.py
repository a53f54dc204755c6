"""Nothing that data, names or servers say reaches the terminal as anything but text."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import elicitor as package
from elicitor.terminal import one_line, print_json, say, terminal
from elicitor.visible import hides

EVIL = "a\x1b[2J\x1b]0;title\x07\x1b[31mred\x9b1m\u202egnp.exe\u2066\u200b\r\x08\x00[bold]b[/]"
"""Clears the screen, sets a title, colours, hides, reorders, overwrites; and markup."""


def dangerous(text):
    return [character for character in text if hides(character) and character not in "\n\t"]


def clean(printed):
    assert dangerous(printed) == []
    return printed


@given(st.text())
def test_printed_text_is_text(text):
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()) as out:
        say(text)
        say(one_line(text))
    clean(out.getvalue())
    assert "\n" not in one_line(text)


@given(st.recursive(st.text() | st.integers() | st.none(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_printed_json_is_equal_and_harmless(values):
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()) as out:
        print_json(values)
    clean(out.getvalue())
    out.getvalue().encode()
    assert json.loads(out.getvalue()) == values


def test_tables_are_neither_markup_nor_control_sequences(capsys):
    from rich.table import Table

    table = Table(title=EVIL)
    table.add_column(EVIL, no_wrap=True)
    table.add_row(EVIL)
    terminal(least_width=300).print(table)
    terminal(least_width=300).print(EVIL)
    printed = clean(capsys.readouterr().out)
    assert printed.count("[bold]b[/]") == 4
    assert printed.count("\u27e8U+001B\u27e9[2J") == 4


def test_nothing_else_in_the_package_prints():
    """Ruff's T20 finds ``print``; this finds the other ways."""
    for file in Path(package.__file__).parent.rglob("*.py"):
        if file.name != "terminal.py":
            used = re.findall(r"rich\.console|typer\.echo|click\.echo|std(?:out|err)\.write\(", file.read_text())
            assert not used, file


@pytest.fixture
def planted(tmp_path):
    """Data and a task in which everything that can be named is named as badly as possible."""
    folder = tmp_path / "\x1b[31mruns\u202e"
    folder.mkdir()
    bad = EVIL.replace("\x00", "")
    rows = [
        {"id": f"{bad}{i}", "text": f"{bad} text {i}", "g": f"{bad}{i // 2}", "k": str(i), "label": f"{bad}{i % 2}"}
        for i in range(12)
    ]
    data = folder / "d\x1b[2J.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "name": f"t{bad}".replace("/", "|"),
        "template": "{text}:",
        "labels": {f"{bad}0": " no", f"{bad}1": " yes"},
        "group": "g",
        "key": "k",
        "constraint": "equivalent",
    }
    (folder / "task.yaml").write_text(json.dumps(task))
    suite = {"model": "fake", "limit": 4, "seeds": [0], "tasks": [{"task": task, "data": str(data)}]}
    (folder / "suite.yaml").write_text(json.dumps(suite))
    return folder, data


@pytest.mark.parametrize("as_json", [(), pytest.param(("--json",), marks=pytest.mark.slow)])
def test_whatever_is_planted_no_command_lets_it_through(elicitor, planted, as_json):
    folder, data = planted
    run, task, ids = folder / "run", folder / "task.yaml", "\x1b[1mx"
    test = folder / "test\u202e.jsonl"
    test.write_text("".join(line.replace("text ", "other ") for line in data.read_text().splitlines(keepends=True)))
    for code, command in (
        (0, ("label", data, "--task", task, "--model", "fake", "--dry-run")),
        (0, ("label", data, "--task", task, "--model", "fake", "-o", run)),
        (0, ("audit", run)),
        (0, ("eval", run, "--test", test, "--seeds", "0")),
        (0, ("review", run)),
        (0, ("report", run)),
        (0, ("eval", "--suite", folder / "suite.yaml", "--dry-run")),
        (0, ("models",)),
        (2, ("label", data, "--task", folder / "none\x1b[2J.yaml", "--model", "fake")),
        (2, ("label", data, "--task", "sentiment\x1b[2J", "--model", "fake")),
        (2, ("label", data, "--task", "gsm8k", "--model", "fake")),
        (2, ("label", data, "--task", task, "--model", f"hf\u202e{ids}")),
        (2, ("label", data, "--task", task, "--model", f"fake:{ids}=1")),
        (2, ("eval", folder / ids, "--test", test)),
        (2, ("review", run, "--mark", f"{ids}=right")),
    ):
        got, out, err = elicitor(*command, *as_json)
        assert got == code, (command, out, err)
        clean(out)
        clean(err)
        if code == 2:
            assert err.startswith("error: ")
            assert err.count("\n") == 1
        if as_json and code == 0:
            json.loads(out)


def test_what_a_server_says_is_text(elicitor, planted, tmp_path):
    pytest.importorskip("httpx")
    import sys
    import threading

    sys.path.insert(0, str(Path(__file__).parent / "backends"))
    from world_server import World, serve

    folder, data = planted
    world = World(labels=(b" no", b" yes"), fault=lambda number, path: {"status": 400, "body": {"error": EVIL}})
    server = serve(world)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        name = f"openai:{EVIL.replace(chr(0), '')}@http://127.0.0.1:{server.server_port}/v1"
        code, out, err = elicitor("label", data, "--task", folder / "task.yaml", "--model", name, "-o", folder / "r")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert code == 2
    assert "red" in clean(err)
    clean(out)
