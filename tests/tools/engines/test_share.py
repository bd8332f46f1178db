"""What a vLLM beside a run gets, and how it is told."""

import pytest

from self_pruner.memory.errors import EngineError
from self_pruner.tools.engines.server import options_of, served, visible
from self_pruner.tools.engines.share import BESIDE, Room, Share, cache_space, share_of

GB = 10**9
ROOMS = {"cuda:0": Room(80 * GB, 10 * GB), "cuda:1": Room(80 * GB, 78 * GB), "cuda:2": Room(80 * GB, 70 * GB)}


def test_the_fewest_gpus_with_room_share_a_model():
    one = share_of(13 * GB, 2 * GB, 8, ROOMS)
    assert one.gpus == ("cuda:1",) and one.bytes == 28 * GB + BESIDE
    assert one.fraction * 80 * GB >= one.bytes > (one.fraction - 0.02) * 80 * GB
    two = share_of(60 * GB, 2 * GB, 8, ROOMS)
    assert two.gpus == ("cuda:1", "cuda:2") and two.bytes == 61 * GB + BESIDE
    assert share_of(60 * GB, 2 * GB, 5, ROOMS) is None  # five groups cannot be halved
    assert share_of(60 * GB, 2 * GB, 8, ROOMS, "fp8").gpus == ("cuda:1",)
    assert share_of(80 * GB, 2 * GB, 8, ROOMS) is None
    assert share_of(GB, GB, 8, {}) is None


@pytest.mark.parametrize("seen, expected", [(None, "1,2"), ("4,5,6", "5,6"), ("GPU-a, GPU-b, GPU-c", "GPU-b,GPU-c")])
def test_a_server_is_kept_to_its_share(seen, expected):
    share = Share(("cuda:1", "cuda:2"), 60 * GB, 0.76, "fp8")
    words = " ".join(options_of(share))
    assert words == "--gpu-memory-utilization 0.76 --tensor-parallel-size 2 --quantization fp8"
    assert visible(share, seen) == expected
    assert "--quantization" not in options_of(Share(("cuda:0",), GB, 0.5))


def test_on_a_cpu_the_cache_has_room_for_the_longest_request(tmp_path):
    assert [cache_space(cache) for cache in (0, GB, 2 << 30)] == [1, 1, 3]
    python, log = tmp_path / "python", tmp_path / "log"
    python.write_text("#!/bin/sh\nenv\n")
    python.chmod(0o755)
    with pytest.raises(EngineError), served(python, "model", log, dtype="bfloat16", max_model_len=8, cache=2 << 30):
        pass
    assert "VLLM_CPU_KVCACHE_SPACE=3" in log.read_text().splitlines()
