"""Checkpoints that somebody damaged or made up: one sentence, at once, whatever they claim."""

import json
import os
import shutil
import signal

import pytest

from self_pruner.agent.prepare.texts import read_texts
from self_pruner.agent.settings.settings import make_settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import SelfPrunerError
from self_pruner.tools.models.checkpoint import INDEX, WEIGHTS, digest_of, inspect
from self_pruner.tools.models.source import load, load_tokenizer, resolve
from tests.tiny import tiny_folder

FIRST = "model.layers.0.mlp.down_proj.weight"
UNREADABLE = b'{"version": "1.0", "added_tokens": [{"id": 1}], "model": {"type": "BPE"}}'
SECONDS = 30  # far more than any of this takes, even where other work holds the processors


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("hostile") / "tiny")


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "tiny")


@pytest.fixture(autouse=True)
def _no_hang():
    def give_up(*_):
        pytest.fail("it hangs")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def refused(folder, look=inspect):
    with pytest.raises(SelfPrunerError) as caught:
        look(folder)
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence) < 500
    return sentence


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text()) | changes
    kept = {key: value for key, value in config.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(kept))


def edit_header(folder, change):
    """Rewrites the header of the weights; `change` returns the new one, as an object or as bytes."""
    content = (folder / WEIGHTS).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = change(json.loads(content[8 : 8 + length]))
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(len(raw).to_bytes(8, "little") + raw + content[8 + length :])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("num_hidden_layers", value) for value in (2, 4, 900, 10**12, 0, -1, "3", 3.0, True, None, [3], ...)],
        *[("hidden_size", value) for value in (128, 10**6, 10**12, -64, "64", {}, ...)],
        *[("intermediate_size", value) for value in (104, 10**12, 96.5, ...)],
        *[("vocab_size", value) for value in (512, 10**9, 10**12, -5, None, ...)],
        *[("num_attention_heads", value) for value in (4, 10**12, 0, ...)],
        *[("num_key_value_heads", value) for value in (3, 2, 10**12, 0, "4")],
        *[("head_dim", value) for value in (32, 10**12, -16)],
        *[("max_position_embeddings", value) for value in (10**30, "x", -1)],
        *[("architectures", value) for value in ("LlamaForCausalLM", {"LlamaForCausalLM": 1}, 7, [7])],
    ],
)
def test_a_config_that_contradicts_the_weights_is_refused_before_anything_is_made_of_it(folder, name, value):
    edit_config(folder, **{name: value})
    sentence = refused(folder)
    assert name in sentence or "config.json" in sentence or "lacks the tensor" in sentence


def test_a_config_with_fewer_layers_than_the_weights_says_both(folder):
    edit_config(folder, num_hidden_layers=2)
    assert "has 3 layers, and its config.json says 2" in refused(folder)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_sizes_that_a_family_has_defaults_for_may_be_missing(family, tmp_path):
    tiny_folder(tmp_path / "m", family, tokenizer=False, head_dim=8, num_key_value_heads=8)
    edit_config(tmp_path / "m", head_dim=..., num_key_value_heads=..., max_position_embeddings=...)
    assert inspect(tmp_path / "m").family.model_type == family


@pytest.mark.parametrize("depth", [100, 900, 100_000])
def test_json_that_is_nested_without_end_is_refused(folder, depth):
    deep = b'{"a":' * depth + b"1" + b"}" * depth
    edit_header(folder, lambda header: deep)
    assert "no safetensors file" in refused(folder)
    (folder / WEIGHTS).rename(folder / "model-1.safetensors")
    (folder / INDEX).write_bytes(deep)
    assert "no index of safetensors" in refused(folder)
    (folder / "config.json").write_bytes(deep)
    assert "nested too deep" in refused(folder)


def moved(change):
    """A header in which the range of the first tensor is another one."""

    def do(header):
        start, end = header[FIRST]["data_offsets"]
        return header | {FIRST: header[FIRST] | {"data_offsets": change(start, end)}}

    return do


def overlapping(header):
    alike = [name for name in header if name != "__metadata__" and header[name]["shape"] == header[FIRST]["shape"]]
    return header | {alike[0]: header[alike[1]]}


def with_shape(shape):
    return lambda header: header | {FIRST: header[FIRST] | {"shape": shape}}


@pytest.mark.parametrize(
    "change",
    [
        overlapping,
        lambda header: {name: header[name] for name in header if name != FIRST},  # a gap
        moved(lambda start, end: [float(start), float(end)]),
        moved(lambda start, end: [-1, end]),
        moved(lambda start, end: [end, start]),
        moved(lambda start, end: [start, 10**40]),
        moved(lambda start, end: [start]),
        moved(lambda start, end: [start, end, end]),
        moved(lambda start, end: [start, True]),
        moved(lambda start, end: str(start)),
        with_shape([-64, -96]),
        with_shape([64.0, 96.0]),
        with_shape("64"),
        with_shape([1 << 62] * 9),
        with_shape([10**30, 0]),
        lambda header: header | {FIRST: header[FIRST] | {"dtype": 3}},
        lambda header: header | {FIRST: header[FIRST] | {"dtype": ["F32"]}},
        lambda header: header | {FIRST: 3},
    ],
)
def test_ranges_and_shapes_that_no_file_has_are_refused(folder, change):
    edit_header(folder, change)
    assert WEIGHTS in refused(folder)


def test_a_tensor_whose_name_is_a_book_is_refused_in_a_sentence(folder):
    edit_header(folder, lambda header: {"x" * 100_000: header[FIRST] | {"shape": [1]}})
    refused(folder)


@pytest.mark.parametrize("claimed", [1 << 20, 1 << 39, (1 << 64) - 1])
def test_nothing_is_read_because_a_header_claims_it(folder, claimed):
    (folder / WEIGHTS).write_bytes(claimed.to_bytes(8, "little"))
    assert "truncated" in refused(folder)
    os.truncate(folder / WEIGHTS, 1 << 40)  # a file with holes: as large as it likes
    assert WEIGHTS in refused(folder)


def put(path, what):
    path.unlink(missing_ok=True)
    if what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "folder":
        path.mkdir()
    else:
        path.touch()
        os.truncate(path, 1 << 40)


@pytest.mark.parametrize("what", ["pipe", "device", "folder", "huge file"])
@pytest.mark.parametrize("name", ["config.json", WEIGHTS, INDEX])
def test_what_is_no_file_is_not_waited_for(folder, what, name):
    if name == INDEX:
        (folder / WEIGHTS).unlink()
    put(folder / name, what)
    assert name in refused(folder)
    refused(folder, lambda folder: resolve(str(folder)))


@pytest.mark.parametrize("what", ["pipe", "device", "huge file"])
@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"]
)
def test_what_is_no_file_of_a_tokenizer_is_not_waited_for(folder, what, name):
    put(folder / name, what)
    assert name in refused(folder, lambda folder: load_tokenizer(folder, False))
    assert name in refused(folder)


def test_a_pipe_among_the_further_templates_is_not_waited_for(folder):
    (folder / "additional_chat_templates").mkdir()
    put(folder / "additional_chat_templates" / "tools.jinja", "pipe")
    assert "tools.jinja" in refused(folder, lambda folder: load_tokenizer(folder, False))


def test_links_to_plain_files_are_files(original, tmp_path):
    (tmp_path / "linked").mkdir()
    for path in original.iterdir():  # as the hub's cache has them
        (tmp_path / "linked" / path.name).symlink_to(path)
    assert inspect(tmp_path / "linked").shards
    assert load_tokenizer(tmp_path / "linked", False)("early layers")["input_ids"]


@pytest.mark.parametrize(
    "name",
    ["../tiny/model.safetensors", "/etc/passwd", "/etc/passwd.safetensors", "..", ".", "", "config.json", 3, ["x"]]
    + [None, "a\0b.safetensors", "missing.safetensors", "sub/model.safetensors", "..\\model.safetensors"],
)
def test_an_index_names_files_of_its_folder_only(folder, name):
    (folder / WEIGHTS).rename(folder / "model-1.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": {FIRST: name}}))
    assert INDEX in refused(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"{}", b"[]", b"[" * 100_000, b"\xff\xfe" * 100, b'{"version": "1.0", "model": {"type": "BPE"}}']
    + [b'{"version":"1.0","model":{"type":"BPE","vocab":{"a":0},"merges":["x y"]}}', UNREADABLE],
)
def test_a_damaged_tokenizer_is_one_sentence(folder, content):
    (folder / "tokenizer.json").write_bytes(content)
    assert "tokenizer" in refused(folder, lambda folder: load(resolve(str(folder)), device="cpu", dtype="auto"))


def test_a_tokenizer_that_is_cut_short_is_one_sentence(folder):
    (folder / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes()[:10_000])
    assert "tokenizer" in refused(folder, lambda folder: load_tokenizer(folder, False))


@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b"[" * 100_000, b"\xff", b'{"tokenizer_class": 7}', b'{"eos_token": [1]}']
    + [b'{"chat_template": 7}', b'{"extra_special_tokens": 7}', b'{"model_max_length": "x"}'],
)
def test_a_damaged_tokenizer_config_is_one_sentence_or_does_no_harm(folder, content):
    (folder / "tokenizer_config.json").write_bytes(content)
    try:
        tokenizer = load_tokenizer(folder, False)
    except SelfPrunerError as error:
        assert "\n" not in str(error) and "tokenizer" in str(error)
    else:
        assert tokenizer("early layers")["input_ids"]


def test_a_tokenizer_of_another_model_is_one_sentence(tmp_path, original):
    tiny_folder(tmp_path / "m", tokenizer=False)  # it knows 512 tokens
    for file in original.glob("tokenizer*"):
        shutil.copy(file, tmp_path / "m")
    settings = make_settings(
        {"sequence_length": 64, "calibration_length": 64, "calibration_sequences": 2, "mlp_unit": 8}
    )
    loaded = load(resolve(str(tmp_path / "m")), device="cpu", dtype="auto")
    sentence = refused(settings, lambda settings: read_texts(settings, loaded, "cpu", View()))
    assert "they do not belong together" in sentence


def test_what_is_evaluated_is_looked_at_too(folder):
    put(folder / "tokenizer.json", "pipe")
    assert "tokenizer.json" in refused(folder, digest_of)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("changes", [{"pad_token_id": 10**12}, {"rms_norm_eps": "x"}, {"dtype": "evil"}, {"a": 1}])
def test_what_is_left_of_a_damaged_config_is_one_sentence_or_does_no_harm(folder, name, changes):
    values = json.loads((folder / name).read_text()) | changes
    (folder / name).write_text(json.dumps(values))
    try:
        load(resolve(str(folder)), device="cpu", dtype="auto")
    except SelfPrunerError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("layers", [True, False])
@pytest.mark.parametrize("content", [b"{", b"[]", b"[" * 100_000, b"\xff", b'{"watermarking_config": 3}'])
def test_a_damaged_generation_config_is_one_sentence_resident_and_streamed(folder, content, layers):
    (folder / "generation_config.json").write_bytes(content)
    source = resolve(str(folder))
    sentence = refused(source, lambda source: load(source, device="cpu", dtype="float32", layers=layers))
    assert "generation_config.json" in sentence
