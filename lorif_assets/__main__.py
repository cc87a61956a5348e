"""`python -m lorif_assets` is the command `lorif`."""

from lorif_assets.cli.main import main

main(prog_name="lorif")
