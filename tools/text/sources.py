"""The texts a model is calibrated, judged and reported on, each by name or from a file.

Two need no hub: `passages`, the Wikipedia passages of the BoolQ validation set (Clark et al., arXiv 1905.10044), and
`papers`, sections of the papers that the yes-no questions of QASPER are about (Dasigi et al., arXiv 2105.03011), longer
and of one piece. `wikitext2` is WikiText-2 raw (Merity et al., arXiv 1609.07843) with its own three splits; `c4` is
three shards of the validation set of C4 (Raffel et al., arXiv 1910.10683), the first of which published figures report
on.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import get_args

from self_pruner.memory.errors import SelfPrunerError, TextError, meant
from self_pruner.memory.paths import expanded
from self_pruner.tools.models.bundled import bundled_text
from self_pruner.tools.models.hub import HubError, fetch_dataset_file
from self_pruner.tools.text import split
from self_pruner.tools.text.local import NAMES, SUFFIXES, parse_lines, read_documents
from self_pruner.tools.text.split import Part

Progress = Callable[[int, int], None]

# The archive of the raw files as it was first published; the data set proper has parquet only.
WIKITEXT = ("ggml-org/ci", "wikitext-2-raw-v1.zip", "927b3642933080f1b0e811e2f916e14c292992f9")
WIKITEXT_SHA256 = "ef7edb566e3e2b2d31b29c1fdb0c89a4cc683597484c3dc2517919c615435a11"
WIKITEXT_MEMBERS: dict[Part, str] = {
    "calibration": "wikitext-2-raw/wiki.train.raw",
    "fitness": "wikitext-2-raw/wiki.valid.raw",
    "reporting": "wikitext-2-raw/wiki.test.raw",
}
C4 = ("allenai/c4", "1588ec454efa1a09f29cd18ddd04fe05fc8653a2")
C4_SHARDS: dict[Part, str] = {
    "calibration": "en/c4-validation.00002-of-00008.json.gz",
    "fitness": "en/c4-validation.00001-of-00008.json.gz",
    "reporting": "en/c4-validation.00000-of-00008.json.gz",
}
C4_DOCUMENTS = 4000  # of the 45,000 in a shard: two million tokens
SECTION = 1500  # characters that a section of a paper must have: about as many as a sequence
FORMULA = re.compile("(?:INLINE|DISPLAY)FORM[0-9]")  # stands where a formula was
REFERENCE = re.compile("(?:BIB|SEC|FIG|TAB)REF([0-9]+)")
ARTICLE = re.compile(r"^(?= = [^=\n]+ = \n)", re.MULTILINE)  # before every title


class TextUnavailableError(SelfPrunerError):
    """A named text could not be had; a file of one's own always can."""


@dataclass(frozen=True, slots=True)
class TextPart:
    """One part of a text, disjoint from its other parts."""

    name: str  # one of `NAMES`, or the file's name
    part: Part
    documents: tuple[str, ...]
    digest: str  # hex, of the documents in their order


def text_source(
    name_or_path: str, part: Part, *, cache: Path | None = None, progress: Progress | None = None
) -> TextPart:
    """One part of a named text or of a `.txt` or `.jsonl` file; the three parts never share a document.

    Args:
        name_or_path: one of `NAMES`, or a path; a file is cut in the shares of `split.SHARES`, in its order.
        part: which of the three.
        cache: where the bundled texts are kept; None for the default.
        progress: called with (bytes fetched, bytes in all) while something is fetched.

    Raises:
        TextError: for a name that is no known text and no file; names close ones.
        TextError: for a file that is empty, undecodable or malformed.
        TextUnavailableError: when the text must be fetched and cannot be.
        ModelError: when the bundled texts cannot be had.
    """
    if part not in get_args(Part):
        raise ValueError(f"unknown part {part!r}; it must be one of {get_args(Part)}")
    path = expanded(name_or_path)
    name = name_or_path.lower()
    if name == "passages":
        documents = split.by_key(_passages(bundled_text(name, cache, progress)), part)
    elif name == "papers":
        documents = split.by_key(_papers(bundled_text(name, cache, progress)), part)
    elif name == "wikitext2":
        documents = _wikitext2(part, progress)
    elif name == "c4":
        documents = _c4(part, progress)
    elif path.suffix.lower() in SUFFIXES or path.exists():
        name, documents = path.name, split.by_position(read_documents(path), part)
    else:
        allowed = f"give {', '.join(NAMES)} or a {' or '.join(SUFFIXES)} file"
        raise TextError(f"unknown text {name_or_path!r}: {allowed}{meant(name, NAMES, before='; ')}")
    return TextPart(name, part, documents, split.digest(documents))


@lru_cache(maxsize=1)  # a run reads several parts of it, one after another
def _passages(lines: bytes) -> list[tuple[str, str]]:
    """(article, passage) of every question in BoolQ's requests; a query is article, passage, then the question."""
    pairs = []
    for line in gzip.decompress(lines).splitlines():
        passage = json.loads(line)["doc"]["query"].rpartition("\nQuestion: ")[0]
        article, _, text = passage.partition(" -- ")
        pairs.append((article, text))
    return pairs


@lru_cache(maxsize=1)
def _papers(lines: bytes) -> list[tuple[str, str]]:
    """(paper, section) of every longer section without formulas; references become numbers in brackets."""
    papers = {}
    for line in gzip.decompress(lines).splitlines():
        paper = json.loads(line)["doc"]
        papers[paper["title"]] = paper["full_text"]["paragraphs"]
    sections = [(title, "\n".join(filter(None, section))) for title, text in papers.items() for section in text]
    return [
        (title, REFERENCE.sub(r"[\1]", text))
        for title, text in sections
        if len(text) >= SECTION and not FORMULA.search(text)
    ]


def whole_text(name_or_path: str, progress: Progress | None = None) -> str:
    """A text in one piece, as published perplexities read it.

    Of `wikitext2` and of a `.txt` file the rows are joined by blank lines, empty rows among them, as GPTQ, Wanda and
    FLAP join those of WikiText-2's test split; of a `.jsonl` file the documents.

    Args:
        name_or_path: `wikitext2`, or a `.txt` or `.jsonl` file, read in full.
        progress: called with (bytes fetched, bytes in all) while something is fetched.

    Raises:
        TextError: another name.
        TextError: a file that is empty, undecodable or malformed.
        TextUnavailableError: the text must be fetched and cannot be.
    """
    path = expanded(name_or_path)
    if name_or_path.lower() == "wikitext2":
        return "\n\n".join(_rows(_wikitext2_split("reporting", progress)))
    if path.suffix.lower() not in SUFFIXES and not path.exists():
        raise TextError(
            f"unknown text {name_or_path!r}: a text in one piece is wikitext2 or a {' or '.join(SUFFIXES)} file"
        )
    documents = read_documents(path)
    return "\n\n".join(documents if path.suffix.lower() == ".jsonl" else _rows(documents[0]))


def _rows(text: str) -> list[str]:
    """The rows of a raw file as data sets have them: with their line feed, blank ones empty."""
    return [row if row.strip() else "" for row in io.StringIO(text)]


def _wikitext2(part: Part, progress: Progress | None) -> tuple[str, ...]:
    """The articles of one split of WikiText-2 raw, as they stand in the official file."""
    return tuple(article for article in ARTICLE.split(_wikitext2_split(part, progress)) if article.strip())


def _wikitext2_split(part: Part, progress: Progress | None) -> str:
    """One split of WikiText-2 raw, the official file: of an archive with the very hash, or of none."""
    repo, filename, revision = WIKITEXT
    path = _fetch("wikitext2", repo, filename, revision, progress)
    try:
        with open(path, "rb") as archive:
            found = hashlib.file_digest(archive, "sha256").hexdigest()
        if found != WIKITEXT_SHA256:
            raise _unavailable("wikitext2", f"{path} has the sha256 {found}, it must be {WIKITEXT_SHA256}")
        with zipfile.ZipFile(path) as opened:
            return opened.read(WIKITEXT_MEMBERS[part]).decode()
    except (OSError, zipfile.BadZipFile, KeyError, UnicodeDecodeError) as error:
        raise _unavailable("wikitext2", f"{filename} in {repo} is not what it was ({error})") from error


def _c4(part: Part, progress: Progress | None) -> tuple[str, ...]:
    """The first documents of one validation shard of C4."""
    repo, revision = C4
    path = _fetch("c4", repo, C4_SHARDS[part], revision, progress)
    try:
        with gzip.open(path, "rt", encoding="utf-8") as opened:
            lines = [line for line, _ in zip(opened, range(C4_DOCUMENTS), strict=False)]
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise _unavailable("c4", f"{C4_SHARDS[part]} in {repo} cannot be read ({error})") from error
    return tuple(dict.fromkeys(parse_lines("".join(lines), C4_SHARDS[part])))


def _fetch(name: str, repo: str, filename: str, revision: str, progress: Progress | None) -> Path:
    """The file from the hub, or an error that says what to do without it."""
    try:
        return fetch_dataset_file(repo, filename, revision, progress)
    except HubError as error:
        raise _unavailable(name, str(error)) from error


def _unavailable(name: str, reason: str) -> TextUnavailableError:
    return TextUnavailableError(
        f"the text {name!r} cannot be had: {reason}; give the default 'passages', or a file of your own with"
        " --calibration FILE (.txt, or .jsonl with a 'text' field)"
    )
