import pytest
import torch
from transformers import AutoTokenizer

from self_pruner.memory.errors import TextError
from self_pruner.tools.text.tokens import BATCH, sequences


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
