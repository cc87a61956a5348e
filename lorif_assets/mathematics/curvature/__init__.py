"""The curvature of a layer, and its damped inverse."""
