"""How many workers there are: one for each GPU or machine, or as many as are asked for, where they have room."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.placements import machine, target_of
from self_pruner.agent.prepare.bill import needed
from self_pruner.agent.prepare.placement import place
from self_pruner.agent.prepare.workers import with_workers, workers_of
from self_pruner.agent.settings.settings import Settings, make_settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import SettingsError
from self_pruner.tools.evaluation.workers import cluster
from self_pruner.tools.evaluation.workers.pool import Room
from tests.command_line import given

HERE = SimpleNamespace(mode="resident", admits_workers=True)  # a placement

pytestmark = pytest.mark.skipif(not cluster.installed(), reason="Ray is not installed")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--workers", "0"], "--workers: it takes auto or a whole number from 1 on"),
        (["--workers", "-2"], "--workers: it takes auto or a whole number from 1 on"),
        (["--workers", "many"], "--workers: it takes auto or a whole number from 1 on"),
        (
            ["--ray-address", "ray://head:10001"],
            "--ray-address: it takes auto or a host with a port",
        ),
        (["--ray-address", "head:6379", "--workers", "1"], "--ray-address is for several workers"),
        (["--workers", "2", "--device", "cuda:1"], "--device cuda:1 is one GPU, and workers have one each"),
    ],
)
def test_workers_that_cannot_be_are_refused_in_a_sentence(words, sentence):
    with pytest.raises(SettingsError, match=sentence):
        make_settings(given(words))


@pytest.mark.parametrize(
    ("settings", "device", "there", "room"),
    [
        ({}, "cpu", (0, 1), None),
        ({"workers": 1}, "cuda", (8, 1), None),
        ({"workers": 3}, "cpu", (0, 1), Room(3, 3)),
        ({}, "cuda", (1, 1), None),
        ({}, "cuda", (4, 1), Room(4, 4)),
        ({}, "cuda:1", (4, 1), None),
        ({"ray_address": "head:6379"}, "cuda", (6, 2), Room(6, 3)),
        ({"ray_address": "head:6379"}, "cpu", (0, 3), Room(3, 1)),
    ],
)
def test_there_is_a_worker_for_each_gpu_or_machine_unless_told_otherwise(settings, device, there, room, monkeypatch):
    monkeypatch.setattr(cluster, "check", lambda address: there if address else (0, 1))
    monkeypatch.setattr("torch.cuda.device_count", lambda: there[0])
    assert workers_of(Settings(**settings), device, HERE, View()) == room


def test_workers_beyond_what_there_is_to_share_are_not_started(monkeypatch, capfd):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(SettingsError, match="--workers 3 needs a GPU for each, and there are 2"):
        workers_of(Settings(workers=3), "cuda", HERE, View())
    assert workers_of(Settings(workers=12), "cpu", HERE, View()) == Room(8, 8)
    assert "8 of 12 workers are started: generations are measured on 8 sequences" in capfd.readouterr().out


def test_a_model_that_leaves_no_room_on_the_gpus_has_no_workers(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    spread = SimpleNamespace(mode="spread", admits_workers=False)
    assert workers_of(Settings(), "cuda", spread, View()) is None
    with pytest.raises(SettingsError, match="spread over the GPUs leaves none to workers: take --workers 1"):
        workers_of(Settings(workers=2), "cuda", spread, View())


def test_workers_are_on_the_bill_and_what_they_have_no_room_for_is_refused(monkeypatch):
    monkeypatch.setattr(cluster, "check", lambda address: (0, 1))
    roomy = machine(memory=64)
    asked = Settings(model="smollm2-135m", workers=3, cache=Path("no-cache"), device="cpu", dtype="float32")
    alone, found = (
        with_workers(settings, place(settings, target_of(settings, roomy), roomy), View())
        for settings in (asked.model_copy(update={"workers": 1}), asked)
    )
    assert alone.workers == (None,) and found.workers == (Room(3, 3),)
    more = needed(found.lines, "memory") - needed(alone.lines, "memory")
    own = {line.what: line.bytes for line in found.lines if line not in alone.lines}
    assert own["Weights of 3 workers"] == 3 * found.sizes.weights < more
    assert with_workers(asked, found, View()) is found
    room = needed([line for line in found.lines if line.when != "recalibration"], "memory")
    narrow = replace(roomy, memory=replace(roomy.memory, free=room - 1))
    with pytest.raises(SettingsError, match=r"--workers 3 needs .*, where .* are free: take --workers 2"):
        with_workers(asked, place(asked, target_of(asked, narrow), narrow), View())


def test_a_worker_fills_the_gpu_that_it_has(monkeypatch, capfd):
    monkeypatch.setattr(cluster, "check", lambda address: (0, 1))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    there = machine(80, 80, memory=64)
    asked = Settings(model="llama-2-7b", cache=Path("no-cache"))
    found = with_workers(asked, place(asked, target_of(asked, there), there), View())
    assert found.workers == (Room(2, 2),)
    weights = {line.where: line.bytes for line in found.lines if line.what == "Weights of a worker"}
    assert weights == dict.fromkeys(("cuda:0", "cuda:1"), found.sizes.weights)
    full = replace(there, gpus=(there.gpus[0], replace(there.gpus[1], free=8 << 30)))
    found = with_workers(asked, place(asked, target_of(asked, full), full), View())
    assert found.workers == (None,) and "one process measures: 2 workers would need" in capfd.readouterr().out
