"""What the lake holds of a checkpoint: its record, bases, factors and curvature, and their versions."""
