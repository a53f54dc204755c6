import pytest

from elicitor.errors import DataError
from elicitor.files import iter_rows, read_json, read_rows, write_atomic, write_rows


def test_writing_replaces_the_whole_file_or_nothing(tmp_path):
    path = tmp_path / "x"
    write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "new \ud800")
    assert path.read_text() == "old"
    write_atomic(path, "new")
    assert path.read_text() == "new"


def test_rows_survive_any_text(tmp_path):
    rows = [{"id": "a\u2028b\x85c\nd"}, {"id": "й"}]
    write_rows(tmp_path / "x", rows)
    assert read_rows(tmp_path / "x") == rows


def test_bytes_that_are_no_text_are_named_by_their_line(tmp_path):
    (tmp_path / "x").write_bytes(b'{"n": 1}\n{"n": "\xff"}\n')
    rows = iter_rows(tmp_path / "x")
    assert next(rows) == {"n": 1}
    with pytest.raises(DataError, match="line 2 is not JSON"):
        next(rows)


def test_only_whole_lines_before_a_place_are_read(tmp_path):
    (tmp_path / "x").write_bytes(b'{"n": 1}\n{"n": 2}\n')
    assert [list(iter_rows(tmp_path / "x", until=end)) for end in (8, 9, 17, 18)] == [
        [], [{"n": 1}], [{"n": 1}], [{"n": 1}, {"n": 2}]
    ]  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [b"\xff", b"[" * 100_000, b'{"a": NaN}', b'{"a": 1e999}', b'{"a": "\\ud800"}', b'{"a": ' + b"9" * 5000 + b"}"],
)
def test_what_json_of_ours_never_holds_is_no_json(tmp_path, content):
    (tmp_path / "x").write_bytes(content + b"\n")
    with pytest.raises(DataError, match="x is not JSON"):
        read_json(tmp_path / "x")
    with pytest.raises(DataError, match="x line 1 is not JSON"):
        read_rows(tmp_path / "x")


def test_whole_surrogate_pairs_are_text(tmp_path):
    (tmp_path / "x").write_text('{"a": "\\ud83d\\ude00"}')
    assert read_json(tmp_path / "x") == {"a": "\N{GRINNING FACE}"}


def test_an_entry_that_is_missing_is_named_with_its_place(tmp_path):
    (tmp_path / "x").write_text('{"a": {"b": 1}}\n')
    (row,) = read_rows(tmp_path / "x")
    assert (row.get("c"), row == {"a": {"b": 1}}) == (None, True)
    with pytest.raises(DataError, match="x line 1: 'c' is missing"):
        row["a"]["c"]


def test_lines_that_are_no_objects_and_folders_are_refused(tmp_path):
    (tmp_path / "x").write_text("{}\n[1]\n")
    with pytest.raises(DataError, match="x line 2 is no JSON object"):
        read_rows(tmp_path / "x")
    for read in (read_json, read_rows):
        with pytest.raises(DataError, match="cannot be read: Is a directory"):
            read(tmp_path)
