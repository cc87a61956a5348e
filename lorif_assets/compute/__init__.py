"""Where shards are computed: in this process, or by workers of a Ray cluster that hold the same model."""
