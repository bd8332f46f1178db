"""A checkpoint is done when a new process that knows only transformers computes the elastic model's logits from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from self_pruner.memory.errors import SelfPrunerError
from self_pruner.memory.partials import scratch
from self_pruner.memory.profile import Profile
from self_pruner.tools.engines.leashed import leashed
from self_pruner.tools.models.foreign_code import ForeignCodeError, refuse_foreign

if TYPE_CHECKING:
    from torch import Tensor

    from self_pruner.tools.pruning.elastic import ElasticModel

RELOAD_SCRIPT = Path(__file__).with_name("reload.py")

# Largest difference allowed, as a share of the largest logit where that is above 1. Slices and contiguous copies run
# through different matrix kernels, so the last digits of the data type differ; a wrong weight is far outside.
TOLERANCES = {"float64": 1e-4, "float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}


class VerificationError(SelfPrunerError):
    """The exported folder does not load, or is not the model that was searched."""


def record_expected(elastic: ElasticModel, profile: Profile, input_ids: Tensor, path: Path) -> Path:
    """Save the elastic model's logits of `input_ids` [batch, length >= 2] at `profile` for `verify`."""
    from safetensors.torch import save_file

    logits = elastic.logits(input_ids, profile).float().cpu()
    save_file({"input_ids": input_ids.cpu().contiguous(), "logits": logits.contiguous()}, path)
    return path


def verify(
    folder: Path, expected: Path, *, device: str = "cpu", layers: str | None = None, trusted: bool = False
) -> float:
    """Load `folder` in a new, isolated process and compare its logits with the `expected` ones.

    Args:
        folder: An exported checkpoint.
        expected: A file that `record_expected` wrote.
        device: Where the new process runs the model.
        layers: "disk" for decoder layers that it reads module by module as they are called; None for all on `device`.
        trusted: Whether a tokenizer's own code may lie in it; none of it is run.

    Returns:
        The largest difference of a logit.

    Raises:
        VerificationError: The folder does not load, holds code that no export writes, its tensors and its config
            disagree, or the logits differ.
    """
    try:  # it is loaded as a stranger would, with the code in it: that must still be what was written
        refuse_foreign(folder, trusted)
    except ForeignCodeError as error:
        raise VerificationError(str(error)) from error
    with scratch("verify") as modules:
        # An empty module cache: the folder's own code is read, not that of an earlier load.
        environment = os.environ | {"HF_MODULES_CACHE": modules, "HF_HUB_OFFLINE": "1"}
        arguments = [os.path.abspath(folder), os.path.abspath(expected), device, layers or device]
        command = [sys.executable, "-I", str(RELOAD_SCRIPT), *arguments]
        with leashed(command) as start:
            child = subprocess.run(**start, env=environment, cwd=modules, capture_output=True, text=True, check=False)
    if child.returncode != 0:
        last = (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
        raise VerificationError(f"{str(folder)!r} does not load in a new process: {last}")
    found = json.loads(child.stdout.strip().splitlines()[-1])
    if found["wrong_keys"]:
        raise VerificationError(f"{str(folder)!r} has tensors that do not fit its config: {found['wrong_keys'][:3]}.")
    tolerance = TOLERANCES[found["dtype"]] * max(1.0, found["scale"])
    whole, cached = float(found["max_abs"]), float(found["cached_max_abs"])
    if not (whole <= tolerance and cached <= tolerance):  # also where they are NaN
        raise VerificationError(
            f"{str(folder)!r} is not the model that was searched: its logits differ by up to {whole:.3g}, "
            f"with the KV cache by up to {cached:.3g}, and {tolerance:.3g} is allowed."
        )
    return whole
