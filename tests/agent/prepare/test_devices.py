"""What a run computes in: as asked, or by default what the device multiplies natively."""

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from self_pruner.agent.prepare.devices import device_name, dtype_of, multiplies_bfloat16
from self_pruner.agent.settings.settings import Settings
from self_pruner.tools.evaluation.shortage import free_memory


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


def test_a_processor_goes_by_the_name_that_the_system_knows():
    said = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    if not said:
        pytest.skip("this system names no processor")
    assert device_name("cpu") == f"{said[0].partition(': ')[2].strip()} {torch.get_num_threads()} threads"


def test_what_is_asked_for_is_what_one_gets(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert dtype_of(Settings(dtype="float32"), "cpu") == "float32"
    assert dtype_of(Settings(dtype="float16"), "cuda:0") == "float16"


def test_free_memory_is_what_can_be_had_and_not_only_what_lies_idle(monkeypatch):
    caches = SimpleNamespace(total=100, available=70, free=10)  # most of it holds files that are on the disk as well
    monkeypatch.setattr(psutil, "virtual_memory", lambda: caches)
    assert free_memory("cpu") == 70


def test_free_memory_of_a_gpu_is_asked_of_the_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: {"cuda:1": (30, 80)}[device])
    assert free_memory("cuda:1") == 30
