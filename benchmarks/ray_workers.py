"""What handing shards to workers of a Ray cluster costs: seconds per shard without work, and factors by one and two workers."""

import json
import logging
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import dagster as dg
import torch
from measurements import markdown_table, report, setting_and_output, timed

from lorif_assets.assets.graph import ASSETS
from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.attribution.checkpoints.opened import CheckpointOpening
from lorif_assets.attribution.factors.build_factors import FactorBuilding, commit_factors
from lorif_assets.automation.materialization import bring_up_to_date
from lorif_assets.compute.ray_engine import RayEngine
from lorif_assets.compute.shard_work import Engine, Step, Worker, results
from lorif_assets.config.compute import ComputeSettings
from lorif_assets.config.settings import CONFIG_NAME
from lorif_assets.data.rows.rejected_share import RejectedShare
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.project import Project

LOG = logging.getLogger("benchmark")
VOCABULARY = 4_096
COLUMNS = {
    "engine": "{engine}",
    "seconds per shard": "{seconds:.3f}",
    "rate, of the local one's": "{rate:.2f}",
}


@dataclass(frozen=True)
class Setting:
    """Shards of so many examples of random tokens; rounds, of which the fastest of each engine counts."""

    shards: int = 12
    rows: int = 32
    tokens: int = 256
    empty_shards: int = 300
    repeats: int = 3


SETTINGS = """
[[sources]]
name = "source"
path = "data.jsonl"
rows_per_shard = {rows}
columns = {{ input_ids = "input_ids" }}

[recipe]
kfac_examples = 32

[tracking]
uri = "none"
"""
"""The default recipe."""
BEFORE = {"training_examples", "checkpoints", "kfac_bases"}


def nothing(_state: object, shard: int) -> int:
    """Work of no length."""
    return shard


def project_of(root: Path, setting: Setting) -> Project:
    """Write a project with random tokens and a GPT-2 of width 256 and two blocks, and fit its bases."""
    from tokenizers import Tokenizer, models
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    (root / "queries").mkdir()
    (root / CONFIG_NAME).write_text(SETTINGS.format(rows=setting.rows))
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(VOCABULARY, (setting.shards * setting.rows, setting.tokens), generator=generator)
    (root / "data.jsonl").write_text("\n".join(json.dumps({"input_ids": row}) for row in ids.tolist()))
    tokenizer = Tokenizer(models.WordLevel({f"t{k}": k for k in range(VOCABULARY)}, unk_token="t0"))
    folder = root / "checkpoints/step-1"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="t0").save_pretrained(folder)
    sizes = {"n_embd": 256, "n_layer": 2, "n_head": 4, "n_positions": setting.tokens, "vocab_size": VOCABULARY}
    config = GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(folder)
    project = Project.open(root / CONFIG_NAME)
    with dg.DagsterInstance.ephemeral() as instance:
        chosen = [asset for asset in ASSETS if asset.name in BEFORE]
        list(bring_up_to_date(instance, ASSETS, project, selection=chosen))
    return project


def seconds_per_shard(engine: Engine, project: Project) -> float:
    """Compute and commit the factors of all shards twice, and return the seconds of a shard of the second time."""
    (checkpoint,) = project.checkpoints.find()
    stored = StoredCheckpoint.read(project.lake, checkpoint.name, project.settings.recipe)
    share = RejectedShare(project.lake, "gradient_factors", "all", {}, 1.0)
    shards = sorted(project.lake.read(TRAINING_EXAMPLES, ["shard"])["shard"].unique())
    opening = CheckpointOpening(stored, project.checkpoints, project.settings.batch)
    with engine.workers(opening, LOG) as workers:

        def compute() -> None:
            work, commit = FactorBuilding(share), partial(commit_factors, stored, share)
            for _, outcome in workers.map_shards(work, shards, commit):
                outcome.result()

        # Workers start and load their models with the first shards.
        compute()
        return timed(compute).wall / len(shards)


def seconds_of_nothing(engine: RayEngine, shards: int) -> float:
    """Return the seconds of a shard without work."""
    with engine.workers(_unopened, LOG) as workers:
        list(results(workers, Step(nothing), range(2)))
        return timed(lambda: list(results(workers, Step(nothing), range(shards)))).wall / shards


def _unopened(worker: Worker) -> Worker:
    return worker


def main() -> None:
    """Run the benchmark, print the table, and write JSON."""
    setting, output = setting_and_output(Setting, __doc__, "ray_workers")
    torch.set_num_threads(1)
    one, two = (RayEngine(ComputeSettings(engine="ray", address="local", workers=n), 1) for n in (1, 2))
    with tempfile.TemporaryDirectory() as folder:
        project = project_of(Path(folder), setting)
        engines = {"local": project.engine, "ray, 1 worker": one, "ray, 2 workers": two}
        taken: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(setting.repeats):
            for name, engine in engines.items():
                taken[name].append(seconds_per_shard(engine, project))
        fastest = {name: min(seconds) for name, seconds in taken.items()}
        empty = seconds_of_nothing(one, setting.empty_shards)
    rows = [
        {"engine": name, "seconds": seconds, "rate": fastest["local"] / seconds} for name, seconds in fastest.items()
    ]
    table = f"{markdown_table(COLUMNS, rows)}\n\nA shard without work: {empty * 1e3:.1f} ms."
    report(output, setting, {"rounds": taken, "empty_shard_seconds": empty}, table)


if __name__ == "__main__":
    main()
