"""LoRIF on the lake: bases, factors, curvature and scores of a checkpoint, shard by shard."""
