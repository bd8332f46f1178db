"""A Ray instance of this machine, for as long as standard input is open: `own_instance.py WORKERS GPUS FOLDER`.

Says its address in a line. It runs in a process of its own, so that a Ctrl-C or a signal to the process group of a run
reaches that run alone, which may still need its workers.
"""

from __future__ import annotations

import logging
import sys

import ray

OBJECT_STORE = 128 << 20  # bytes; nearly all that is said between driver and workers is short

if __name__ == "__main__":
    workers, gpus, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    ray.init(
        address="local",
        num_cpus=workers,
        num_gpus=gpus,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE,
        logging_level=logging.ERROR,
        log_to_driver=False,
        _temp_dir=folder,
    )
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
