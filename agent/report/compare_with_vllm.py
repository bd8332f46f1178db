"""The command `verify`: does vLLM write what transformers writes, with a checkpoint as it lies there?"""

from __future__ import annotations

from pathlib import Path

from self_pruner.agent.settings import Settings, SettingsError
from self_pruner.agent.view import View
from self_pruner.tools.engines.vllm import vllm_python
from self_pruner.tools.export.same_tokens import PROMPTS, Comparison, compare_tokens
from self_pruner.tools.models.foreign_code import check_code
from self_pruner.tools.models.source import load_tokenizer


def verify_in_vllm(folder: Path, settings: Settings, view: View) -> int:
    """Compare the greedy tokens of both engines and say what came of it; returns the exit status.

    Raises:
        SelfPrunerError: no folder, code that is not trusted, no vLLM, or an engine that does not load the folder.
    """
    if not folder.is_dir():
        raise SettingsError(f"{folder} is no folder: name a checkpoint, such as runs/NAME/model")
    check_code(folder, settings.trust_remote_code)
    python = vllm_python(settings.vllm_python)
    # The code has been looked at, so a tokenizer may not need more trust than the model.
    tokenizer = load_tokenizer(folder, settings.trust_remote_code)
    prompts = [tokenizer(prompt).input_ids for prompt in PROMPTS]
    with view.phase("Both engines"):
        found = compare_tokens(
            folder,
            prompts,
            python,
            tensor_parallel=settings.tensor_parallel,
            trusted=settings.trust_remote_code,
        )
    for sentence in verdict(found):
        view.line(sentence, "" if found.ok else "red")
    return 0 if found.ok else 1


def verdict(found: Comparison) -> list[str]:
    """What the comparison says, a sentence a line."""
    what = (
        f"{found.engine} and {found.reference}, float32, {found.prompts} prompts of {found.tokens} greedy tokens each"
    )
    if not found.differences:
        return [f"The same tokens from {what}."]
    lines = [
        f"Prompt {one.prompt + 1} ({PROMPTS[one.prompt]!r}) differs from token {one.token + 1} on: "
        + (
            f"a tie, its best logits {one.gap:.1e} apart."
            if one.is_tie
            else f"its best logits are {one.gap:.3f} apart."
        )
        for one in found.differences
    ]
    if found.ok:
        return [*lines, f"The same tokens but for ties from {what}."]
    return [*lines, f"Not the same tokens from {what}: vLLM does not compute this checkpoint as transformers does."]
