"""Help texts: every command says in one sentence what it does and shows an example that its parser takes."""

import re

import pytest
from pages import leaves, parse
from typer.testing import CliRunner

from elicitor.cli import app
from elicitor.cli_examples import EXAMPLES

COMMANDS = leaves()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_an_example_that_parses(name):
    result = CliRunner().invoke(app, [*name.split(), "--help"])
    assert result.exit_code == 0
    examples = re.findall(r"^ *(elicitor .+)$", result.output.partition("Example:")[2], re.MULTILINE)
    assert examples, f"add one to elicitor.cli_examples: {name}"
    assert [parse(example) for example in examples] == [name] * len(examples)


def test_no_example_stands_under_a_command_that_is_gone():
    assert EXAMPLES.keys() <= COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_a_sentence_and_every_option_has_a_text(name):
    command = COMMANDS[name]
    assert re.match(r"[A-Z].*\.$", command.help.strip(), re.DOTALL)
    for parameter in command.params:
        text = getattr(parameter, "help", None)
        assert text, f"{name}: {parameter.name}"
        assert text.rstrip().endswith((".", "].")), f"{name}: {parameter.name}: {text}"


@pytest.mark.parametrize("group", [[], ["train"], ["cache"]], ids=" ".join)
def test_lists_of_commands_say_what_each_does_without_being_cut(group):
    result = CliRunner().invoke(app, [*group, "--help"], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    assert "..." not in result.output.replace("[ARGS]...", "")
