"""The command `lorif`: one file for each of its commands."""
