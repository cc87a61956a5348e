"""Fitting bases, ranks and curvature to a checkpoint's gradients."""
