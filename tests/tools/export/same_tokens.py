"""Does another engine write what transformers writes? Greedy tokens of the same prompts, in processes of their own.

Both compute in float32, where kernels differ in the last digits only, so a checkpoint that an engine reads wrongly
cannot hide. Where two tokens are all but equally likely the last digits decide: the gap of the logits at the first
difference tells such a tie from a fault.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from self_pruner.memory.errors import EngineError
from self_pruner.tools.engines.leashed import leashed
from self_pruner.tools.engines.server import last_error
from self_pruner.tools.export.serving import vllm_options

GREEDY_SCRIPT = Path(__file__).with_name("greedy.py")
NEW_TOKENS = 16
TIE = 1e-3  # logits nearer than this are a tie in float32
Engine = Literal["transformers", "vllm"]


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two engines part."""

    prompt: int  # counted from 0
    token: int  # of those written, counted from 0
    gap: float  # between the two best logits of transformers there

    @property
    def is_tie(self) -> bool:
        """Whether rounding decides there."""
        return self.gap < TIE


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two engines on the same prompts."""

    engine: str  # name and version
    reference: str  # of transformers
    prompts: int
    tokens: int  # written for each prompt
    differences: tuple[Difference, ...]  # the first of each prompt that has one

    @property
    def ok(self) -> bool:
        """Whether all tokens are the same, ties aside."""
        return all(difference.is_tie for difference in self.differences)


def compare_tokens(
    folders: Sequence[Path],
    prompts: Sequence[Sequence[int]],
    python: Path,
    *,
    new_tokens: int = NEW_TOKENS,
    timeout: float,
) -> list[Comparison]:
    """The greedy tokens of vLLM, run by `python`, beside those of transformers, for each of `folders`.

    Args:
        folders: checkpoints that the product has exported; their code is run. One process an engine loads them in turn.
        prompts: token ids, at least one a prompt.
        python: of an environment that has vLLM.
        new_tokens: how many are written for each prompt.
        timeout: seconds after which an engine counts as failed.

    Raises:
        EngineError: an engine does not load a folder; the sentence ends with the last thing it said.
    """
    common = {"prompts": [list(prompt) for prompt in prompts], "new_tokens": new_tokens, "dtype": "float32"}
    requests = [{**common, "folder": os.path.abspath(folder)} for folder in folders]
    options = [vllm_options(folder) for folder in folders]
    stock = [
        {**request, "trust_remote_code": own.get("trust_remote_code", False)}
        for request, own in zip(requests, options, strict=True)
    ]
    served = [{**request, "options": own} for request, own in zip(requests, options, strict=True)]
    references = ask("transformers", Path(sys.executable), stock, timeout)
    answers = ask("vllm", python, served, timeout)
    return [
        Comparison(
            engine=found["engine"],
            reference=reference["engine"],
            prompts=len(prompts),
            tokens=new_tokens,
            differences=tuple(_differences(reference, found)),
        )
        for reference, found in zip(references, answers, strict=True)
    ]


def _differences(reference: Mapping[str, Any], found: Mapping[str, Any]) -> list[Difference]:
    parted = []
    for number, (wanted, written) in enumerate(zip(reference["tokens"], found["tokens"], strict=True)):
        if wanted != written:
            pairs = zip(wanted, written, strict=True)
            first = next(place for place, (one, other) in enumerate(pairs) if one != other)
            parted.append(Difference(number, first, reference["gaps"][number][first]))
    return parted


def ask(
    engine: Engine, python: Path, requests: Sequence[Mapping[str, Any]], timeout: float | None = None
) -> list[dict[str, Any]]:
    """What `engine` writes for each of `requests`, in a new process of `python`.

    Raises:
        EngineError: it ended without an answer.
    """
    with tempfile.TemporaryDirectory(prefix="self-pruner-engine-") as temporary:
        path = Path(temporary) / "requests.json"
        path.write_text(json.dumps(list(requests)), encoding="utf-8")
        # An empty module cache: the folder's own code is read, not that of an earlier load.
        environment = os.environ | {"HF_MODULES_CACHE": temporary, "HF_HUB_OFFLINE": "1"}
        environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB; it takes half of the memory else
        environment.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # no process that could outlive this one
        command = [str(python), str(GREEDY_SCRIPT), engine, str(path)]
        try:
            with leashed(command) as start:
                child = subprocess.run(
                    **start,
                    env=environment,
                    cwd=temporary,
                    capture_output=True,
                    text=True,
                    timeout=timeout,
                    check=False,
                )
        except subprocess.TimeoutExpired as error:
            raise EngineError(f"{engine} gave no answer within {timeout:.0f} s.") from error
        except OSError as error:
            raise EngineError(f"{str(python)!r} cannot be run: {error.strerror}.") from error
    if child.returncode != 0:
        folders = ", ".join(request["folder"] for request in requests)
        raise EngineError(f"{engine} does not run {folders}: {last_error(child.stderr)}")
    answer: list[dict[str, Any]] = json.loads(child.stdout.strip().splitlines()[-1])
    return answer
