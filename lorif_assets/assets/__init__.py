"""The software-defined assets: thin; each fetches its inputs, calls the mathematics, writes a table, reports metadata."""

import warnings

import dagster as dg

# Backfill policies and two-dimensional partition mappings are marked beta in every release that has them.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
