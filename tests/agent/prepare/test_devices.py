"""What a run computes in: as asked, or by default what the device multiplies natively."""

import pytest
import torch

from self_pruner.agent.prepare.devices import dtype_of, multiplies_bfloat16
from self_pruner.agent.settings import Settings


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16", "bf16"])
def test_a_processor_with_products_of_bfloat16_is_known_by_any_of_them(name):
    assert multiplies_bfloat16({"architecture": "any", "avx2": True, name: True})
    assert not multiplies_bfloat16({"architecture": "any", "avx2": True, name: False})


def test_a_processor_that_would_emulate_it_computes_in_float32(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, "avx512_vnni": True})
    assert dtype_of(Settings(), "cpu") == "float32"
    assert dtype_of(Settings(), "cuda") == "bfloat16"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, "avx512_bf16": True})
    assert dtype_of(Settings(), "cpu") == "bfloat16"


def test_what_is_asked_for_is_what_one_gets(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert dtype_of(Settings(dtype="float32"), "cpu") == "float32"
    assert dtype_of(Settings(dtype="float16"), "cuda:0") == "float16"
