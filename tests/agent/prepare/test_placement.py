"""Where everything goes, on machines that are not here, and what is refused by the same figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.placements import MACHINES, machine, target_of
from self_pruner.agent.prepare import devices, placement
from self_pruner.agent.prepare.bill import needed, short_of
from self_pruner.agent.prepare.devices import Machine, this_machine
from self_pruner.agent.prepare.kept import check_disk
from self_pruner.agent.prepare.placement import Placement, place
from self_pruner.agent.settings.settings import Settings
from self_pruner.memory.errors import SettingsError
from self_pruner.tools.engines.share import BESIDE

TYPES = ("bfloat16", "float32")
NOWHERE = Path("no-cache")


def placed(model: str, name: str = "", there: Machine | None = None, **settings) -> Placement:
    asked = Settings(model=model, cache=NOWHERE, **settings)
    there = there or MACHINES[name]
    return place(asked, target_of(asked, there), there)


@pytest.mark.parametrize(
    "name, mode",
    [
        ("1 x 24 GB", "streamed"),
        ("1 x 80 GB", "streamed"),
        ("2 x 80 GB", "spread"),
        ("8 x 80 GB", "spread"),
        ("no GPU, 32 GB", "streamed"),
    ],
)
def test_seventy_billion_parameters_find_a_place_on_every_machine(name, mode):
    found, there = placed("llama-2-70b", name), MACHINES[name]
    assert found.mode == mode and found.fault is None
    assert not short_of(found.lines, there, recalibration=found.recalibrates)
    on_disk = {line.what: line.bytes for line in found.lines if line.where == "the disk"}
    assert on_disk["The checkpoint, to be fetched"] == 2 * 68_976_648_192
    assert on_disk["Gram matrices and dense targets"] > 4 * 80 * (8192**2 + 28672**2)
    assert sum(found.layers.values()) == (80 if mode == "spread" else 0)


@pytest.mark.parametrize(
    "model, mode", [("llama-2-7b", "resident"), ("llama-3-8b", "resident"), ("llama-2-13b", "streamed")]
)
def test_models_on_one_gpu_of_24_gb_have_room_for_all_that_is_done_with_them(model, mode):
    found = placed(model, there=machine(24, memory=64))
    assert (found.mode, found.fault, found.recalibrates) == (mode, None, True)
    assert found.grams_on_disk == (mode == "streamed")


def test_hidden_states_go_to_main_memory_where_the_gpu_has_no_room_for_a_recalibration():
    small, large = (
        placed("llama-2-7b", there=machine(24, memory=64)),
        placed("llama-2-7b", there=machine(80, memory=64)),
    )
    assert small.states == "memory" and large.states is None
    assert needed(small.lines, "memory") - needed(large.lines, "memory") > 1 << 33


def test_gram_matrices_go_to_the_disk_where_memory_is_too_small_for_all_of_them():
    found = placed("llama-2-70b", "2 x 80 GB")
    assert found.grams_on_disk and not placed("llama-2-70b", "8 x 80 GB").grams_on_disk


def test_layers_are_spread_so_that_the_fullest_gpu_has_the_most_room():
    uneven = machine(80, 48, 80, memory=512)
    found = placed("llama-2-70b", there=uneven)
    left = [gpu.free - needed(found.lines, gpu.name, recalibration=False) for gpu in uneven.gpus]
    assert found.mode == "spread" and sum(found.layers.values()) == 80 and min(left) > 0
    assert found.layers["cuda:1"] < found.layers["cuda:2"]
    assert max(left) - min(left) < 2 * found.sizes.layer_bytes
    assert found.layer_devices == sorted(found.layer_devices) and len(found.layer_devices) == 80


@pytest.mark.parametrize(
    "settings, there, words",
    [
        (
            {"placement": "resident"},
            machine(24, memory=64),
            ["of cuda:0, where 25 GB are free", "--placement auto would fit"],
        ),
        ({"placement": "spread"}, machine(24, memory=64), ["several GPUs, and 1 can be used here"]),
        ({"placement": "spread"}, machine(memory=64), ["several GPUs, and none can be used here"]),
        ({}, machine(12, memory=64), ["of cuda:0, where 13 GB are free", "--device cpu would fit"]),
        ({}, machine(memory=16), ["of memory, where 17 GB are free", "take a smaller model"]),
        ({}, machine(80, memory=64, disk=500), ["of the disk, where 500 GB are free", "--no-export would fit"]),
        ({}, machine(80, memory=64, disk=100), ["of the disk", "HF_HOME=FOLDER or --cache FOLDER or --runs FOLDER"]),
        ({"speedup": 1.2}, machine(80, memory=64), ["a budget in time needs a model in memory"]),
    ],
)
def test_what_cannot_be_is_one_sentence_with_what_is_needed_and_what_would_help(settings, there, words):
    asked = Settings(model="llama-2-70b", cache=NOWHERE, **settings)
    found = place(asked, target_of(asked.without_time(), there), there)
    assert found.fault is not None and all(each in found.fault for each in words), found.fault
    assert "\n" not in found.fault


def test_a_vllm_for_the_brain_gets_gpus_of_its_own_or_a_share_of_one():
    small = placed("llama-2-7b", there=machine(80, memory=64), brain="vllm")
    assert small.share is not None and small.share.gpus == ("cuda:0",) and small.reserved("cuda") == small.share.bytes
    assert 0.2 < small.share.fraction < 0.3 and small.applied(Settings(brain="vllm")).brain_quantization is None
    assert needed(small.lines, "cuda:0") <= small.machine.gpus[0].free
    many = placed("llama-2-70b", "8 x 80 GB", brain="vllm")
    assert many.share is not None and len(many.share.gpus) in (4, 8) and "The brain is a vLLM" in many.brain(Settings())
    # on two, the layers make room for it
    two = placed("llama-2-70b", "2 x 80 GB", brain="vllm", brain_quantization="fp8")
    assert two.streamed and two.share == replace(two.share, gpus=("cuda:1",), quantization="fp8")


def test_the_share_of_a_vllm_is_sized_by_the_type_that_it_serves():
    half, whole = (placed("llama-2-7b", there=machine(80, memory=64), brain="vllm", dtype=dtype) for dtype in TYPES)
    assert half.share.bytes - BESIDE == half.sizes.weights + half.sizes.served_cache
    assert whole.share.bytes - BESIDE == 2 * (half.share.bytes - BESIDE)


def test_a_vllm_for_the_brain_is_billed_to_memory_where_there_is_no_gpu():
    own, served = (placed("llama-2-7b", there=machine(memory=80), brain=name) for name in ("first", "vllm"))
    more = needed(served.lines, "memory") - needed(own.lines, "memory")
    assert more > served.sizes.weights + served.sizes.served_cache and served.reserved("cpu") == more
    assert own.reserved("cpu") == 0 and served.share is None
    short = placed("llama-2-7b", there=machine(memory=16), brain="vllm", dtype="bfloat16")
    assert "of memory, where" in short.fault and "--brain self would fit" in short.fault
    assert placed("llama-2-7b", there=machine(memory=16), dtype="bfloat16").fault is None


def test_a_brain_that_does_not_fit_beside_the_model_is_refused_with_what_to_do():
    found = placed("llama-2-13b", there=machine(24, memory=64), brain="vllm")
    assert (
        "needs 26 GB for its weights alone" in found.fault
        and "--brain-quantization bitsandbytes would fit" in found.fault
    )
    found = placed("llama-2-70b", "1 x 24 GB", brain="vllm")
    assert "--brain-url" in found.fault
    assert placed("llama-2-70b", "1 x 24 GB", brain="vllm", brain_url="http://localhost:1/v1").fault is None
    assert placed("llama-2-70b", "1 x 24 GB", brain="vllm", arm="evolution").fault is None


def test_a_quantization_that_nobody_would_heed_is_refused(monkeypatch):
    asked = {"model": "llama-2-7b", "brain_quantization": "fp8"}
    gpu, none = machine(80, memory=64), machine(memory=80)
    found = placed(there=gpu, **asked)
    assert found.fault and "give --brain vllm with it" in found.fault
    with pytest.raises(SettingsError, match="^--brain-quantization is for a vLLM, and this brain is asked in this"):
        found.refuse()
    assert "on a GPU, and none can be used here" in placed(there=none, brain="vllm", **asked).fault
    assert placed(there=gpu, brain="vllm", **asked).share.quantization == "fp8"
    assert placed(there=gpu, brain="vllm", **asked).fault is None
    assert placed(there=gpu, arm="evolution", **asked).fault is None  # as an arm of a comparison
    settings = Settings(cache=NOWHERE, **asked)
    assert place(settings, target_of(settings, gpu), gpu, begun=True).fault is None
    monkeypatch.setattr(placement, "VLLM", SimpleNamespace(is_there=lambda path: True, python=lambda path: path))
    streamed = placed(there=machine(80, 80, memory=256), placement="streamed", **asked)
    assert streamed.fault is None and streamed.share.quantization == "fp8"


def test_the_brain_of_a_streamed_model_is_a_vllm_where_there_is_one_and_else_writes_no_thoughts(monkeypatch):
    asked = Settings(model="llama-2-70b")
    alone = placed("llama-2-70b", "2 x 80 GB", placement="streamed")
    assert alone.share is None and "writes no thoughts" in alone.brain(asked)
    applied = alone.applied(asked)
    assert (applied.brain, applied.thought_tokens, applied.benchmarks) == ("self", 0, 0)
    assert (
        applied.brain_seconds > 3600
        and alone.applied(asked.model_copy(update={"brain_seconds": 9.0})).brain_seconds == 9
    )
    assert alone.applied(asked.model_copy(update={"thought_tokens": 16})).thought_tokens == 16
    monkeypatch.setattr(placement, "VLLM", SimpleNamespace(is_there=lambda path: True, python=lambda path: path))
    served = placed("llama-2-70b", "2 x 80 GB", placement="streamed")
    applied = served.applied(asked)
    assert (applied.brain, applied.brain_quantization) == ("vllm", "fp8") and served.share.gpus == ("cuda:1",)
    assert "a vLLM on cuda:1 in fp8" in served.brain(asked)


def test_what_a_run_was_begun_with_is_not_asked_of_its_disk_again():
    there = machine(80, memory=128, disk=100)
    asked = Settings(model="llama-2-70b", cache=NOWHERE)
    target = target_of(asked, there)
    assert place(asked, target, there).fault and place(asked, target, there, begun=True).fault is None


def test_a_run_without_room_to_recalibrate_says_so_and_is_made():
    small = machine(memory=28)
    found = placed("llama-2-70b", there=small)
    assert not found.recalibrates and "no room to recalibrate, which takes" in str(found)
    assert found.fault is None and not found.applied(Settings()).recalibrate
    assert "no room to recalibrate" not in str(placed("llama-2-70b", there=small, recalibrate=False))
    wide = placed("llama-2-70b", "no GPU, 32 GB")
    assert wide.recalibrates and wide.applied(Settings()).recalibrate


def test_gram_matrices_that_the_cache_has_are_not_asked_of_the_disk(model, tmp_path):
    asked = Settings(model=str(model), cache=tmp_path, runs=tmp_path / "runs")
    there = this_machine(asked)
    target = target_of(asked, replace(there, gpus=()))
    before = place(asked, target, there)
    kept = tmp_path / "calibration" / "some.safetensors"
    kept.parent.mkdir()
    kept.write_bytes(bytes(before.sizes.shape.gram_bytes + 1000))
    after = place(asked, target, there)
    disk = there.disks["cache"].name
    assert needed(before.lines, disk) - needed(after.lines, disk) == before.sizes.shape.gram_bytes


def test_a_calibration_without_room_on_the_disk_is_refused_once_it_is_known_to_be_wanted(tmp_path):
    check_disk("tiny", 1000, tmp_path / "cache")
    with pytest.raises(SettingsError, match=r"needs 1,152,922 TB of disk in .* --cache"):
        check_disk("tiny", 1 << 60, tmp_path / "cache")


def test_this_machine_has_memory_and_each_disk_once(tmp_path):
    there = this_machine(Settings(cache=tmp_path / "not" / "yet", runs=tmp_path / "runs"))
    assert there.memory.free <= there.memory.total and there.first in there.devices
    assert there.disks["cache"] == there.disks["runs"] and 0 < there.disks["runs"].free <= there.disks["runs"].total


@pytest.mark.parametrize("brain", ["self", "FOLDER"])
def test_the_disk_of_the_hub_is_named_where_something_is_fetched_to_it(tmp_path, model, monkeypatch, brain):
    hub, cache = tmp_path / "hub", tmp_path / "cache"
    monkeypatch.setattr(devices.constants, "HF_HUB_CACHE", str(hub))
    places = {"cache": cache, "runs": tmp_path / "runs", "brain": brain.replace("FOLDER", str(model))}

    def disks(**settings):
        return {use: disk.name for use, disk in this_machine(Settings(**(places | settings))).disks.items()}

    # all lie on one file system, which is called by who comes first
    assert set(disks(model=str(model)).values()) == {f"the disk of {cache}"}
    assert set(disks(model="smollm2-135m").values()) == {f"the disk of {cache}"}
    assert set(disks(model="llama-2-7b").values()) == {f"the disk of {hub}"}
    assert set(disks(model="some/model").values()) == {f"the disk of {hub}"}
