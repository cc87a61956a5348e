"""Questions to a process that was asked before: the first, a second one, and what the second spends its time on.

A project of a small model of GPT-2's shape is materialized with the default recipe on one shard of random words. The shard's
rows are then repeated until it has its share of `examples`, its file is copied until there are all (as `copied_shards` says),
and the curvature is fitted to them, so that the lake's bookkeeping is that of a project of this size. Then the project is
opened in a process of its own and asked. A second question costs the model's passes, which are timed apart, the lookup of the
newest snapshot, and a scan of the factors that the process kept; `nothing kept` is the same with `batch.kept_mib = 0`.
"""

import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from copied_shards import copy_shard, shard_name
from measurements import in_a_process, markdown_table, memory_of_this_process, report, setting_and_output

CHECKPOINT = "checkpoint-1"
PROMPT, COMPLETION = "word1 word2 word3", " word4 word5 word6 word7"

_ALL = 1 << 20
"""MiB, more than there are."""


@dataclass(frozen=True)
class Setting:
    """Size of the project: `blocks` blocks of GPT-2's shape of a width, without projection, at a rank."""

    examples: int = 1_000_000
    shards: int = 80
    computed: int = 64
    blocks: int = 1
    width: int = 64
    rank: int = 8
    questions: int = 5
    threads: int = 2

    @property
    def rows(self) -> int:
        """Examples of a shard."""
        return self.examples // self.shards

    def settings(self, kept_mib: int) -> str:
        """Return lorif.toml."""
        return f"""
tracking = {{ uri = "none" }}

[[sources]]
name = "source"
path = "data.jsonl"

[recipe]
projection_factor = 1
rank = {self.rank}
rank_by_layer = false

[batch]
kept_mib = {kept_mib}
"""


def write_project(root: Path, setting: Setting) -> None:
    """Write a project, and attribute its one shard."""
    import dagster as dg
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    from lorif_assets.assets.graph import ASSETS
    from lorif_assets.automation.materialization import bring_up_to_date
    from lorif_assets.project import Project

    words, rng = [f"word{number}" for number in range(500)], random.Random(0)
    texts = [" ".join(rng.choices(words, k=32)) for _ in range(setting.computed)]
    (root / "queries").mkdir()
    (root / "lorif.toml").write_text(setting.settings(_ALL))
    (root / "data.jsonl").write_text("".join(f'{{"text": "{text}"}}\n' for text in texts))
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, **{w: i for i, w in enumerate(words, 1)}}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = root / "checkpoints" / CHECKPOINT
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<unk>").save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(words) + 1,
        n_positions=64,
        n_embd=setting.width,
        n_layer=setting.blocks,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    wanted = {"training_examples", "checkpoints", "kfac_bases", "gradient_factors"}
    with dg.DagsterInstance.ephemeral() as instance:
        chosen = [asset for asset in ASSETS if asset.name in wanted]
        list(bring_up_to_date(instance, ASSETS, Project.open(root / "lorif.toml"), selection=chosen))


def enlarge(root: Path, setting: Setting) -> None:
    """Repeat the shard's rows and copy the shard, and fit the curvature to all examples."""
    from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
    from lorif_assets.attribution.fitting.fit_curvature import commit_row, fitted_row
    from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS
    from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
    from lorif_assets.project import Project

    project = Project.open(root / "lorif.toml")
    lake = project.lake
    for schema, constant in ((TRAINING_EXAMPLES, {}), (GRADIENT_FACTORS, {"checkpoint": CHECKPOINT})):
        table = lake.table(schema)
        if table is None:
            raise FileNotFoundError(lake.uri(schema))
        rows = table.to_pyarrow_table()
        many = pa.concat_tables([rows] * -(-setting.rows // len(rows))).slice(0, setting.rows).combine_chunks()
        ids = pa.array([str(row) for row in range(setting.rows)])
        many = many.set_column(many.schema.get_field_index("example_id"), "example_id", ids)
        partition = {**constant, "shard": shard_name(0)}
        lake.replace(schema, partition, many)
        copy_shard(lake, schema, partition, setting.shards, setting.shards)
    stored = StoredCheckpoint.read(lake, CHECKPOINT, project.settings.recipe)
    for layer in stored.record.layer_shapes:
        device = torch.device("cpu")
        _, row = fitted_row(stored, layer, rows=4_096, device=device, refine_below=0.0, refine=False)
        commit_row(stored, row)


def asked(root: str, setting: Setting, kept_mib: int) -> dict[str, Any]:
    """Ask a project, and return the seconds that the questions took and the memory of this process."""
    import lorif_assets
    from lorif_assets.attribution.scores import score_queries
    from lorif_assets.attribution.scores.score_queries import preconditioned_queries

    torch.set_num_threads(setting.threads)
    (Path(root) / "lorif.toml").write_text(setting.settings(kept_mib))
    passes: list[float] = []

    def timed_passes(*arguments: Any) -> Any:
        started = time.perf_counter()
        found = preconditioned_queries(*arguments)
        passes.append(time.perf_counter() - started)
        return found

    score_queries.preconditioned_queries = timed_passes  # type: ignore[assignment]
    walls, processor = [], []
    with lorif_assets.open(root) as project:
        for _ in range(setting.questions):
            wall, cpu = time.perf_counter(), time.process_time()
            answer = project.attribute(PROMPT, COMPLETION)
            walls.append(time.perf_counter() - wall)
            processor.append(time.process_time() - cpu)
    later = min(range(1, setting.questions), key=lambda at: walls[at])
    return {
        "kept": "nothing" if kept_mib == 0 else "all that fits",
        "examples": answer.n_examples,
        "first_seconds": walls[0],
        "second_seconds": walls[later],
        "second_cpu_seconds": processor[later],
        "passes_seconds": passes[later],
        "resident_mib": memory_of_this_process("VmHWM") / 2**20,
    }


COLUMNS = {
    "kept": "{kept}",
    "examples": "{examples:,}",
    "first question, s": "{first_seconds:.2f}",
    "a later one, s": "{second_seconds:.2f}",
    "of it the model's passes, s": "{passes_seconds:.2f}",
    "a later one, CPU s": "{second_cpu_seconds:.2f}",
    "resident, MiB": "{resident_mib:,.0f}",
}


def main() -> None:
    """Run the benchmark, print the table, and write JSON."""
    setting, output = setting_and_output(Setting, __doc__, "warm_queries")
    with tempfile.TemporaryDirectory() as folder:
        write_project(Path(folder), setting)
        enlarge(Path(folder), setting)
        rows = [in_a_process(asked, folder, setting, kept_mib) for kept_mib in (0, _ALL)]
    report(output, setting, rows, markdown_table(COLUMNS, rows))


if __name__ == "__main__":
    main()
