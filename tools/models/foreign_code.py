"""Which code of a checkpoint may run: our own modelling file, taken from this project, and nobody else's.

A folder brings code as files, at any depth or behind links, and by names in its JSON files (`auto_map` and the like),
which may also point into another folder or a repository. The one `auto_map` that an export writes is ours; all else is
refused unless the user trusts it. What passes is loaded from a copy of its small files beside links to its weights,
with this project's modelling file in it, so that nothing that is exchanged after the look can run either.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from self_pruner.memory.errors import SelfPrunerError
from self_pruner.memory.partials import scratch
from self_pruner.tools.models import checkpoint
from self_pruner.tools.models.hub import WANTED

MODELING_FILE = Path(__file__).parents[1] / "export" / "modeling_self_pruner.py"
CLASS_STEMS = {
    "llama": "SelfPrunedLlama",
    "mistral": "SelfPrunedMistral",
    "qwen2": "SelfPrunedQwen2",
    "qwen3": "SelfPrunedQwen3",
}
ADVICE = "read it, and allow it with --trust-remote-code"
_CODE = (".py", ".pyc", ".pyd", ".so", ".dll", ".dylib")
_NAMES_CODE = ("auto_map", "auto_mapping", "custom_pipelines", "configuration_files")
_KERNELS = ("attn_implementation", "experts_implementation")  # a value with a slash is a repository of kernels
_ADAPTER = "adapter_config.json"  # changes the weights as they are loaded, and names modules to import
_TOKENIZER = "tokenizer_config.json"
_DATA = ("tokenizer.json", "vocab.json")  # large, and read by nothing that looks for code


class ForeignCodeError(SelfPrunerError):
    """A checkpoint brings code that nobody vouches for."""


def auto_map_of(model_type: str) -> dict[str, str]:
    """The `auto_map` that an export of this family writes."""
    stem = CLASS_STEMS[model_type]
    return {  # the config first: vLLM resolves them in this order
        "AutoConfig": f"{MODELING_FILE.stem}.{stem}Config",
        "AutoModel": f"{MODELING_FILE.stem}.{stem}Model",
        "AutoModelForCausalLM": f"{MODELING_FILE.stem}.{stem}ForCausalLM",
    }


def is_ours(config: dict[str, Any]) -> bool:
    """Whether a config.json names our classes, and nothing else, as an export does."""
    family = config.get("model_type")
    return isinstance(family, str) and family in CLASS_STEMS and config.get("auto_map") == auto_map_of(family)


def check_code(folder: Path, trusted: bool = False) -> None:
    """Refuse a checkpoint whose code is not ours, unless the user trusts it.

    Raises:
        ModelError: there is no config.json, or none that can be read.
        ForeignCodeError: code that nobody vouches for; the sentence names the first.
    """
    if not (folder / "config.json").is_file():
        raise checkpoint.ModelError(f"{str(folder)!r} is no checkpoint: it has no config.json")
    checkpoint.read_config(folder / "config.json")
    if not trusted:
        refuse_foreign(folder)


def refuse_foreign(folder: Path, trusted: bool = False) -> None:
    """Refuse a folder with code that is not ours, checkpoint or not.

    Args:
        folder: any.
        trusted: whether the tokenizer's own code may be in it, as transformers saves it; loading a model runs none.

    Raises:
        ForeignCodeError: code that nobody vouches for; the sentence names the first.
    """
    found = next((shown for shown, of_tokenizer in _foreign(folder) if not (trusted and of_tokenizer)), None)
    if found is not None:
        raise ForeignCodeError(f"{str(folder)!r} brings code that is not this version's own ({found}): {ADVICE}")


@contextmanager
def vouched(folder: Path, trusted: bool = False) -> Iterator[Path]:
    """A folder to load the checkpoint from for as long as the block lasts: itself where the user trusts its code.

    Raises:
        ModelError: it holds no safetensors.
        ForeignCodeError: code that nobody vouches for.
    """
    check_code(folder, trusted)
    if trusted:
        yield folder
        return
    names = sorted(path.name for path in folder.iterdir())
    checkpoint.check_names(names, repr(str(folder)))
    with scratch("vouched") as temporary:
        copy = Path(temporary) / folder.resolve().name
        copy.mkdir()
        for name in names:
            path = folder / name
            if not path.is_file():
                continue
            if name.endswith(".safetensors"):
                (copy / name).symlink_to(path.resolve())
            elif any(fnmatch(name, pattern) for pattern in WANTED):
                shutil.copyfile(path, copy / name)
        check_code(copy)  # what was exchanged since the first look
        shutil.copyfile(MODELING_FILE, copy / MODELING_FILE.name)
        yield copy


def tokenizer_code(folder: Path) -> str | None:
    """The code that a folder's tokenizer names; None where it names none."""
    path = folder / _TOKENIZER
    found = _read(path).get("auto_map") if path.is_file() else None
    return json.dumps(found) if found else None


def _foreign(folder: Path) -> Iterator[tuple[str, bool]]:
    """What in a folder is or names code that is not ours, as a sentence names it, and whether a tokenizer saves such.

    A tokenizer's modules lie flat in the folder, and its own config names them.
    """
    named = tokenizer_code(folder) is not None
    for root, folders, files in os.walk(folder):
        at = Path(root)
        for name in sorted(folders):
            if (at / name).is_symlink():
                yield f"{(at / name).relative_to(folder)}, a link to a folder", False
        for name in sorted(files):
            path = at / name
            shown = str(path.relative_to(folder))
            if name.lower().endswith(_CODE):
                if path.is_symlink():
                    yield f"{shown}, a link", False
                elif shown != MODELING_FILE.name:
                    yield shown, named and at == folder and name.endswith(".py")
                elif path.read_bytes() != MODELING_FILE.read_bytes():
                    yield shown, False
            elif name == _ADAPTER:
                yield f"{shown}, an adapter", False
            elif name.endswith(".json") and name not in _DATA and path.is_file():
                config = _read(path)
                if shown == "config.json" and is_ours(config):
                    del config["auto_map"]
                for key in _named(config):
                    yield f"the {key} of {shown}", (shown, key) == (_TOKENIZER, "auto_map")


def _read(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one for what no library takes for an object either."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _named(value: Any) -> Iterator[str]:
    """The keys, at any depth, that name code."""
    left = [value]
    while left:
        inner = left.pop()
        if isinstance(inner, dict):
            for key, named in inner.items():
                if (key in _NAMES_CODE and named) or (key.lstrip("_") in _KERNELS and "/" in json.dumps(named)):
                    yield key
            left += inner.values()
        elif isinstance(inner, list):
            left += inner
