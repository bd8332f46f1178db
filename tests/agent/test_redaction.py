"""Access tokens do not reach a file; ordinary words do."""

import pytest

from agent.redaction import redact


@pytest.mark.parametrize(
    "secret",
    [
        "hf_AbCdEfGhIjKlMnOpQrStUvWx",
        "sk-proj-Ab12_Cd34-Ef56Gh78Ij90",
        "ghp_0123456789abcdefghijABCDEFGHIJ",
        "github_pat_11ABCDEFG0abcdefghijkl",
        "AKIAIOSFODNN7EXAMPLE",
        "lsv2_pt_0123456789abcdef",
    ],
)
def test_an_access_token_is_blotted_out(secret):
    assert redact(f"token={secret}, next") == "token=[redacted], next"


def test_a_password_in_an_address_is_blotted_out():
    assert redact("https://me:pass@host/simple") == "https://[redacted]@host/simple"


@pytest.mark.parametrize(
    "text",
    ["prune the task-specific-heads-of-layer-12", "risk-adjusted-sensitivity-of-layers", "hf_model", "3,3,2|48,40,12"],
)
def test_ordinary_text_stays(text):
    assert redact(text) == text
