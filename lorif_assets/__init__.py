"""Training data attribution by LoRIF, as Dagster software-defined assets."""

import os

# Before torch is imported anywhere: OpenMP threads that wait for one another spin by default, and where a step shares its
# cores with other work a training step of two threads then took ten times as long (2.3 s against 0.2 s).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
