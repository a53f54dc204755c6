import pytest

from elicitor.errors import ConfigError, TaskError
from elicitor.yaml_files import MOST_BYTES, MOST_VALUES, read_mapping, read_value


def mapping(folder, content):
    (folder / "x.yaml").write_bytes(content)
    return read_mapping(folder / "x.yaml", error=TaskError, hint="write keys")


def nine_fold(first, one, between):
    """Nine levels of nine aliases: nine to the ninth values in some hundred bytes."""
    lines = [first]
    for k in range(9):
        lines.append(between % (98 + k, 98 + k, ", ".join([one % (97 + k)] * 9)))
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    "content",
    [
        nine_fold("a: &a [x, x, x, x, x, x, x, x, x]", "*%c", "%c: &%c [%s]"),
        nine_fold("a: &a {x: 1}", "*%c", "%c: &%c {<<: [%s]}"),
    ],
)
def test_what_aliases_blow_up_is_refused_before_it_is_made(tmp_path, content):
    with pytest.raises(TaskError, match=rf"x\.yaml line \d+ .*aliases make it more than {MOST_VALUES:,} values"):
        mapping(tmp_path, content)


def test_aliases_and_merged_keys_are_taken_as_they_are_meant(tmp_path):
    content = b"a: &a {x: 1, y: [2, 3]}\nb: {<<: *a, x: 4}\nc: *a\n"
    assert mapping(tmp_path, content)["b"] == {"x": 4, "y": [2, 3]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: &a [*a]", "line 1 .*an alias stands for what it is in"),
        (b"a:\n  b: !!bool x", "cannot make sense of"),
        (b"a: !!timestamp x", "cannot make sense of"),
        (b"a: !!int ''", "cannot make sense of"),
        (b"a: 2020-13-45", "cannot make sense of: month must be"),
        (b"a: !!map x", "not valid YAML: expected a mapping"),
        (b"a: " + b"[" * 5000, "nested too deeply"),
        (b"a: 0x" + b"f" * 5000, "line 1 .*beyond 64 bits"),
        (b"a: 9223372036854775808", "beyond 64 bits"),
        (b'a: "\\ud800"', "line 1 .*half of a surrogate pair"),
        (b"a: b\x00", "not valid YAML: unacceptable character"),
        (b"a: !!python/object/apply:os.system [true]", "line 1 .*could not determine a constructor"),
        (b"#" * (MOST_BYTES + 1), "larger than 1,048,576 bytes"),
    ],
)
def test_what_yaml_cannot_be_made_of_is_one_line(tmp_path, content, message):
    with pytest.raises(TaskError, match=message) as caught:
        mapping(tmp_path, content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["2020-13-45", "[" * 5000, "!!bool x", "9" * 5000, "&a [*a]", "{a: 1, a: 2}"])
def test_values_on_the_command_line_are_read_by_the_same_rules(text):
    with pytest.raises(ConfigError, match=r"^--set seed: .* is not a YAML value; quote it$"):
        read_value(text, place="--set seed")
    assert read_value("[1, no]", place="--set x") == [1, False]
