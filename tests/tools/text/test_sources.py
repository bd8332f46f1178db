import gzip
import hashlib
import json
import re
import zipfile
import zlib

import pytest

from self_pruner.memory.errors import TextError
from self_pruner.tools.models.hub import HubError
from self_pruner.tools.text import sources
from self_pruner.tools.text.sources import C4_SHARDS, TextUnavailableError, text_source, whole_text
from self_pruner.tools.text.split import PARTS


def boolq(rows):
    lines = [json.dumps({"doc": {"query": f"{passage}\nQuestion: is it?\nAnswer:"}}) for passage in rows]
    return gzip.compress("\n".join(lines).encode())


def test_passages_are_split_by_article_and_lose_title_and_question(monkeypatch):
    rows = [f"Article {i // 2} -- Passage {i}." for i in range(400)]
    monkeypatch.setattr(
        sources, "bundled_text", lambda name, cache, progress: boolq([row for row in rows for _ in "ab"])
    )
    parts = {part: text_source("passages", part) for part in PARTS}
    together = [document for part in parts.values() for document in part.documents]
    assert sorted(together) == sorted(f"Passage {i}." for i in range(400))
    articles = [{int(document[8:-1]) // 2 for document in part.documents} for part in parts.values()]
    assert not articles[0] & articles[1] and not articles[1] & articles[2] and not articles[0] & articles[2]
    assert len({part.digest for part in parts.values()}) == 3
    assert text_source("passages", "fitness") == parts["fitness"]


def test_the_bundled_passages_suffice_for_calibration_fitness_and_reporting():
    words = {part: sum(len(d.split()) for d in text_source("passages", part).documents) for part in PARTS}
    assert words["calibration"] > 200_000 and words["fitness"] > 15_000 and words["reporting"] > 25_000


def test_papers_are_their_longer_sections_without_formulas(monkeypatch):
    long = "A sentence of TABREF3 as in BIBREF12 . " * 60
    paragraphs = [["Short."], [long, "", long], ["Where INLINEFORM0 is the loss. " * 90]]
    texts = [[[f"{number} {one}" for one in section] for section in paragraphs] for number in range(60)]
    papers = [{"title": f"Paper {text[0][0]}", "full_text": {"paragraphs": text}} for text in texts]
    lines = gzip.compress("\n".join(json.dumps({"doc": paper}) for paper in [*papers, *papers]).encode())
    monkeypatch.setattr(sources, "bundled_text", lambda name, cache, progress: lines)
    together = [document for part in PARTS for document in text_source("papers", part).documents]
    assert len(together) == len(set(together)) == 60
    assert all("of [3] as in [12] ." in text and "REF" not in text for text in together)


def test_the_bundled_papers_suffice_for_calibration_fitness_and_reporting():
    documents = {part: text_source("papers", part).documents for part in PARTS}
    assert min(len(document) for part in PARTS for document in documents[part]) > 1400
    assert sum(len(document.split()) for document in documents["fitness"]) > 30_000


def test_a_file_is_cut_in_parts_named_after_it(tmp_path):
    path = tmp_path / "My.txt"
    path.write_text(" ".join(f"word{i}" for i in range(5000)))
    parts = [text_source(str(path), part) for part in PARTS]
    assert {part.name for part in parts} == {"My.txt"}
    assert sum(len(document.split()) for part in parts for document in part.documents) == 5000


def test_a_missing_or_wrong_file_is_an_error_of_the_file(tmp_path):
    (tmp_path / "a.pdf").write_text("x")
    for name in ("missing.txt", "a.pdf"):
        with pytest.raises(TextError):
            text_source(str(tmp_path / name), "fitness")


@pytest.mark.parametrize(("name", "guess"), [("wikitext", "'wikitext2'"), ("passage", "'passages'")])
def test_an_unknown_name_gets_a_close_one(name, guess):
    with pytest.raises(
        TextError, match=f"passages, papers, wikitext2, c4 or a .txt or .jsonl file; did you mean {guess}"
    ):
        text_source(name, "calibration")


def test_an_unknown_part_is_a_programming_error():
    with pytest.raises(ValueError, match="unknown part 'train'"):
        text_source("passages", "train")


def test_wikitext2_comes_in_articles_of_its_own_splits(tmp_path, monkeypatch):
    archive = tmp_path / "wikitext-2-raw-v1.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for split in ("train", "valid", "test"):
            text = (
                f" \n = Title {split} = \n \n Some text . \n \n = = Section = = \n \n More . \n = Second = \n Text . \n"
            )
            opened.writestr(f"wikitext-2-raw/wiki.{split}.raw", text)
    monkeypatch.setattr(sources, "fetch_dataset_file", lambda repo, filename, revision, progress: archive)
    monkeypatch.setattr(sources, "WIKITEXT_SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    documents = text_source("wikitext2", "reporting").documents
    assert [document.split("\n")[0] for document in documents] == [" = Title test = ", " = Second = "]
    assert "Title train" in text_source("wikitext2", "calibration").documents[0]
    assert "Title valid" in text_source("WikiText2", "fitness").documents[0]
    # in one piece: the rows as the data set has them, blank ones empty, joined as published figures join them
    whole = whole_text("wikitext2")
    assert whole.startswith("\n\n = Title test = \n\n\n\n\n Some text . \n")
    (tmp_path / "rows.txt").write_text(" \n = Title test = \n \n Some text . \n")
    assert whole_text(str(tmp_path / "rows.txt")) == "\n\n = Title test = \n\n\n\n\n Some text . \n"
    (tmp_path / "rows.jsonl").write_text('{"text": "One."}\n{"text": "Two."}\n')
    assert whole_text(str(tmp_path / "rows.jsonl")) == "One.\n\nTwo."


def test_wikitext2_is_asked_for_at_a_commit_and_another_archive_is_refused(tmp_path, monkeypatch):
    asked = []

    def fetch(repo, filename, revision, progress):
        asked.append(revision)
        with zipfile.ZipFile(tmp_path / filename, "w") as opened:
            opened.writestr("wikitext-2-raw/wiki.test.raw", " = Title = \n \n Another text . \n")
        return tmp_path / filename

    monkeypatch.setattr(sources, "fetch_dataset_file", fetch)
    for read in (lambda: text_source("wikitext2", "reporting"), lambda: whole_text("wikitext2")):
        with pytest.raises(TextUnavailableError, match="has the sha256 .*, it must be ef7edb56"):
            read()
    assert all(re.fullmatch("[0-9a-f]{40}", revision) for revision in (*asked, sources.C4[1]))


def test_c4_parts_are_different_shards(tmp_path, monkeypatch):
    def fetch(repo, filename, revision, progress):
        assert repo == "allenai/c4"
        with gzip.open(tmp_path / "shard.json.gz", "wt") as opened:
            opened.writelines(json.dumps({"text": f"{filename} {i}", "url": ""}) + "\n" for i in range(5000))
        return tmp_path / "shard.json.gz"

    monkeypatch.setattr(sources, "fetch_dataset_file", fetch)
    assert len(set(C4_SHARDS.values())) == 3
    documents = text_source("c4", "reporting").documents
    assert len(documents) == sources.C4_DOCUMENTS
    assert documents[0] == "en/c4-validation.00000-of-00008.json.gz 0"


@pytest.mark.parametrize("name", ["wikitext2", "c4"])
def test_a_text_that_cannot_be_had_says_what_to_do_instead(tmp_path, monkeypatch, name):
    def unreachable(*args):
        raise HubError("the hub cannot be reached")

    monkeypatch.setattr(sources, "fetch_dataset_file", unreachable)
    with pytest.raises(TextUnavailableError, match="the hub cannot be reached; .*'passages'.*--calibration FILE"):
        text_source(name, "fitness")
    (tmp_path / "damaged").write_bytes(b"neither zip nor gzip")
    monkeypatch.setattr(sources, "fetch_dataset_file", lambda *args: tmp_path / "damaged")
    with pytest.raises(TextUnavailableError, match="--calibration FILE"):
        text_source(name, "fitness")


def test_a_shard_whose_compressed_data_is_damaged_says_what_to_do_instead(tmp_path, monkeypatch):
    shard = bytearray(gzip.compress(json.dumps({"text": "A document."}).encode()))
    shard[10] = 0b111  # behind the header: a block of a kind that there is not
    (tmp_path / "shard.json.gz").write_bytes(shard)
    with pytest.raises(zlib.error):
        gzip.decompress(shard)
    monkeypatch.setattr(sources, "fetch_dataset_file", lambda *args: tmp_path / "shard.json.gz")
    with pytest.raises(TextUnavailableError, match="cannot be read .*--calibration FILE"):
        text_source("c4", "fitness")
