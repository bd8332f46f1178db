"""What memory, a GPU and the disk hold of a run, line by line."""

from dataclasses import replace

import pytest

from benchmarks.placements import machine
from self_pruner.agent.prepare.bill import REMEMBERED
from self_pruner.agent.settings.settings import Settings
from self_pruner.tools.pruning.compensation import slice_bytes
from tests.agent.dry_run.smollm2 import HERE, SHAPE, SIZES, placement


def held(placed, where):
    return {line.what: line.bytes for line in placed.lines if line.where == where}


def test_memory_and_disk_hold_weights_grams_targets_and_the_checkpoint():
    found = held(placement(), "memory")
    assert found["Weights of 30 layers, embedding and head"] == 4 * 134_515_008
    assert found["Gram matrices"] == 4 * 30 * (576**2 + 1536**2)
    # 4,096 tokens to rank on, 3,072 for the final choice, four windows of 1,536 for sensitivities, 5,120 to report on
    assert found["Dense targets"] == 18_432 * (512 * 8 + 12)
    written = held(placement(), "the disk")
    assert written["The pruned checkpoint"] == 4 * SIZES.budget.target_params
    assert written["The checkpoint, to be fetched"] == 93_000_000
    assert "The pruned checkpoint" not in held(placement(settings=Settings(export=False)), "the disk")


def test_where_layers_are_streamed_memory_holds_those_at_work_and_one_gram_matrix():
    found = held(placement(mode="streamed"), "memory")
    other = 134_515_008 - 30 * SIZES.layer
    assert found["Weights of 3 layers at a time, embedding and head"] == 4 * (other + 3 * SIZES.layer)
    assert found["Gram matrices of a layer"] == 4 * (576**2 + 1536**2)


def test_on_a_gpu_the_weights_lie_on_it_and_the_gram_matrices_do_not():
    there = machine(24, memory=64)
    near, far = (held(placement(there=there), where) for where in ("cuda:0", "memory"))
    assert REMEMBERED in near and "Weights of 30 layers, embedding and head" in near
    assert "Gram matrices" in far and "Dense targets" in far


def test_plain_slices_have_no_refits_to_remember():
    plain, refitted = (held(placement(settings=Settings(compensation=name)), "memory") for name in ("none", "lstsq"))
    assert refitted[REMEMBERED] == 1 << 30 and REMEMBERED not in plain
    placed = {name: placement(settings=Settings(compensation=name)) for name in ("none", "lstsq")}
    kept = {name: "Refits of the recalibration" in held(one, "the disk") for name, one in placed.items()}
    assert kept == {"none": False, "lstsq": True}


@pytest.mark.parametrize("name", ["none", "bias"])
def test_plain_slices_have_a_gram_matrix_and_blocks_at_work_and_refits_have_three(name):
    wide, gram = replace(SIZES, shape=replace(SHAPE, intermediate=16_384)), 4 * 16_384**2

    def at_work(where, compensation, sizes=wide, there=HERE):
        placed = placement(sizes, there, settings=Settings(compensation=compensation))
        return held(placed, where)["A place at work, logits"]

    assert at_work("memory", name) == gram + slice_bytes(16_384, 576) < 1.02 * gram
    there = machine(24, memory=64)
    assert at_work("cuda:0", name, there=there) == at_work("memory", name) + gram  # as it came, and in order
    on_disk = placement(wide, there, mode="streamed", settings=Settings(compensation=name))
    read = held(on_disk, "cuda:0")["A place at work, logits"]
    assert read == at_work("memory", name)  # a few rows at a time, which are put in order as they come
    logits = at_work("memory", name, sizes=SIZES)
    assert at_work("memory", "lstsq") == at_work("cuda:0", "lstsq", there=there) == 3 * gram + logits
