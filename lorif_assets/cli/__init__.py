"""The command `lorif`: one file per command."""
