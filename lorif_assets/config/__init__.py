"""lorif.toml: every field, its default, its meaning and its checks."""
