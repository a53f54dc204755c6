import csv
import gzip
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicitor import readers
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


@pytest.mark.parametrize("name", ["x.json", "x.ndjson", "X.JSONL", "x.json.gz", "X.JSONL.GZ"])
def test_names_of_json_lines(tmp_path, name):
    content = "\r\n".join(map(json.dumps, ROWS)).encode()
    assert values(write(tmp_path / name, gzip.compress(content) if name.lower().endswith(".gz") else content)) == ROWS


@pytest.mark.parametrize(
    ("name", "delimiter"), [("x.csv", ","), ("x.csv.gz", ","), ("x.tsv", "\t"), ("x.TSV.gz", "\t")]
)
def test_tables_with_a_byte_order_mark_and_windows_line_ends(tmp_path, name, delimiter):
    content = f"\ufeffid{delimiter}text\r\na{delimiter}één\r\n\r\nb{delimiter}\r\n".encode()
    source = write(tmp_path / name, gzip.compress(content) if name.endswith(".gz") else content)
    rows = read_rows(source)
    assert [row.values for row in rows] == [{"id": "a", "text": "één"}, {"id": "b", "text": ""}]
    assert [row.location for row in rows] == [f"{source} line {n}" for n in (2, 4)]


scalars = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=30)
tables = st.lists(st.dictionaries(st.text(max_size=5), scalars, max_size=4), min_size=1, max_size=8)


@given(tables, st.booleans())
def test_json_lines_come_back_as_they_were_written(tmp_path_factory, rows, ascii_only):
    text = "\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    source = write(tmp_path_factory.mktemp("json") / "x.jsonl", text.encode())
    assert values(source) == rows


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=15)


@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=6), st.sampled_from([",", "\t"]))
def test_tables_come_back_as_they_were_written_each_with_its_line(tmp_path_factory, rows, delimiter):
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(["a", "b"])
    begins = []
    for row in rows:
        begins.append(stream.getvalue().count("\n") + 1)
        writer.writerow(row)
    name = "x.csv" if delimiter == "," else "x.tsv"
    source = write(tmp_path_factory.mktemp("table") / name, stream.getvalue().encode())
    read = read_rows(source)
    assert [tuple(row.values.values()) for row in read] == rows
    assert [row.location for row in read] == [f"{source} line {n}" for n in begins]


def test_parquet_rows_are_numbered_across_batches_and_keep_their_types(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "x.parquet"
    rows = [{"id": k, "text": f"text {k}", "label": None if k else True} for k in range(2050)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    read = read_rows(str(path))
    assert [row.values for row in read] == rows
    assert [read[k].location for k in (1023, 1024, 2049)] == [f"{path} row {n}" for n in (1024, 1025, 2050)]
    assert len(read_rows(str(path), limit=1025)) == 1025
    parquet.write_table(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), path)
    with pytest.raises(DataError, match=r"x\.parquet has no rows; give a file with at least one example"):
        read_rows(str(path))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "hub"
    folder.mkdir()
    return folder


def test_local_data_sets_of_csv_and_parquet(hub):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    write(hub / "train.csv", "id,text\na,one\nb,two\n")
    assert values(f"hf:{hub}@train") == [{"id": "a", "text": "one"}, {"id": "b", "text": "two"}]
    assert values(f"hf:{hub}@train[1:]") == [{"id": "b", "text": "two"}]
    (hub / "train.csv").unlink()
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), hub / "test.parquet")
    assert values(f"hf:{hub}@test") == ROWS


def test_a_config_is_named_before_the_split(hub):
    configs = "".join(f"- config_name: {c}\n  data_files: {c}.jsonl\n" for c in ("easy", "hard"))
    write(hub / "README.md", f"---\nconfigs:\n{configs}---\n")
    for config in ("easy", "hard"):
        write(hub / f"{config}.jsonl", json.dumps({"text": config}))
    assert values(f"hf:{hub}:hard@train") == [{"text": "hard"}]
    assert values(f"hf:{hub}:easy@train") == [{"text": "easy"}]


def test_a_hub_source_that_does_not_load_is_named_with_the_reason(hub):
    write(hub / "train.jsonl", json.dumps(ROWS[0]))
    with pytest.raises(DataError, match=r"hub@test could not be loaded: .*test.*; check name, config and split"):
        read_rows(f"hf:{hub}@test")
    with pytest.raises(DataError, match=r"nothing@train could not be loaded: .*; check name, config and split"):
        read_rows(f"hf:{hub / 'nothing'}@train")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", "\n \n\t\n", r"x\.jsonl has no rows; give a file with at least one example"),
        ("x.csv", "", r"x\.csv has no rows"),
        ("x.jsonl", '\n\n{"id": 1}\n\n{"id": }', r"x\.jsonl line 5 column 8 is not JSON.*one JSON object a line"),
        ("x.json", '[\n  {"id": 1}\n]', r"x\.json line 1 column .* is not JSON.*not one array over many lines"),
        ("x.jsonl", "null", r"x\.jsonl line 1 holds NoneType, not an object; write one JSON object a line"),
        ("x.jsonl", '"text"', r"x\.jsonl line 1 holds str, not an object"),
        ("x.jsonl", '{"a": {"b": 1, "b": 1}}', r"x\.jsonl line 1 has the key 'b' twice; keep one of them"),
        ("x.jsonl", '{"id": "é"}'.encode("utf-16"), r"x\.jsonl line 1 is not UTF-8: byte 0xff at column 1;.*UTF-8"),
        ("x.tsv", b"id\ttext\na\tb\nc\td\xfc\n", r"x\.tsv line 3 is not UTF-8: byte 0xfc at column 4;.*iconv"),
        ("x.csv", "id,text\n1,2\n\n3\n", r"x\.csv line 4 has 1 cells, the header has 2; quote cells"),
        ("x.csv", 'id,text\n1,"a\nb"\n2,x,y\n', r"x\.csv line 4 has 3 cells"),
        ("x.tsv", 'id\ttext\n1\t"a"b\n', r"x\.tsv line 2 is not valid CSV: .*; check the quotes there"),
        ("x.jsonl.gz", '{"id": 1}', r"x\.jsonl\.gz cannot be read: Not a gzipped file.*; check that the file is whole"),
        ("x", "{}", r"x has an unknown format; use one of \.jsonl, .*\.csv, \.tsv, \.parquet"),
    ],
)
def test_what_is_wrong_is_named_with_its_place_and_what_to_do(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message) as caught:
        read_rows(write(tmp_path / name, content))
    assert caught.value.fix
    assert str(tmp_path) in caught.value.problem


def test_a_gzip_file_with_a_wrong_checksum_gives_no_rows(tmp_path):
    whole = gzip.compress("\n".join(map(json.dumps, ROWS)).encode())
    source = write(tmp_path / "x.jsonl.gz", whole[:-8] + bytes(8))
    with pytest.raises(DataError, match=r"x\.jsonl\.gz cannot be read: CRC check failed"):
        read_rows(source)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "x"\n', r"x\.jsonl line 1 column 13 is not JSON"),
        (b'\xef\xbb\xbf{"text": "caf\xe9"}\n', r"x\.jsonl line 1 is not UTF-8: byte 0xe9 at column 14"),
        (b'{"text": NaN}\n', r"x\.jsonl line 1 holds NaN, which is not JSON; write null"),
        (b'{"n": -Infinity}\n', r"x\.jsonl line 1 holds -Infinity"),
        (b'{"n": ' + b"9" * 5000 + b"}\n", r"x\.jsonl line 1 holds a number that is too long.*; write it as text"),
    ],
)
def test_what_is_wrong_in_json_is_named_with_its_place(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read_rows(write(tmp_path / "x.jsonl", content))


def test_a_cell_may_be_longer_than_python_reads_by_itself(tmp_path):
    source = write(tmp_path / "x.csv", "id,text\na," + "x" * 200_000 + "\n")
    assert len(values(source)[0]["text"]) == 200_000


def test_broken_gzip_data_is_named(tmp_path):
    whole = gzip.compress(json.dumps(ROWS[0]).encode() * 50)
    source = write(tmp_path / "x.jsonl.gz", whole[:12] + b"\xff\xff\xff" + whole[15:])
    with pytest.raises(DataError, match=r"x\.jsonl\.gz cannot be read: .*; check that the file is whole"):
        read_rows(source)


def test_a_file_that_may_not_be_opened_is_named(tmp_path, monkeypatch):
    source = write(tmp_path / "x.jsonl", json.dumps(ROWS[0]))

    def refuse(self, mode):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(DataError, match=r"x\.jsonl cannot be read: .*Permission denied"):
        read_rows(source)


def test_parquet_columns_of_one_name_are_refused(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.Table.from_arrays([pyarrow.array(["x"]), pyarrow.array(["y"])], names=["text", "text"])
    parquet.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x\.parquet has the column 'text' twice"):
        read_rows(str(tmp_path / "x.parquet"))


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_is_not_positive_is_refused(tmp_path, limit):
    with pytest.raises(ValueError, match=f"at least 1, got {limit}"):
        read_rows(write(tmp_path / "x.jsonl", json.dumps(ROWS[0])), limit=limit)


def test_a_line_and_a_cell_without_end_are_not_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "LONGEST_LINE", 1000)
    monkeypatch.setattr(readers, "LONGEST_CELL", 2000)
    with pytest.raises(DataError, match=r"x\.jsonl\.gz line 2 is longer than 1,000 bytes"):
        read_rows(write(tmp_path / "x.jsonl.gz", gzip.compress(b'{"a": 1}\n' + b" " * 10**6)))
    with pytest.raises(DataError, match=r"x\.csv line \d+ is not valid CSV: field larger than field limit"):
        read_rows(write(tmp_path / "x.csv", 'a\n"' + ("x" * 100 + "\n") * 100 + '"\n'))


def test_parquet_of_broken_texts_is_named(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    column = pyarrow.array([b"\xff"]).cast(pyarrow.binary()).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"text": column}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"not a readable Parquet file: .*utf-8"):
        read_rows(str(tmp_path / "x.parquet"))
