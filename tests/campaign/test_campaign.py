"""The campaign in its short form: a few of everything. The full one is `python -m tests.campaign`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}


@pytest.mark.campaign
def test_a_few_ends_full_disks_jumping_clocks_runs_at_once_and_invented_inputs_lose_nothing():
    few = "--points 4 --scenario run --sizes 3 --clocks 1 --at-once 2 --brain first --inputs 10 --candidates 240"
    command = [sys.executable, "-m", "tests.campaign", *few.split()]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT, timeout=900)
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-4000:]
    assert ended.stdout.rstrip().endswith("0 faults")
