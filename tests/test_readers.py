import gzip
import json

import pytest

from elicitor.errors import DataError
from elicitor.readers import read_rows

ROWS = [
    {"id": "a", "text": "one, with a comma"},
    {"id": "b", "text": 'two "quoted"\nlines'},
    {"id": "c", "text": "тrois"},
]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def values(source, **options):
    return [row.values for row in read_rows(source, **options)]


def test_json_lines_with_blank_lines_and_a_byte_order_mark(tmp_path):
    text = "\ufeff" + "\n\n".join(json.dumps(row) for row in ROWS)
    source = write(tmp_path / "x.jsonl", text)
    assert values(source) == ROWS
    assert [row.location for row in read_rows(source)] == [f"{source} line {n}" for n in (1, 3, 5)]


def test_gzipped_json_lines(tmp_path):
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, ROWS)).encode()))
    assert values(str(path)) == ROWS
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"x\.jsonl\.gz cannot be read.*whole"):
        read_rows(str(path))


def test_csv_numbers_rows_by_the_line_they_begin_on(tmp_path):
    source = write(tmp_path / "x.csv", 'id,text\na,"one, with a comma"\nb,"two ""quoted""\nlines"\nc,тrois\n')
    rows = read_rows(source)
    assert [row.values for row in rows] == ROWS
    assert [row.location for row in rows] == [f"{source} line {n}" for n in (2, 3, 5)]


def test_tsv(tmp_path):
    assert values(write(tmp_path / "x.tsv", "id\ttext\na\tone, two\n")) == [{"id": "a", "text": "one, two"}]


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "x.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    assert values(str(path)) == ROWS
    assert read_rows(str(path))[2].location == f"{path} row 3"
    path.write_bytes(b"PAR1 but not really")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read_rows(str(path))


def test_hugging_face_names_go_through_datasets(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "hub").mkdir()
    write(tmp_path / "hub" / "train.jsonl", "\n".join(map(json.dumps, ROWS)))
    rows = read_rows(f"hf:{tmp_path / 'hub'}@train", limit=2)
    assert [row.values for row in rows] == ROWS[:2]
    assert rows[1].location.endswith("@train row 2")


@pytest.mark.parametrize("source", ["hf:", "hf:name", "hf:name@", "hf:@train"])
def test_hub_names_without_a_split_are_explained(source):
    with pytest.raises(DataError, match="hf:NAME@SPLIT"):
        read_rows(source)


def test_limit_stops_before_a_broken_line(tmp_path):
    source = write(tmp_path / "x.jsonl", '{"id": "a"}\n{"id": "b"}\nbroken')
    assert values(source, limit=2) == [{"id": "a"}, {"id": "b"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", "", r"x\.jsonl has no rows"),
        ("x.csv", "id,text\n", r"x\.csv has no rows"),
        ("x.jsonl", '{"id": 1}\n{"id": 2,}', r"x\.jsonl line 2 column \d+ is not JSON"),
        ("x.jsonl", '[{"id": 1}]', r"x\.jsonl line 1 holds list, not an object.*one JSON object a line"),
        ("x.jsonl", '{"id": 1, "id": 2}', r"x\.jsonl line 1 has the key 'id' twice"),
        ("x.jsonl", b'{"id": 1}\n{"t": "caf\xe9"}', r"x\.jsonl line 2 is not UTF-8: byte 0xe9 at column 11.*iconv"),
        ("x.csv", b"id,text\na,caf\xe9\n", r"x\.csv line 2 is not UTF-8"),
        ("x.csv", "id,id\n1,2\n", r"x\.csv line 1 has the column 'id' twice"),
        ("x.csv", "id,text\n1,2,3\n", r"x\.csv line 2 has 3 cells, the header has 2"),
        ("x.csv", 'id,text\n1,"open\n', r"x\.csv line \d is not valid CSV"),
        ("x.txt", "hello", r"x\.txt has an unknown format.*\.jsonl"),
        ("x.jsonl", '{"a":' * 100_000, r"x\.jsonl line 1"),
    ],
)
def test_broken_files_are_named_with_line_and_fix(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        read_rows(write(tmp_path / name, content))


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_rows(str(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match="is a folder"):
        read_rows(str(tmp_path))
