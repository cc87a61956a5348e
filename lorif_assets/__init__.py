"""Training data attribution by LoRIF, as Dagster software-defined assets."""

import os

# Before torch is imported anywhere: OpenMP threads that wait for one another spin by default, and where a step shares its
# cores with other work a training step of two threads then took ten times as long (2.3 s against 0.2 s).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# oneDNN keeps compiled code for a thousand shapes of matrices, a third of a MiB each, and batches come in ever new ones: at
# 128, more than one batch has, 85 MiB stay where 360 did, in the same time.
for _cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(_cache, "128")
