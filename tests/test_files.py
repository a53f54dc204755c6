import pytest

from elicitor.errors import DataError
from elicitor.files import iter_rows, read_rows, write_atomic, write_rows


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
