"""Low-rank factors of gradients: their computation, their ranks and their codes."""
