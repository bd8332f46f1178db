import random

import pytest
import torch
from transformers import AutoTokenizer

from self_pruner.memory.errors import TextError
from self_pruner.tools.text.tokens import BATCH, BEYOND, CHARACTERS, sequences


class Letters:
    """A tokenizer of one token a letter that counts the documents it read."""

    def __init__(self, eos_token_id=0):
        self.eos_token_id, self.read = eos_token_id, 0

    def __call__(self, text, add_special_tokens, verbose=True):
        assert add_special_tokens is False
        if isinstance(text, str):
            return {"input_ids": [ord(letter) for letter in text]}
        self.read += len(text)
        return {"input_ids": [[ord(letter) for letter in document] for document in text]}


class Counting:
    """A real tokenizer that counts the characters it is handed."""

    def __init__(self, tokenizer):
        self.tokenizer, self.eos_token_id, self.characters = tokenizer, tokenizer.eos_token_id, 0

    def __call__(self, text, **options):
        self.characters += sum(map(len, text))
        return self.tokenizer(text, **options)


WORDS = ["The ", "pruned", "model's ", "\n\n", "    ", "\t", "naïve ", "12345 ", "層を切る", "🙂 ", "def f(x):\n"]


def long_text(words: int, seed: int) -> str:
    """Words and runs of spaces, digits, letters of several scripts, in any order."""
    return "".join(random.Random(seed).choices(WORDS, k=words))


def test_documents_end_with_eos_and_are_cut_into_rows():
    rows = sequences(["ab", "cde"], Letters(), n=2, length=3)
    assert rows.dtype == torch.int64
    assert rows.tolist() == [[97, 98, 0], [99, 100, 101]]


def test_a_tokenizer_without_eos_separates_by_a_blank_line():
    assert sequences(["a", "b"], Letters(eos_token_id=None), n=1, length=4).tolist() == [[97, 10, 10, 98]]


def test_the_shorter_request_is_a_prefix_of_the_longer():
    documents = ["some text here"] * 5
    long = sequences(documents, Letters(), n=6, length=10)
    assert torch.equal(sequences(documents, Letters(), n=3, length=10), long[:3])


def test_only_as_many_documents_are_read_as_are_needed():
    tokenizer = Letters()
    sequences(["letters"] * 100 * BATCH, tokenizer, n=1, length=8)
    assert tokenizer.read == 10  # of 7 letters, for 8 tokens of at most 8 characters


@pytest.mark.parametrize(("documents", "there"), [([], 0), (["abc"], 4), (["x" * 1500], "1,501")])
def test_too_little_text_says_how_much_there_is_and_is_needed(documents, there):
    with pytest.raises(TextError, match=f"My.txt is too short: it has {there} tokens, .* need 2,048"):
        sequences(documents, Letters(), n=2, length=1024, name="My.txt")


def test_a_text_may_have_fewer_sequences_than_wanted_if_it_has_the_least():
    documents = ["abcdefg"] * 3  # 24 tokens with EOS
    rows = sequences(documents, Letters(), n=9, length=10, least=2)
    assert torch.equal(rows, sequences(documents, Letters(), n=2, length=10))
    with pytest.raises(TextError, match="it has 24 tokens, and 3 sequences of 10 need 30"):
        sequences(documents, Letters(), n=9, length=10, least=3)


def test_the_exact_amount_is_enough():
    assert sequences(["abc"], Letters(), n=2, length=2).shape == (2, 2)


def test_the_real_tokenizer_adds_nothing_but_eos(bundled_folder, capfd):
    tokenizer = AutoTokenizer.from_pretrained(bundled_folder)
    tokenizer.model_max_length = 8
    rows = sequences(
        ["Hello world, this is a test of more tokens than the model takes."] * 3, tokenizer, n=4, length=10
    )
    text = tokenizer.decode(rows.flatten())
    assert text.startswith("Hello world, this is a test") and "takes." + tokenizer.eos_token + "Hello" in text
    assert tokenizer.eos_token not in text.split(".")[0]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("before", [[], ["A short document first.", "And another."]])
@pytest.mark.parametrize(("n", "length"), [(1, 1), (1, 200), (3, 333)])
def test_of_a_long_document_only_a_head_is_tokenised_and_the_tokens_are_those_of_the_whole(
    bundled_folder, before, n, length
):
    tokenizer = AutoTokenizer.from_pretrained(bundled_folder)
    for seed in range(6):
        document = long_text(30_000, seed)
        whole = [*before, document]
        expected = [token for ids in tokenizer(whole)["input_ids"] for token in (*ids, tokenizer.eos_token_id)]
        counting = Counting(tokenizer)
        rows = sequences([*whole, "never read"], counting, n=n, length=length)
        assert rows.flatten().tolist() == expected[: n * length]
        head = CHARACTERS * (n * length + BEYOND) + len("".join(before))
        assert counting.characters < head + 100 < len(document) / 2


def test_a_head_with_too_few_tokens_is_doubled_and_a_text_without_spaces_is_read_whole(bundled_folder):
    tokenizer = AutoTokenizer.from_pretrained(bundled_folder)
    sparse = " ".join(["=" * 64] * 2000) + " and then some words" * 20_000  # few tokens for so many characters
    words = "word" * 30_000
    for document, most in ((sparse, 4 * CHARACTERS * (200 + BEYOND)), (words, len(words))):
        counting = Counting(tokenizer)
        rows = sequences([document], counting, n=2, length=100)
        assert rows.flatten().tolist() == tokenizer([document])["input_ids"][0][:200]
        assert CHARACTERS * (200 + BEYOND) < counting.characters <= most


def test_a_long_document_after_enough_short_ones_adds_nothing():
    assert sequences(["abcd", "x " * 90_000], Letters(), n=1, length=5).tolist() == [[97, 98, 99, 100, 0]]
