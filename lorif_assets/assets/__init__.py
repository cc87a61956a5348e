"""The assets, each thin: it fetches its inputs, calls the mathematics, writes a table and reports metadata."""

import warnings

import dagster as dg

# Backfill policies and two-dimensional partition mappings are marked beta in every release that has them.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
