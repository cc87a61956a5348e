"""What lies outside: the lake's tables, models and tokenizers, devices, experiment tracking."""
