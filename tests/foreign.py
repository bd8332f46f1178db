"""Checkpoints that bring code along, in every way in which transformers would run it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from self_pruner.tools.export.checkpoint import MODELING_FILE
from tests.brain_tiny import tiny_tokenizer
from tests.tiny import tiny_folder


def payload(folder: Path) -> str:
    """Code that leaves `ran` beside the checkpoint, then acts as if it were ours."""
    return f"open({str(ran(folder))!r}, 'w').close()\n" + MODELING_FILE.read_text(encoding="utf-8")


def ran(folder: Path) -> Path:
    """What is there once a payload ran."""
    return folder.parent / "ran"


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def nested(folder: Path) -> None:
    (folder / "lib").mkdir()
    (folder / "lib" / "payload.py").write_text(payload(folder), encoding="utf-8")
    edit(folder / "config.json", auto_map=pointing("lib/payload"))


def of_another_repository(folder: Path) -> None:
    other = shutil.copytree(folder, folder.parent / "other", ignore=shutil.ignore_patterns("*.safetensors"))
    (other / "payload.py").write_text(payload(folder), encoding="utf-8")
    edit(folder / "config.json", auto_map=pointing(f"{other}--payload"))


def of_the_tokenizer(folder: Path) -> None:
    code = f"open({str(ran(folder))!r}, 'w').close()\nfrom transformers import LlamaTokenizer as Tokenizer\n"
    (folder / "lib").mkdir()
    (folder / "lib" / "words.py").write_text(code, encoding="utf-8")
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["lib/words.Tokenizer", None]})


def tiny_with_tokenizer_code(folder: Path, name: str = "PayloadTokenizerFast") -> Path:
    """A tiny checkpoint whose tokenizer is a class of its own, in `payload.py` as it is published."""
    tiny_folder(folder, tokenizer=False)
    tiny_tokenizer().save_pretrained(folder)
    named = {"AutoTokenizer": [None, f"payload.{name}"]}
    edit(folder / "tokenizer_config.json", tokenizer_class=name, auto_map=named)
    (folder / "payload.py").write_text(
        f"from pathlib import Path\nfrom transformers import PreTrainedTokenizerFast\n"
        f"Path({str(ran(folder))!r}).touch()\nclass {name}(PreTrainedTokenizerFast):\n    pass\n",
        encoding="utf-8",
    )
    return folder


def in_our_place(folder: Path) -> None:
    (folder / MODELING_FILE.name).write_text(payload(folder), encoding="utf-8")


def as_a_link(folder: Path) -> None:
    """The file is a link to our bytes, which can be exchanged once they were looked at."""
    elsewhere = shutil.copy(MODELING_FILE, folder.parent / "elsewhere.py")
    (folder / MODELING_FILE.name).unlink()
    (folder / MODELING_FILE.name).symlink_to(elsewhere)


def behind_a_link(folder: Path) -> None:
    (folder.parent / "lib").mkdir()
    (folder.parent / "lib" / "payload.py").write_text(payload(folder), encoding="utf-8")
    (folder / "lib").symlink_to(folder.parent / "lib")


def for_generation(folder: Path) -> None:
    (folder / "custom_generate").mkdir()
    code = f"open({str(ran(folder))!r}, 'w').close()\ndef generate(*args, **kwargs): ...\n"
    (folder / "custom_generate" / "generate.py").write_text(code, encoding="utf-8")


def in_an_older_config(folder: Path) -> None:
    """Transformers takes the config that config.json names for its own version."""
    nested(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.4.0.0.json").write_text(json.dumps(config), encoding="utf-8")
    del config["auto_map"]
    (folder / "config.json").write_text(json.dumps({**config, "configuration_files": ["config.4.0.0.json"]}))


def pointing(module: str) -> dict[str, str]:
    return {
        "AutoConfig": f"{module}.SelfPrunedLlamaConfig",
        "AutoModel": f"{module}.SelfPrunedLlamaModel",
        "AutoModelForCausalLM": f"{module}.SelfPrunedLlamaForCausalLM",
    }


WAYS: dict[str, tuple[Callable[[Path], None], str]] = {
    "nested": (nested, "the auto_map of config.json"),
    "of another repository": (of_another_repository, "the auto_map of config.json"),
    "of the tokenizer": (of_the_tokenizer, "the auto_map of tokenizer_config.json"),
    "in our place": (in_our_place, MODELING_FILE.name),
    "as a link": (as_a_link, f"{MODELING_FILE.name}, a link"),
    "behind a link": (behind_a_link, "lib, a link to a folder"),
    "for generation": (for_generation, "custom_generate/generate.py"),
    "in an older config": (in_an_older_config, "config"),
}
