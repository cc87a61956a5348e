"""The demo of the second method: a small encoder of its own, and what it learned of the first method's rankings."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.table import Table

from lorif_assets.influcoder.extra import require_influcoder
from lorif_assets.lake.influcoder_tables import INFLUCODER_AGREEMENT, RECALL_CURVES
from lorif_assets.lake.lake import Lake

FOLDER = "encoder"
SECTION = f"""
[influcoder]
enabled = true
encoder = "{FOLDER}"
encoder_length = 256
sketch_dim = 8192
anchors = 400
pool = 1000
held_out_anchors = 100
held_out_pool = 400
# The published values are for a pre-trained transformer of 68 million parameters; this one is a vector per token.
learning_rate = 3e-3
alpha = 1.0
epochs = 15
"""


def switch_on(settings: Path, texts: Sequence[str], checkpoints: Path, console: Console) -> None:
    """Make the encoder, and write its section into the demo's settings, where either is still missing.

    Raises:
        SettingsError: Influcoder's libraries are not installed.
    """
    require_influcoder()
    folder = settings.parent / FOLDER
    if not folder.is_dir():
        from transformers import AutoTokenizer

        from lorif_assets.demo.encoder import make_encoder

        tokenizer = AutoTokenizer.from_pretrained(max(checkpoints.iterdir()), local_files_only=True)
        seconds = make_encoder(texts, tokenizer, folder)
        console.print(f"a text encoder, fitted to the passages in {seconds:.1f} s")
    if "[influcoder]" not in settings.read_text():
        settings.write_text(settings.read_text() + SECTION)


def show_influcoder(lake: Lake, console: Console) -> None:
    """Print how well encoders agree with held-out influences, and what a cascade would find."""
    console.rule("[bold]5  the same from a text encoder", align="left")
    agreement = Table(
        title="agreement with held-out influences: Spearman correlations, and NDCG@20", title_justify="left"
    )
    for column in (
        "checkpoint",
        "encoder",
        "seeds",
        "per anchor",
        "aggregated",
        "NDCG@20",
        "training s",
        "ms per text",
    ):
        agreement.add_column(column, justify="left" if column in {"checkpoint", "encoder"} else "right")
    measured = (
        lake.read(INFLUCODER_AGREEMENT)
        .group_by("checkpoint", "encoder")
        .agg(
            pl.len().alias("seeds"),
            *(
                pl.col(name).mean()
                for name in ("per_anchor", "aggregated", "ndcg_at_20", "training_seconds", "milliseconds_per_text")
            ),
        )
    )
    for checkpoint, encoder, seeds, anchor, aggregated, ndcg, seconds, text in measured.sort(
        "checkpoint", "encoder"
    ).iter_rows():
        leading = "" if ndcg is None else f"{ndcg:.3f}"
        figures = (f"{anchor:+.3f}", f"{aggregated:+.3f}", leading, f"{seconds:.0f}", f"{text:.1f}")
        agreement.add_row(checkpoint, encoder, str(seeds), *figures)
    console.print(agreement)
    recall = Table(title="LoRIF's exact top k among the encoder's proposals", title_justify="left")
    for column in ("checkpoint", "k", "proposed per query", "found", "by chance", "bytes read"):
        recall.add_column(column, justify="left" if column == "checkpoint" else "right")
    for row in lake.read(RECALL_CURVES).sort("checkpoint", "k", "candidates").iter_rows(named=True):
        shares = (
            f"{row['recall']:.0%}",
            f"{row['random_recall']:.0%}",
            f"{row['bytes_read'] / row['bytes_full_scan']:.0%}",
        )
        recall.add_row(row["checkpoint"], str(row["k"]), f"{row['candidates']:,}", *shares)
    console.print(recall)
