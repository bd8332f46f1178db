"""What a setting takes is said in one plain sentence, whatever is wrong with what it was given."""

from __future__ import annotations

import pytest

from main import main
from self_pruner.agent.settings.allowed import allowed
from self_pruner.agent.settings.settings import Settings, make_settings
from self_pruner.memory.errors import SettingsError

WRONG = {
    "sparsity": (30.0, "--sparsity: it takes a number above 0 and below 1, got 30"),
    "top_p": (0.0, "--top-p: it takes a number above 0 and at most 1, got 0"),
    "temperature": (5.5, "--temperature: it takes a number from 0 to 5, got 5.5"),
    "minutes": (float("inf"), "--minutes: it takes a finite number above 0, got inf"),
    "brain_share": ("some", "--brain-share: it takes a number from 0 to 1, got 'some'"),
    "evaluations": (0, "--evaluations: it takes a whole number from 1 on, got 0"),
    "tokens": (1.5, "--tokens: it takes a whole number from 1 on, got 1.5"),
    "seed": (-1, "--seed: it takes a whole number from 0 on and below 9223372036854775808, got -1"),
    "mlp_unit": (12, "--mlp-unit: it takes a whole number from 8 on and a multiple of 8, got 12"),
    "fidelity": ((0, 128), "--fidelity: it takes whole numbers from 1 on with commas between, got 0"),
    "export": ("maybe", "--export: it takes true or false, got 'maybe'"),
    "brain": ("", "--brain: it takes text that is not empty, got ''"),
    "runs": (3, "--runs: it takes the path of a file or folder, got 3"),
    "dtype": ("int8", "--dtype: it takes auto, float32, bfloat16 or float16, got 'int8'"),
    "brain_quantization": ("fp4", "--brain-quantization: it takes fp8 or bitsandbytes, got 'fp4': did you mean 'fp8'?"),
    "workers": ("atuo", "--workers: it takes auto or a whole number from 1 on, got 'atuo': did you mean 'auto'?"),
    "thought_tokens": (9999, "--thought-tokens: it takes auto or a whole number from 0 to 4096, got 9999"),
    "device": ("gpu", "--device: it takes auto, cpu, cuda or cuda:N, got 'gpu'"),
    "ray_address": ("head", "--ray-address: it takes auto or a host with a port, such as head:6379, got 'head'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_allowed_is_said(name):
    value, sentence = WRONG[name]
    with pytest.raises(SettingsError) as refused:
        make_settings({name: value})
    assert str(refused.value) == sentence


def test_an_arm_that_is_misspelt_is_answered_with_the_one_that_was_meant():
    with pytest.raises(SettingsError, match=r"^--arm: it takes hybrid, .* or uniform, got 'hybird': did you mean 'hy"):
        make_settings({"arm": "hybird"})


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--sparsity", "abc"], "--sparsity: it takes a number above 0 and below 1, got 'abc'"),
        (["--evaluations", "1.5"], "--evaluations: it takes a whole number from 1 on, got '1.5'"),
        (["--tokens", "9" * 5000], f"--tokens: it takes a whole number from 1 on, got '{'9' * 5000}'"),
        (["--workers", "0"], "--workers: it takes auto or a whole number from 1 on, got '0'"),
        (["compare", "--tokens", "many"], "--tokens: it takes a whole number from 1 on, got 'many'"),
    ],
)
def test_a_command_line_says_the_same(words, sentence, capfd):
    assert main(words) == 2
    errors = capfd.readouterr().err
    assert errors == f"error: {sentence}\n"


def test_every_setting_has_words_for_what_it_takes():
    for name, field in Settings.model_fields.items():
        said = allowed(field)
        assert said and said[0] not in "'[<" and "Annotated" not in said and "NoneType" not in said
        assert said != field.description or name == "device"  # whose help is what it takes; others say what they do
