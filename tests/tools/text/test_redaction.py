"""Access tokens do not reach a file; ordinary words do."""

import base64
import html
import json
from datetime import datetime
from urllib.parse import quote, quote_plus

import pytest

from self_pruner.agent.run_files.environment import describe
from self_pruner.tools.text.redaction import KEYS, redact


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


VALUE = "Zürich/of+\\9\"'&key"


@pytest.mark.parametrize("name", KEYS)
def test_the_value_of_a_variable_that_holds_a_key_is_blotted_out_in_every_likely_form(name, monkeypatch):
    monkeypatch.setenv(name, VALUE + "\n")
    dumped = VALUE
    forms = [VALUE, repr(VALUE)[1:-1], quote(VALUE), quote(VALUE, safe=""), quote_plus(VALUE), html.escape(VALUE)]
    for _ in range(3):
        dumped = json.dumps(dumped)[1:-1]
        forms.append(dumped)
    forms += [json.dumps(VALUE, ensure_ascii=False)[1:-1], json.dumps(VALUE)[1:-1].replace("/", "\\/")]
    for form in forms:
        assert redact(f"x{form}y") == "x[redacted]y", form
    for before in ("", "user:", "Bearer ", "key="):
        encoded = base64.b64encode(f"{before}{VALUE}!".encode()).decode()
        hidden = redact(encoded)
        assert "[redacted]" in hidden and len(hidden.replace("[redacted]", "")) <= len(before) * 4 // 3 + 8
    monkeypatch.delenv(name)
    assert redact(VALUE) == VALUE


def test_a_value_too_short_to_be_a_secret_is_left_alone(monkeypatch):
    monkeypatch.setenv("SELF_PRUNER_BRAIN_KEY", "EMPTY")
    assert redact("EMPTY or not") == "EMPTY or not"


def test_a_key_in_the_command_line_does_not_reach_the_environment_file(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "no-usual-form")
    monkeypatch.setattr("sys.argv", ["main.py", "--prompts", "no-usual-form"])
    assert "no-usual-form" not in json.dumps(describe("cpu", 0, datetime(2026, 1, 1)))
