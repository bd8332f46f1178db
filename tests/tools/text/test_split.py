import pytest
from hypothesis import given
from hypothesis import strategies as st

from self_pruner.tools.text.split import PARTS, SHARES, by_key, by_position, digest

TEXTS = st.lists(st.text(alphabet="ab \n", max_size=30), max_size=20)


def test_shares_fill_the_whole():
    assert sum(SHARES.values()) == pytest.approx(1)
    assert tuple(SHARES) == PARTS


@given(st.lists(st.tuples(st.sampled_from("uvwxyz"), st.text(alphabet="ab", max_size=3)), max_size=40))
def test_parts_by_key_cover_everything_once_and_share_no_document(keyed):
    parts = [by_key(keyed, part) for part in PARTS]
    together = [document for documents in parts for document in documents]
    assert sorted(together) == sorted({document for _, document in keyed})


def test_one_key_is_never_in_two_parts_and_shares_are_kept():
    keyed = [(f"article {i // 3}", f"document {i}") for i in range(6000)]
    home = {document: key for key, document in keyed}
    keys = [{home[document] for document in by_key(keyed, part)} for part in PARTS]
    assert not keys[0] & keys[1] and not keys[0] & keys[2] and not keys[1] & keys[2]
    for part in PARTS:
        assert len(by_key(keyed, part)) / 6000 == pytest.approx(SHARES[part], abs=0.02)


def test_a_document_under_two_keys_belongs_to_one():
    keyed = [(f"key {i}", "the same") for i in range(50)]
    assert sorted(len(by_key(keyed, part)) for part in PARTS) == [0, 0, 1]


@given(TEXTS)
def test_parts_by_position_are_consecutive_and_lose_only_blanks(documents):
    together = "".join("".join(by_position(documents, part)) for part in PARTS)
    assert "".join(together.split()) == "".join("".join(dict.fromkeys(documents)).split())


def test_a_single_document_is_cut_between_words():
    words = [f"word{i}" for i in range(1000)]
    parts = [by_position([" ".join(words)], part) for part in PARTS]
    assert [len(pieces) for pieces in parts] == [1, 1, 1]
    assert [word for (piece,) in parts for word in piece.split()] == words
    assert len(parts[0][0]) == pytest.approx(0.8 * len(" ".join(words)), abs=10)


def test_a_repeated_document_does_not_leak_into_another_part():
    documents = [f"line{i % 100}" for i in range(1000)]
    parts = [set(by_position(documents, part)) for part in PARTS]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]


def test_the_digest_tells_documents_and_their_order_apart():
    assert len({digest(documents) for documents in ([], ["ab"], ["a", "b"], ["b", "a"], ["a", "b", ""])}) == 5
    assert digest(["a", "b"]) == digest(("a", "b"))
