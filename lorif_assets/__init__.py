"""Training data attribution by LoRIF, as Dagster software-defined assets."""
