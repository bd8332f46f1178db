"""The hub itself is not reached: only the client's download functions are stubbed."""

import shutil
from fnmatch import fnmatch
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors

from self_pruner.agent import session
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.settings.settings import make_settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import ModelError
from self_pruner.tools.models.hub import HubError, _reporting, fetch_dataset_file, fetch_model
from self_pruner.tools.models.source import load, pinned, resolve
from tests.tiny import tiny_folder, tiny_model

COMMIT = "0123456789abcdef" * 2 + "c0ffee42"


class Hub:
    """A hub with one repository in a folder, named by its commit as in the cache; remembers what was fetched."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.fetched = folder, []
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", self.info)
        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", self.info)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.download)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot)

    def info(self, repo, revision=None, files_metadata=False):
        assert files_metadata
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        siblings = [SimpleNamespace(rfilename=str(f.relative_to(self.folder)), size=f.stat().st_size) for f in files]
        return SimpleNamespace(sha=self.folder.name, siblings=siblings)

    def download(self, repo, filename, *, revision=None, repo_type=None, local_files_only=False):
        if local_files_only and filename not in self.fetched:
            raise errors.LocalEntryNotFoundError("not here")
        self.fetched.append(filename)
        return str(self.folder / filename)

    def snapshot(self, repo, *, revision, allow_patterns, tqdm_class, repo_type=None):
        names = sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))
        names = [name for name in names if any(fnmatch(name, pattern) for pattern in allow_patterns)]
        bar = tqdm_class(total=0, unit="B", name="bytes")
        for name in names:
            self.fetched.append(name)
            bar.update((self.folder / name).stat().st_size)
        return str(self.folder)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("hub") / COMMIT)


@pytest.fixture
def repository(original, tmp_path):
    folder = shutil.copytree(original, tmp_path / COMMIT)
    unwanted = ("pytorch_model.bin", "consolidated.safetensors", "original/params.json", "README.md")
    for name in (*unwanted, "tokenization_x.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not wanted")
    return folder


def failing(monkeypatch, error):
    """Makes the hub answer with `error`."""

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)


def http_error(kind):
    response = SimpleNamespace(status_code=403, headers={}, request=None, url="", text="")
    return kind("refused\nby the hub", response=response)


def test_only_the_files_that_are_needed_are_fetched(repository, monkeypatch):
    hub, seen = Hub(repository, monkeypatch), []
    assert fetch_model("org/name", progress=lambda done, total: seen.append((done, total))) == repository
    wanted = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert wanted | {"chat_template.jinja"} == set(hub.fetched)
    assert seen[-1][0] == seen[-1][1] == sum((repository / name).stat().st_size for name in set(hub.fetched))
    fetch_model("org/name", code=True)
    assert "tokenization_x.py" in hub.fetched


def test_shards_are_fetched_with_their_index(tmp_path, monkeypatch):
    tiny_model("qwen2").save_pretrained(tmp_path / "repository", max_shard_size="100KB")
    hub = Hub(tmp_path / "repository", monkeypatch)
    fetch_model("org/name")
    assert "model.safetensors.index.json" in hub.fetched
    assert sum(fnmatch(name, "model-*.safetensors") for name in hub.fetched) > 2


def test_an_alias_is_loaded_from_the_hub(repository, monkeypatch):
    Hub(repository, monkeypatch)
    assert load(resolve("llama-2-7b"), device="cpu", dtype="auto").name == "llama-2-7b"


class MovingHub(Hub):
    """A hub whose branch `main` stands for one commit after another, each a folder of the first one's parent."""

    def at(self, revision):
        known = self.folder.parent / (self.folder.name if revision in (None, "main") else revision)
        if not known.is_dir():
            raise http_error(errors.RevisionNotFoundError)
        return known

    def info(self, repo, revision=None, files_metadata=False):
        siblings = [SimpleNamespace(rfilename=f.name, size=f.stat().st_size) for f in self.at(revision).iterdir()]
        return SimpleNamespace(siblings=siblings)

    def download(self, repo, filename, *, revision=None, local_files_only=False):
        if not (self.at(revision) / filename).is_file():
            raise http_error(errors.RemoteEntryNotFoundError)
        return str(self.at(revision) / filename)

    def snapshot(self, repo, *, revision, **options):
        return str(self.at(revision))

    def move(self):
        """A commit with other weights, to which `main` moves; returns it."""
        later = self.folder.parent / self.folder.name[::-1]
        tiny_folder(later, seed=1)
        self.folder = later
        return later.name


def test_a_branch_is_resolved_to_its_commit_which_stays_though_the_branch_moves(repository, monkeypatch):
    hub = MovingHub(repository, monkeypatch)
    assert resolve("org/name").commit is None and resolve(str(repository)).commit is None
    early = pinned(resolve("org/name", "main"))
    before = load(early, device="cpu", dtype="auto")
    later = hub.move()
    assert early.commit == COMMIT and pinned(early) == early
    again = load(early, device="cpu", dtype="auto")
    now = load(resolve("org/name"), device="cpu", dtype="auto")
    assert (before.commit, again.commit, now.commit) == (COMMIT, COMMIT, later)
    assert before.fingerprint == again.fingerprint != now.fingerprint
    assert load(resolve(str(repository)), device="cpu", dtype="auto").commit is None


def test_a_run_writes_down_the_commit_and_goes_on_with_it(repository, tmp_path, monkeypatch):
    hub, seen = MovingHub(repository, monkeypatch), []

    def carry_out(settings, run, view, placement, **others):
        loaded = load(resolve(settings.model, settings.revision), device="cpu", dtype="auto")
        seen.append((settings.revision, loaded.commit, loaded.fingerprint))

    monkeypatch.setattr(session, "carry_out", carry_out)
    asked = {"model": "org/name", "mlp_unit": 8, "runs": tmp_path / "runs", "memory": tmp_path / "memory.sqlite"}
    path, _ = session.start(make_settings(asked), View())
    hub.move()
    session.resume(path, View())
    assert RunDirectory.open(path).settings["revision"] == COMMIT
    assert len(set(seen)) == 1 and seen[0][:2] == (COMMIT, COMMIT)


def test_a_repository_without_config_is_one_sentence(repository, monkeypatch):
    MovingHub(repository, monkeypatch)
    (repository / "config.json").unlink()
    with pytest.raises(HubError, match=r"'org/name' has no config\.json") as caught:
        pinned(resolve("org/name"))
    assert "\n" not in str(caught.value)


def test_pickles_are_refused_before_any_download(repository, monkeypatch):
    (repository / "model.safetensors").unlink()
    hub = Hub(repository, monkeypatch)
    with pytest.raises(ModelError, match="org/name"):
        fetch_model("org/name")
    assert hub.fetched == []


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ('{"model_type": "gpt2"}', ModelError),
        ('{"model_type": "llama", "quantization_config": {"quant_method": "awq"}}', ModelError),
    ],
)
def test_a_config_that_cannot_be_pruned_is_refused_before_the_weights(repository, monkeypatch, config, error):
    (repository / "config.json").write_text(config)
    hub = Hub(repository, monkeypatch)
    with pytest.raises(error):
        fetch_model("org/name")
    assert hub.fetched == ["config.json"]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (http_error(errors.GatedRepoError), "accept its licence"),
        (http_error(errors.RepositoryNotFoundError), "has no public 'org/name'"),
        (http_error(errors.RevisionNotFoundError), "no revision 'v9'"),
        (http_error(errors.HfHubHTTPError), "the hub refused 'org/name': refused"),
        (OSError(28, "No space left on device"), "the disk is full"),
    ],
)
def test_what_the_hub_says_becomes_one_sentence(monkeypatch, error, sentence):
    failing(monkeypatch, error)
    with pytest.raises(HubError, match=sentence) as caught:
        fetch_model("org/name", "v9")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [errors.OfflineModeIsEnabled("off"), errors.HTTPError("no route")])
def test_without_network_an_earlier_copy_is_used_or_its_lack_explained(repository, monkeypatch, error):
    hub = Hub(repository, monkeypatch)
    failing(monkeypatch, error)
    with pytest.raises(HubError, match="cannot be reached and 'org/name' has not been fetched"):
        fetch_model("org/name")
    hub.fetched.append("config.json")
    assert fetch_model("org/name") == repository
    assert hub.fetched == ["config.json", "config.json"]  # the copy, and that it was looked up


def test_a_dataset_file_is_fetched_once(tmp_path, monkeypatch):
    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "a.json.gz").write_bytes(b"x" * 10)
    hub, seen = Hub(tmp_path, monkeypatch), []
    for _ in range(2):
        path = fetch_dataset_file("org/data", "en/a.json.gz", "main", lambda done, total: seen.append((done, total)))
        assert path == tmp_path / "en" / "a.json.gz"
    assert seen == [(10, 10)]
    with pytest.raises(HubError, match="no file 'en/b.json.gz'"):
        fetch_dataset_file("org/data", "en/b.json.gz", "main")
    shutil.rmtree(tmp_path / "en")
    assert hub.fetched.count("en/a.json.gz") == 2  # the download, then the copy


def test_bars_draw_nothing_and_never_run_backwards(capfd):
    seen = []
    bar = _reporting(lambda done, total: seen.append((done, total)), 100)
    first, second, files = bar(total=0, unit="B"), bar(total=0, unit="B"), bar(total=3)
    for n in (10, 30):
        first.update(n)
        second.update(n)
        files.update(1)
    assert seen == [(10, 100), (40, 100)]
    assert capfd.readouterr() == ("", "")
