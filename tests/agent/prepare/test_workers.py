"""Several workers, in a real Ray on this machine's cores: the figures of one process, whatever happens to a worker."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from main import main
from self_pruner.agent.prepare.workbench import Prepared, prepare
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import EngineError, KeptFileError, MeasurementError, ModelError
from self_pruner.tools.evaluate import measure
from self_pruner.tools.evaluation.walk import PopulationWalk
from self_pruner.tools.evaluation.workers import cluster, pool
from self_pruner.tools.evaluation.workers.pool import Room, Workers
from self_pruner.tools.evaluation.workers.walk import WorkersWalk, cut
from self_pruner.tools.evaluation.workers.worker import Worker
from self_pruner.tools.profiles.operators import random_profile
from self_pruner.tools.workbench import FITNESS
from tests.processes import SECONDS, silent_port

pytestmark = pytest.mark.skipif(not cluster.installed(), reason="Ray is not installed")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A Ray instance for all tests of this module."""
    with cluster._own_instance(3, 0) as found:
        yield found


@pytest.fixture(scope="module")
def prepared(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    """A run's workbench with workers that no share was given yet."""
    root = tmp_path_factory.mktemp("runs")
    settings = Settings(
        **{"model": str(model), "workers": 2, "dtype": "float32", "cache": root / "cache", "runs": root},
        **{"sequence_length": 64, "fidelity": (128, 256), "probe_tokens": 64, "sensitivity_tokens": 256},
        **{"final_tokens": 128, "reporting_tokens": 128, "calibration_length": 64, "calibration_sequences": 4},
    )
    with closing(prepare(settings, "run", View())) as made:
        yield made


@contextmanager
def walk_of(prepared: Prepared, address: str, count: int, said: Callable[[str], None] = print) -> Iterator[WorkersWalk]:
    """The walk over the fitness text by `count` workers."""
    assert prepared.workers is not None
    workers = Workers(Room(count, count), address, "cpu", prepared.workers.recipe, said)
    here = prepared.bench.walks[FITNESS]
    with closing(workers):
        yield WorkersWalk(here.elastic, here.targets, workers, FITNESS)


@pytest.fixture(scope="module")
def profiles(prepared):
    budget = prepared.bench.budget
    return [random_profile(budget, prepared.bench.rng("profiles", number)) for number in range(5)]


@pytest.fixture(scope="module")
def alone(prepared, profiles):
    """What one process finds."""
    here = prepared.bench.walks[FITNESS]
    walk = PopulationWalk(here.elastic, here.store, here.targets, here.input_ids)
    return found_by(walk, profiles)


def found_by(walk: PopulationWalk, profiles) -> list[object]:
    """Scores by sequence, of all sequences together, and of fewer sequences than workers; and sensitivities."""
    steps = list(walk.in_steps(profiles, range(4), 1))
    whole = walk.measure([*profiles, profiles[0]], range(5))
    few = walk.measure(profiles, range(3, 4))
    scores = [
        (one.profile, one.sequences, one.kl, one.nll, one.tokens, one.error) for one in [*sum(steps, []), *whole, *few]
    ]
    return [*scores, *walk.first_order(profiles[0], [0, 2, 3])]


def processes(of: psutil.Process | None = None) -> list[psutil.Process]:
    """Those of the workers of the instance that these tests, or another process, started."""
    found = []
    for one in (of or psutil.Process()).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it was for a moment only
            if "ray::Worker" in " ".join(one.cmdline()):
                found.append(one)
    return found


def gone(process: psutil.Process) -> bool:
    """Whether it is, within a time that Ray takes."""
    return process in psutil.wait_procs([process], timeout=SECONDS)[0]


def killed_with_a_share(process: psutil.Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """End a worker of three as soon as each of them has a share in hand; it keeps its own till then."""
    process.suspend()
    given: list[int] = []

    def give(member: pool._Member, *share: object) -> None:
        real(member, *share)
        given.append(member.number)
        if len(given) == 3:
            process.kill()

    real = pool._Member.give
    monkeypatch.setattr(pool._Member, "give", give)


def hung_with_a_share(process: psutil.Process, workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Suspend a worker: once no other has anything to do, the time that is too long for a step is over for it."""
    process.suspend()
    before = workers.replaced

    def monotonic() -> float:
        busy = [member for member in workers._members if member.pending is not None]
        alone = [member._stage for member in busy] == ["share"] and workers.replaced == before
        return time.monotonic() + (2 * pool.STEP_SECONDS if alone else 0.0)

    monkeypatch.setattr(pool, "time", SimpleNamespace(monotonic=monotonic))


def test_three_workers_find_what_one_process_does_and_so_do_those_that_replace_one_that_dies_or_hangs(
    prepared, profiles, alone, address, monkeypatch
):
    said: list[str] = []
    made = prepared.bench.elastic.compensator
    with walk_of(prepared, address, 3, said.append) as walk:
        before = made.factorisations
        assert found_by(walk, profiles) == alone
        assert made.factorisations > before and not said
        steps: list[tuple[int, int]] = []
        bench = replace(prepared.bench, walks={FITNESS: walk}, progress=lambda *counts: steps.append(counts))
        measure(bench, profiles, range(4), step=1)
        assert steps == [(5, 20), (10, 20), (15, 20), (20, 20)]
        with pytest.raises(MeasurementError, match="the fitness text has sequences 0 to"):
            walk.measure(profiles, range(99))
        while any(member.pending is not None for member in walk.workers._members):  # the last may still begin
            list(walk.workers._heard())
        (first, second, _) = processes()
        killed_with_a_share(first, monkeypatch)
        assert found_by(walk, profiles) == alone
        assert walk.workers.replaced == 1 and "is replaced, and its share done again: its process has ended" in said[-1]
        hung_with_a_share(second, walk.workers, monkeypatch)
        assert found_by(walk, profiles) == alone
        assert walk.parallelism == {"workers": 3, "workers_replaced": 2}
        silence = re.search(r"it made no step for (\d+) s", said[-1])
        assert silence and int(silence[1]) > pool.STEP_SECONDS
        assert gone(second)


def test_the_benchmark_finds_two_workers_to_score_as_one_process_does(model, address, monkeypatch, capfd):
    from benchmarks import workers

    words = ["--length", "32", "--tokens", "64", "--calibration-tokens", "128", "--offspring", "3"]
    words += ["--generations", "1", "--model", str(model), "--ray-address", address]
    monkeypatch.setattr("sys.argv", ["workers", *words])
    workers.main()
    said = capfd.readouterr().out
    assert re.search(r"2 workers [\d.]+ tokens/s, ratio [\d.]+; by the .*; the scores are the same\n$", said)


def test_a_worker_that_cannot_see_the_checkpoint_says_where(prepared, profiles, address):
    assert prepared.workers is not None
    recipe = replace(prepared.workers.recipe, checkpoint=Path("/not/mounted"))
    sentence = f"the worker on {socket.gethostname()} cannot see the checkpoint '/not/mounted'"
    with (
        closing(Workers(Room(1, 1), address, "cpu", recipe, print)) as workers,
        pytest.raises(ModelError, match=sentence),
    ):
        here = prepared.bench.walks[FITNESS]
        WorkersWalk(here.elastic, here.targets, workers, FITNESS).measure(profiles, range(1))


RUN = (
    "--sequence-length 64 --fidelity 128,512 --probe-tokens 64 --final-tokens 128 --reporting-tokens 128 "
    "--calibration-length 64 --calibration-sequences 4 --evaluations 40 --offspring 10 --initial 8 --sparsity 0.3 "
    "--benchmarks 0 --arm evolution --no-recalibrate --no-export --remembered 0 --dtype float32"
)


def test_ctrl_c_ends_a_run_and_its_workers_in_a_sentence_and_it_goes_on_without_them(model, tmp_path):
    root = Path(__file__).parents[3]
    words = ["--model", model, "--runs", tmp_path, "--cache", tmp_path / "cache", *RUN.split()]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, str(root / "main.py"), *map(str, words), "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    ) as run:
        try:
            while not any((one / "trace.jsonl").exists() for one in tmp_path.glob("tiny-*")):
                assert run.poll() is None
                time.sleep(0.05)
            started = psutil.Process(run.pid).children(recursive=True)
            assert len(processes(psutil.Process(run.pid))) == 2
            os.killpg(run.pid, signal.SIGINT)  # as a terminal does
            said, _ = run.communicate(timeout=600)
        finally:
            run.kill()
    assert run.returncode == 130 and "Traceback" not in said and all(map(gone, started))
    (directory,) = tmp_path.glob("tiny-*")
    assert said.count("main.py resume") == 1 and RunDirectory.open(directory).status == "stopped"
    assert main(["resume", str(directory), "--workers", "1"]) == 0


DRIVER = """
import os, sys, time
from self_pruner.tools.evaluation.workers.cluster import connected
class Sleeper:
    def process(self):
        return os.getpid()
with connected(None, 1, 0) as ray:
    actor = ray.remote(Sleeper).options(num_cpus=1).remote()
    print(ray.get(actor.process.remote()), flush=True)
    time.sleep(6000)
"""


def test_no_worker_outlives_a_run_that_is_killed():
    root = str(Path(__file__).parents[3])
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}
    ) as driver:
        assert driver.stdout is not None
        worker = psutil.Process(int(driver.stdout.readline()))
        driver.kill()
        driver.wait()
    assert gone(worker)


def test_a_cluster_that_does_not_answer_is_one_sentence_within_a_bound(monkeypatch):
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(EngineError, match=f"127.0.0.1:{port} cannot be used, no Ray answers within 3 s: give host"):
            cluster.check(f"127.0.0.1:{port}")
    with silent_port() as port:
        sentence = f"nothing answers at --ray-address 127.0.0.1:{port} .*refused"
        with pytest.raises(EngineError, match=sentence):
            cluster.check(f"127.0.0.1:{port}")


def test_what_is_there_of_a_cluster_is_said(address, monkeypatch):
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 600.0)  # another process imports Ray to ask
    assert cluster.check(address) == (0, 1)


def test_a_file_that_a_machine_lacks_is_written_there_whole(tmp_path):
    worker, path = Worker(), tmp_path / "cache" / "targets.safetensors"
    assert worker.place([path]) == (socket.gethostname(), [path])
    worker.receive(path, b"first ", 0, 12)
    assert worker.place([path])[1] == [path]
    worker.receive(path, b"second", 6, 12)
    assert worker.place([path])[1] == [] and path.read_bytes() == b"first second" and len([*path.parent.iterdir()]) == 1
    (tmp_path / "file").touch()
    with pytest.raises(KeptFileError, match=f"the worker on {socket.gethostname()} cannot keep targets"):
        worker.receive(tmp_path / "file" / "targets", b"", 0, 0)


@pytest.mark.parametrize(("n", "parts", "lengths"), [(7, 3, [2, 2, 3]), (2, 5, [1, 1]), (3, 0, [3]), (0, 2, [])])
def test_shares_are_about_equal_and_none_is_empty(n, parts, lengths):
    found = cut(list(range(n)), parts)
    assert [len(part) for part in found] == lengths and sum(found, []) == list(range(n))
