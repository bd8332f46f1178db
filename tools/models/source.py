"""Where a target model comes from, and how it is loaded.

A name is one of four things: the bundled model, an alias, an existing folder, or a hub id. `resolve` decides which and
checks a folder as far as that needs no weights; `load` fetches, checks the rest and reads the weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from self_pruner.memory.errors import ModelError, SettingsError
from self_pruner.memory.paths import expanded
from self_pruner.tools.models import checkpoint
from self_pruner.tools.models.aliases import ALIASES, BUNDLED, unknown
from self_pruner.tools.models.bundled import bundled_model
from self_pruner.tools.models.families import Family, family_of
from self_pruner.tools.models.foreign_code import ADVICE, tokenizer_code
from self_pruner.tools.models.hub import COMMIT, commit_of, fetch_model
from self_pruner.tools.models.quiet import quiet

if TYPE_CHECKING:  # it needs torch, which a command line that only says what it can do does not load
    from self_pruner.tools.models.tensor_files import TensorFiles

DTYPES = ("auto", "float32", "bfloat16", "float16")
# What the libraries raise for files whose values make no sense.
SENSELESS = (
    *(OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError),
    *(StrictDataclassError, SafetensorError),
)
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A resolved name: where the model is, not yet its weights."""

    name: str  # as in file names and reports
    kind: Literal["bundled", "folder", "hub"]
    location: str  # the folder, or the hub id; empty for the bundled model
    revision: str | None = None

    @property
    def commit(self) -> str | None:
        """The commit, where the revision is one; None for a branch or tag, a folder and the bundled model."""
        return self.revision if self.revision is not None and COMMIT.fullmatch(self.revision) else None


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A dense target model in eval mode, without gradients, with its tokenizer."""

    model: Any  # a transformers causal LM of the family's own class
    tokenizer: Any  # its transformers tokenizer
    name: str  # as in file names and reports
    location: str  # as of its source
    family: Family
    folder: Path  # that it was read from
    fingerprint: str  # hex digest of config and weights, equal for equal checkpoints
    commit: str | None = None  # of a hub model, whatever revision was asked for
    files: TensorFiles | None = None  # where the decoder layers are, if the model has them on the meta device


def resolve(name: str, revision: str | None = None, weights: bool = True) -> ModelSource:
    """What `name` stands for; a folder is checked at once, the hub is not asked yet.

    Args:
        name: an alias, a folder or a hub id; the latter with `@` and a revision where that is not given apart.
        revision: branch, tag or commit of a hub model.
        weights: refuse a folder that has none yet.

    Raises:
        ModelError: for a name that is neither alias, folder nor hub id; names close aliases.
        SettingsError: when a revision is given for a model that is not on the hub.
        SelfPrunerError: what `checkpoint.inspect` raises for a folder.
    """
    if revision is None and "@" in name and not expanded(name).exists():
        name, _, revision = name.partition("@")
    alias = name.lower()
    folder = expanded(name)
    if alias == BUNDLED:
        source = ModelSource(BUNDLED, "bundled", "")
    elif alias in ALIASES:
        source = ModelSource(alias, "hub", ALIASES[alias], revision)
    elif name and folder.is_dir():
        if weights or checkpoint.has_weights(folder):
            checkpoint.inspect(folder)
        else:
            checkpoint.check_config(checkpoint.read_config(folder / "config.json"))
        source = ModelSource(folder.resolve().name or "model", "folder", str(folder.resolve()))
    elif HUB_ID.fullmatch(name) and not folder.exists():
        source = ModelSource(name.split("/")[1], "hub", name, revision)
    else:
        raise unknown(name, folder)
    if revision is not None and source.kind != "hub":
        raise SettingsError(f"revision {revision!r} has no meaning for {name!r}: only models on the hub have revisions")
    return source


def pinned(source: ModelSource) -> ModelSource:
    """A hub model at the commit that its revision stands for now, so that a branch that moves later changes nothing.

    Raises:
        HubError: the hub does not know it, or cannot be reached and no copy was fetched before.
    """
    if source.kind != "hub" or source.commit is not None:
        return source
    return replace(source, revision=commit_of(source.location, source.revision))


def load(
    source: ModelSource,
    *,
    device: str,
    dtype: str,
    trust_remote_code: bool = False,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    layers: bool = True,
    layer_devices: Sequence[str] = (),
) -> LoadedModel:
    """Fetches the model if need be and loads it, in eval mode and without gradients.

    The model is always of transformers' own class, since the units of another one would be unknown; code from the
    checkpoint runs for its tokenizer only, and only when trusted.

    Args:
        source: what `resolve` returned.
        device: a torch device, "cpu" or "cuda:0".
        dtype: "float32", "bfloat16", "float16", or "auto" for that of the checkpoint.
        trust_remote_code: allow a tokenizer that brings its own Python code.
        cache: where the bundled model is kept; None for the default.
        progress: called with (bytes fetched, bytes in all) while something is fetched.
        layers: read the decoder layers too; else they stay in their files, and `LoadedModel.files` reads them.
        layer_devices: device of each layer, where not all of them are to be on `device`.

    Raises:
        SelfPrunerError: everything `checkpoint.inspect`, `fetch_model` and `bundled_model` raise, and
            ModelError, SettingsError.
    """
    from self_pruner.tools.models.tensor_files import TensorFiles

    if dtype not in DTYPES:
        raise SettingsError(f"unknown dtype {dtype!r}; it must be one of {', '.join(DTYPES)}")
    source = pinned(source)
    folder = fetched(source, trust_remote_code=trust_remote_code, cache=cache, progress=progress)
    checked = checkpoint.inspect(folder)
    tokenizer = load_tokenizer(folder, trust_remote_code)
    generation = _generation_config(folder)
    files = None if layers else TensorFiles(checked.shards)
    model = (
        _model(checked, device, dtype, layer_devices)
        if files is None
        else _without_layers(checked, files, device, dtype, generation)
    )
    known = checkpoint.fingerprint(checked)
    place, family = source.location, checked.family
    return LoadedModel(model, tokenizer, source.name, place, family, folder, known, source.commit, files)


def fetched(
    source: ModelSource,
    *,
    trust_remote_code: bool = False,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """The folder that holds the model, fetched if need be; arguments and errors are those of `load`."""
    if source.kind == "bundled":
        return bundled_model(cache, progress)
    if source.kind == "hub":
        return fetch_model(source.location, source.revision, progress, code=trust_remote_code)
    return Path(source.location)


def _model(checked: checkpoint.Checkpoint, device: str, dtype: str, layer_devices: Sequence[str] = ()) -> Any:
    """The model on `device`, or its layers on their own ones, every one of its weights from the checkpoint."""
    import transformers
    from accelerate.hooks import remove_hook_from_submodules

    devices = {"": device}
    if layer_devices:
        others = ("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head")
        devices = {**dict.fromkeys(others, device), **{f"model.layers.{i}": on for i, on in enumerate(layer_devices)}}
    try:
        with quiet():
            model, report = getattr(transformers, checked.family.architecture).from_pretrained(
                checked.folder,
                dtype=dtype,
                device_map=devices,
                attn_implementation="sdpa",
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below, in a sentence
            )
    except SENSELESS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise checkpoint.ModelError(f"no model can be made of {str(checked.folder)!r}: {reason[:300]}") from error
    missing, mismatched = sorted(report["missing_keys"]), sorted(report["mismatched_keys"])
    if missing or mismatched:  # transformers fills these with random numbers
        what = f"lacks the tensor {missing[0]!r}" if missing else f"has the wrong shape for {mismatched[0][0]!r}"
        raise ModelError(f"the checkpoint in {str(checked.folder)!r} {what}")
    if layer_devices:
        remove_hook_from_submodules(model)  # whoever takes layers one by one moves their inputs
    return model.eval().requires_grad_(False)


def skeleton(fields: dict[str, Any], name: str) -> Any:
    """The model that a config.json describes, on the meta device; `name` is what the error calls it.

    Raises:
        ModelError: the config describes no model, or one of another family.
    """
    import torch
    import transformers

    family = family_of(fields)
    try:
        with quiet(), torch.device("meta"):
            config = transformers.AutoConfig.for_model(**fields)
            config._attn_implementation = "sdpa"
            model = getattr(transformers, family.architecture)(config).eval().requires_grad_(False)
            if not len(model.get_decoder().layers):
                raise ValueError("it has no layers")
    except (*SENSELESS, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise checkpoint.ModelError(f"the config.json of {name!r} describes no model: {reason}") from error
    return model


def _without_layers(
    checked: checkpoint.Checkpoint, files: TensorFiles, device: str, dtype: str, generation: Any
) -> Any:
    """The model with embedding, final norm and head on `device`, and its layers on the meta device."""
    import torch
    from torch import nn

    if dtype == "auto":
        raise SettingsError("a model whose layers stay in their files needs a dtype by name, not 'auto'")
    model = skeleton(checked.config, checked.folder.name).to(getattr(torch, dtype))
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for name in model.state_dict():
        if name not in files.stored and not (tied and name == "lm_head.weight"):
            raise ModelError(f"the checkpoint in {str(checked.folder)!r} lacks the tensor {name!r}")
    here = ["model.embed_tokens.weight", "model.norm.weight", *([] if tied else ["lm_head.weight"])]
    for name in here:
        owner, _, leaf = name.rpartition(".")
        tensor = files.read(name).to(device, getattr(torch, dtype))
        setattr(model.get_submodule(owner), leaf, nn.Parameter(tensor, requires_grad=False))
    if tied:
        model.get_output_embeddings().weight = model.get_input_embeddings().weight
    decoder = model.get_decoder()
    decoder.rotary_emb = type(decoder.rotary_emb)(model.config).to(device)  # its tables are in no file
    if generation is not None:
        model.generation_config = generation
    return model


def _generation_config(folder: Path) -> Any:
    """How the checkpoint in `folder` is to generate; None where it does not say, ModelError for what says nothing."""
    from transformers import GenerationConfig

    if not (folder / "generation_config.json").is_file():
        return None
    try:
        with quiet():
            return GenerationConfig.from_pretrained(folder, local_files_only=True)
    except (*SENSELESS, RecursionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"the generation_config.json in {str(folder)!r} cannot be read: {reason[:300]}") from error


def load_tokenizer(folder: Path, trust_remote_code: bool) -> Any:
    """The tokenizer of a checkpoint folder; ModelError when there is none, or code in it that nobody trusts."""
    from transformers import AutoTokenizer

    checkpoint.check_files(folder)
    code = None if trust_remote_code else tokenizer_code(folder)
    if code is not None:  # transformers would take some other class in silence
        raise ModelError(f"the tokenizer in {str(folder)!r} has code of its own ({code}): {ADVICE}")
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=trust_remote_code
            )
            tokenizer("A word.")  # some damage shows only now
            return tokenizer
    except Exception as error:  # the tokenizers library raises nothing narrower
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{str(folder)!r} has no tokenizer that can be loaded: {reason}") from error
