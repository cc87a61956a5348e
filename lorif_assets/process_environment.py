"""What a process of this project sets in its environment before torch is imported."""

import os

# OpenMP threads that wait for one another spin by default, and where a step shares its cores with other work a training
# step of two threads then took ten times as long (2.3 s against 0.2 s).
_WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}
# oneDNN keeps compiled code for a thousand shapes of matrices, a third of a MiB each, and batches come in ever new ones: at
# 128, more than one batch has, 85 MiB stay where 360 did, in the same time.
_CACHES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128", "LRU_CACHE_CAPACITY": "128"}
# What Metal does not have runs on the CPU in place of an error.
_FALLBACK = {"PYTORCH_ENABLE_MPS_FALLBACK": "1"}


def set_process_environment() -> None:
    """Set what is not set yet; commands and Dagster's code location do, the Python API leaves it to its user."""
    for name, value in {**_WAITING, **_CACHES, **_FALLBACK}.items():
        os.environ.setdefault(name, value)
