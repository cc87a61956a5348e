"""What lies outside, what the lake holds, and which partitions are out of date, and why. Computes nothing."""
