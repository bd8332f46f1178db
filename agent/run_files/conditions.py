"""What figures depend on besides settings: weights, number type, device, tokens of the texts, tokenizer, versions.

Two measurements belong into one run, or one table, only where these agree. Known as soon as the model is loaded and the
texts are read, before anything is measured; the weights are not read again for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from self_pruner.agent.run_files.environment import version_of
from self_pruner.tools.models.source import LoadedModel

VERSIONS = ("self-pruner", "torch", "transformers")  # the packages whose versions change figures
SHOWN = 12  # hex digits of a digest in a sentence
FILE_OF = " (file "  # before the number of the memory's file


class Conditions(BaseModel):
    """What a run was begun with, or what is there now; digests are hex."""

    model_config = ConfigDict(frozen=True)

    weights: str  # fingerprint of config and weights
    commit: str | None  # of a hub model
    device: str  # its kind: cpu, cuda
    dtype: str
    texts: dict[str, str]  # of the token ids, by what they are for
    tokenizer: str
    versions: dict[str, str | None]
    memory: str  # where it is, and which file that is
    brain: str | None = None  # fingerprint, tokenizer included, of another model that is asked in this process

    def differences(self, now: Conditions, where: str = "now") -> dict[str, str]:
        """What is not as it was, in words, by what it is of.

        Args:
            now: the others.
            where: what says in these words that something is of the others.

        Returns:
            By the name of the field; texts each by its own name, versions as `versions`, or as `patch` where no
            version differs in its first two numbers.
        """
        found = {}

        def hold(name: str, words: str, then: str | None, there: str | None, shown: int | None = None) -> None:
            if then != there:
                found[name] = f"{words} {str(then)[:shown]} ({where} {str(there)[:shown]})"

        hold("weights", "the weights", self.weights, now.weights, SHOWN)
        if now.brain is not None:  # None: nobody is asked, as for what is done with a result
            hold("brain", "the brain", self.brain, now.brain, SHOWN)
        hold("tokenizer", "the tokenizer", self.tokenizer, now.tokenizer, SHOWN)
        hold("commit", "the commit", self.commit, now.commit)
        hold("dtype", "the dtype", self.dtype, now.dtype)
        hold("device", "the device", self.device, now.device)
        for text in {**self.texts, **now.texts}:
            then, there = (one.texts.get(text, "none") for one in (self, now))
            hold(f"text {text}", f"the {text} text", then, there, SHOWN)
        if now.memory.rpartition(FILE_OF)[0] != self.memory:  # a run that was begun before its memory made the file
            hold("memory", "the memory", self.memory, now.memory)
        changed = {
            package: (self.versions.get(package), now.versions.get(package))
            for package in {**self.versions, **now.versions}
            if self.versions.get(package) != now.versions.get(package)
        }
        if changed:
            only_patches = all(_minor(then) == _minor(there) for then, there in changed.values())
            listed = [f"{package} {then} ({where} {there})" for package, (then, there) in changed.items()]
            found["patch" if only_patches else "versions"] = ", ".join(listed)
        return found


def conditions_of(
    loaded: LoadedModel, device: str, dtype: str, texts: Mapping[str, str], memory: Path, brain: str | None = None
) -> Conditions:
    """What is there now.

    Args:
        loaded: the model.
        device: what it is on.
        dtype: of its weights.
        texts: digests of the token ids, by what they are for.
        memory: the memory file, which may not be there yet.
        brain: fingerprint of another model that is asked in this process.
    """
    return Conditions(
        weights=loaded.fingerprint,
        commit=loaded.commit,
        device=device.partition(":")[0],
        dtype=dtype,
        texts=dict(texts),
        tokenizer=tokenizer_digest(loaded.tokenizer),
        versions={package: version_of(package) for package in VERSIONS},
        memory=f"{memory.resolve()}" + (f"{FILE_OF}{memory.stat().st_ino})" if memory.exists() else ""),
        brain=brain,
    )


def tokenizer_digest(tokenizer: Any) -> str:
    """A digest of all that decides which token ids a text, or a chat, becomes."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        table = json.loads(backend.to_str())
        for state in ("truncation", "padding"):  # how it was called last, not what it is
            table.pop(state, None)
    else:
        table = {"vocabulary": tokenizer.get_vocab(), "class": type(tokenizer).__name__}
    known = [table, tokenizer.chat_template, {name: str(token) for name, token in tokenizer.special_tokens_map.items()}]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _minor(version: str | None) -> list[str]:
    """A version up to its second number: what comes after mends faults."""
    return str(version).split("+")[0].split(".")[:2]
