"""Safetensors a tensor at a time: the bytes of the library, and nothing half-written."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from self_pruner.memory.errors import ModelError
from self_pruner.tools.models.tensor_files import TensorFiles, TensorWriter

GENERATOR = torch.Generator().manual_seed(0)
TENSORS = {
    "b.weight": torch.randn(3, 5, generator=GENERATOR),
    "a.weight": torch.randn(7, generator=GENERATOR).double(),
    "c": torch.randn(2, 2, 2, generator=GENERATOR).bfloat16(),
    "d": torch.randn(1, 9, generator=GENERATOR).half(),
    "empty": torch.zeros(0, 4),
    "scalar": torch.tensor(1.5),
    'a name with "quotes" and ü': torch.ones(2),
}
SHAPES = {name: (tensor.dtype, tensor.shape) for name, tensor in TENSORS.items()}


@pytest.mark.parametrize("metadata", [{"format": "pt"}, {"b": "2", "a": "1", "c": "3"}], ids=["one", "several"])
def test_what_is_written_are_the_bytes_of_the_library(tmp_path, metadata):
    save_file(TENSORS, tmp_path / "theirs", metadata={"format": "pt"})
    with TensorWriter(tmp_path / "ours", SHAPES, metadata) as writer:
        for name in reversed(TENSORS):
            writer.write(name, TENSORS[name])
    if metadata == {"format": "pt"}:
        assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    read = load_file(tmp_path / "ours")
    assert all(torch.equal(read[name], tensor) for name, tensor in TENSORS.items())
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_what_is_read_is_what_the_library_reads(tmp_path):
    save_file(TENSORS, tmp_path / "file.safetensors")
    files = TensorFiles([tmp_path / "file.safetensors"])
    assert files.stored.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        found = files.read(name)
        assert torch.equal(found, tensor) and found.dtype == tensor.dtype and found.shape == tensor.shape
    assert torch.equal(files.read("b.weight", range(1, 3)), TENSORS["b.weight"][1:3])
    assert torch.equal(files.read("c", range(0, 1)), TENSORS["c"][:1])
    with pytest.raises(ModelError, match="no tensor 'e'"):
        files.read("e")


def test_a_file_that_is_not_filled_does_not_get_its_name(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(ValueError, match="lacks 'b'"), TensorWriter(path, {"b": (torch.float32, [2])}, {}):
        pass
    with pytest.raises(ZeroDivisionError), TensorWriter(path, {"b": (torch.float32, [2])}, {}) as writer:
        writer.write("b", torch.zeros(2))
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_of_another_name_type_or_shape_and_one_twice_are_refused(tmp_path):
    with TensorWriter(tmp_path / "file", {"b": (torch.float32, [2])}, {}) as writer:
        for name, tensor in (("c", torch.zeros(2)), ("b", torch.zeros(3)), ("b", torch.zeros(2).half())):
            with pytest.raises(ValueError, match="has no place"):
                writer.write(name, tensor)
        writer.write("b", torch.zeros(2))
        with pytest.raises(ValueError, match="has no place"):
            writer.write("b", torch.zeros(2))
