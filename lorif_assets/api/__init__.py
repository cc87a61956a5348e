"""The Python API: what `lorif_assets` offers by name. Import it from there."""
