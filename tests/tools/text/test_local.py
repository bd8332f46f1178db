import json

import pytest

from self_pruner.memory.errors import TextError
from self_pruner.tools.text.local import read_documents


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_txt_is_one_document_and_jsonl_one_a_line(tmp_path):
    assert read_documents(write(tmp_path / "a.txt", "\ufeffone\r\ntwo\n")) == ["one\ntwo\n"]
    lines = '{"text": "one"}\n\n{"page": "two\\u2028", "id": 3}\r\n'
    assert read_documents(write(tmp_path / "a.jsonl", lines)) == ["one", "two\u2028"]


def test_a_line_separator_inside_a_string_does_not_end_the_line(tmp_path):
    line = json.dumps({"text": "a\u2028b"}, ensure_ascii=False)
    assert read_documents(write(tmp_path / "a.jsonl", line)) == ["a\u2028b"]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
@pytest.mark.parametrize("content", ["", " \n \n"])
def test_an_empty_file(tmp_path, name, content):
    with pytest.raises(TextError, match=f"{name}' is empty"):
        read_documents(write(tmp_path / name, content))


def test_a_jsonl_of_empty_documents_is_empty(tmp_path):
    with pytest.raises(TextError, match="is empty"):
        read_documents(write(tmp_path / "a.jsonl", '{"text": ""}\n{"text": " "}\n'))


@pytest.mark.parametrize("name", ["a.pdf", "a.parquet", "a.json", "a"])
def test_a_wrong_suffix(tmp_path, name):
    with pytest.raises(TextError, match=r"must end in \.txt or \.jsonl"):
        read_documents(write(tmp_path / name, "text"))


@pytest.mark.parametrize(
    ("content", "line", "byte"), [(b"good\ngood\nbad \xe9t\xe9\n", 3, "0xe9"), ("text".encode("utf-16"), 1, "0xff")]
)
def test_an_undecodable_file_names_line_and_byte(tmp_path, content, line, byte):
    with pytest.raises(TextError, match=f"not UTF-8 text: line {line} has the byte {byte}"):
        read_documents(write(tmp_path / "a.txt", content))


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ('{"title": "x"}', r"line 3 of .*a\.jsonl' has no text: .*'text' or 'page'.*\['title'\]"),
        ('{"text": null}', "line 3 .* has no text"),
        ('{"text": ["x"]}', "line 3 .* has no text"),
        ('"x"', "line 3 .* must be a JSON object"),
        ("{text}", "line 3 .* is no JSON"),
        ('{"text": "\\ud800"}', "line 3 .* lone surrogate"),
    ],
)
def test_a_line_that_is_no_document_is_named(tmp_path, row, fault):
    with pytest.raises(TextError, match=fault):
        read_documents(write(tmp_path / "a.jsonl", f'{{"text": "good"}}\n\n{row}\n'))


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(TextError, match="does not exist"):
        read_documents(tmp_path / "nowhere.txt")
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(TextError, match="cannot be read: Is a directory"):
        read_documents(tmp_path / "folder.txt")
