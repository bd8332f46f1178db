"""Files from the Hugging Face hub: only what is needed, and one sentence when they cannot be had."""

from __future__ import annotations

import errno
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import huggingface_hub
from huggingface_hub import errors as hub_errors
from tqdm.auto import tqdm

from self_pruner.memory.errors import SelfPrunerError
from self_pruner.tools.models import checkpoint
from self_pruner.tools.models.quiet import quiet

Progress = Callable[[int, int], None]
TOKENIZER = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.model", "*.jinja")
WEIGHTS = (checkpoint.INDEX, checkpoint.WEIGHTS, "model-*.safetensors")
COMMIT = re.compile("[0-9a-f]{40}")
WANTED = ("config.json", "generation_config.json", *TOKENIZER, *WEIGHTS)


class HubError(SelfPrunerError):
    """The hub cannot be reached, does not know the name, or wants a licence accepted."""


def fetch_model(repo: str, revision: str | None = None, progress: Progress | None = None, code: bool = False) -> Path:
    """The folder of a hub model in the hub's own cache, fetched as far as it is not there yet.

    Config and file names are checked before weights are fetched. When the hub cannot be reached, the copy fetched
    before is used.

    Args:
        repo: hub id, `org/name`.
        revision: branch, tag or commit; None for the main branch.
        progress: called with (bytes fetched, bytes in all).
        code: also fetch Python files (tokenizers with code of their own).

    Raises:
        HubError: unknown id or revision, gated model, no network and no earlier copy, or a full disk.
        SelfPrunerError: what `checkpoint.check_names` and `checkpoint.check_config` raise.
    """
    with quiet(), _explained(repo, revision):
        config, files = _config_and_files(repo, revision)
        if files is None:
            return config.parent
        wanted = _wanted(files, [*WANTED, *(["*.py"] if code else [])])
        total = sum(files[name] for name in wanted)
        folder = huggingface_hub.snapshot_download(
            repo, revision=revision, allow_patterns=wanted, tqdm_class=_reporting(progress, total)
        )
    if progress:
        progress(total, total)  # files that were there already are in no bar
    return Path(folder)


def commit_of(repo: str, revision: str | None = None) -> str:
    """The commit that a revision of a hub model stands for now; without network, at the time of the copy fetched last.

    Args:
        repo: hub id, `org/name`.
        revision: branch, tag or commit; None for the main branch.

    Raises:
        HubError: as in `fetch_model`, and for a model without config.json.
    """
    with quiet(), _explained(repo, revision):
        try:  # by its name, so that the cache notes what it stood for and it is found again without network
            config = huggingface_hub.hf_hub_download(repo, "config.json", revision=revision)
        except hub_errors.RemoteEntryNotFoundError as error:
            raise HubError(f"the hub's {repo!r} has no config.json: it is no model that can be pruned") from error
    commit = Path(config).parent.name  # the cache keeps files by commit
    if not COMMIT.fullmatch(commit):
        raise HubError(f"the hub's cache keeps {repo!r} in {config}, which does not say of which commit it is")
    return commit


def fetch_outline(
    repo: str, revision: str | None = None, tokenizer: bool = True, code: bool = False
) -> tuple[Path, int]:
    """The folder of a hub model with its config and, if wanted, its tokenizer, but no weights.

    Args:
        repo: hub id, `org/name`.
        revision: branch, tag or commit; None for the main branch.
        tokenizer: fetch the tokenizer's files too.
        code: also fetch Python files (tokenizers with code of their own).

    Returns:
        The folder, and the bytes of everything that `fetch_model` would still have to fetch.

    Raises:
        HubError, SelfPrunerError: as in `fetch_model`.
    """
    with quiet(), _explained(repo, revision):
        config, files = _config_and_files(repo, revision)
        if files is None:
            return config.parent, 0
        patterns = [*(TOKENIZER if tokenizer else ()), *(["*.py"] if code else [])]
        for name in _wanted(files, patterns):
            huggingface_hub.hf_hub_download(repo, name, revision=revision)
        missing = [name for name in _wanted(files, WANTED) if not is_cached(repo, name, revision)]
    return config.parent, sum(files[name] for name in missing)


def _config_and_files(repo: str, revision: str | None) -> tuple[Path, dict[str, int] | None]:
    """The config.json of a hub model that can be pruned, and the bytes of its files by name.

    Where the hub cannot be reached, that of the copy fetched before, and None.
    """
    try:
        info = huggingface_hub.HfApi().model_info(repo, revision=revision, files_metadata=True)
    except hub_errors.HfHubHTTPError:
        raise  # the hub answered
    except (hub_errors.HTTPError, ConnectionError):
        # not snapshot_download: it calls a folder incomplete that lacks files we never wanted
        cached = huggingface_hub.hf_hub_download(repo, "config.json", revision=revision, local_files_only=True)
        return Path(cached), None
    files = {file.rfilename: file.size or 0 for file in info.siblings or [] if "/" not in file.rfilename}
    checkpoint.check_names(files, f"the hub model {repo!r}")
    # by the name of the revision, not its commit: only so can it be found again without network
    config = Path(huggingface_hub.hf_hub_download(repo, "config.json", revision=revision))
    checkpoint.check_config(checkpoint.read_config(config))
    return config, files


def _wanted(files: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The names that match a pattern; of weights that are there both whole and sharded only the whole ones."""
    wanted = [name for name in files if any(fnmatch(name, pattern) for pattern in patterns)]
    if checkpoint.WEIGHTS in wanted:
        wanted = [name for name in wanted if name != checkpoint.INDEX and not fnmatch(name, "model-*.safetensors")]
    return wanted


def is_cached(repo: str, name: str, revision: str | None) -> bool:
    """Whether a file of a hub model was fetched before."""
    try:
        huggingface_hub.hf_hub_download(repo, name, revision=revision, local_files_only=True)
    except hub_errors.LocalEntryNotFoundError:
        return False
    return True


def fetch_dataset_file(repo: str, filename: str, revision: str, progress: Progress | None = None) -> Path:
    """One file of a hub dataset at a fixed revision; the copy in the hub's cache if there is one.

    Raises:
        HubError: as in `fetch_model`.
    """
    with quiet(), _explained(repo, revision):
        try:
            cached = huggingface_hub.hf_hub_download(
                repo, filename, repo_type="dataset", revision=revision, local_files_only=True
            )
            return Path(cached)
        except hub_errors.LocalEntryNotFoundError:
            pass  # not fetched before
        info = huggingface_hub.HfApi().dataset_info(repo, revision=revision, files_metadata=True)
        total = next((file.size or 0 for file in info.siblings or [] if file.rfilename == filename), 0)
        fetched = huggingface_hub.snapshot_download(
            repo,
            repo_type="dataset",
            revision=revision,
            allow_patterns=[filename],
            tqdm_class=_reporting(progress, total),
        )
    path = Path(fetched) / filename
    if not path.is_file():
        raise HubError(f"the hub dataset {repo!r} has no file {filename!r}")
    return path


@contextmanager
def _explained(repo: str, revision: str | None) -> Iterator[None]:
    """Turns the hub client's exceptions into one sentence each."""
    try:
        yield
    except hub_errors.GatedRepoError as error:
        raise HubError(
            f"the hub model {repo!r} is gated: accept its licence on its hub page, then log in with `hf auth login`"
        ) from error
    except hub_errors.RepositoryNotFoundError as error:
        raise HubError(f"the hub has no public {repo!r}; if it is private, log in with `hf auth login`") from error
    except hub_errors.RevisionNotFoundError as error:
        raise HubError(f"the hub's {repo!r} has no revision {revision!r}") from error
    except hub_errors.HFValidationError as error:
        raise HubError(f"{repo!r} is no valid hub id: it must be 'org/name'") from error
    except hub_errors.HfHubHTTPError as error:
        raise HubError(f"the hub refused {repo!r}: {str(error).splitlines()[0]}") from error
    except (hub_errors.LocalEntryNotFoundError, hub_errors.HTTPError, ConnectionError) as error:
        raise HubError(f"the hub cannot be reached and {repo!r} has not been fetched before") from error
    except OSError as error:
        what = "the disk is full" if error.errno == errno.ENOSPC else str(error)
        raise HubError(f"{repo!r} could not be stored: {what}") from error


def _reporting(progress: Progress | None, total: int) -> type[tqdm]:
    """A progress bar class that draws nothing and tells `progress` about bytes."""
    most = 0

    class Reporting(tqdm):
        def __init__(self, *args: object, **kwargs: object) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **(kwargs | {"file": io.StringIO(), "disable": False}))

        def update(self, n: float | None = 1) -> bool | None:
            nonlocal most
            shown = super().update(n)
            if progress and self.unit == "B" and self.n > most:  # several bars count the same bytes
                most = int(self.n)
                progress(min(most, total) if total else most, total or int(self.total or most))
            return shown

    return Reporting
