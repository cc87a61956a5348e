"""Peak memory of each stage, at one number of examples and at four times as many.

Each measurement is a process of its own, which makes its inputs, runs the stage once on the smallest of them, so that libraries
are loaded, and is then watched every few milliseconds: memory that is no file's (Linux), above what it was before. Beside the
gradient factors stand the bare model's two passes on the same batches. What a stage must hold besides one batch or block: the
encoded factors of one shard, the state of one layer, the preconditioned queries.

Then one batch of a model of 135 M parameters with a vocabulary of 49,152, where logits would be the largest tensor: 117 chats
of 70 tokens. Its bare passes make logits in chunks too. The benchmark fails where factors take more than 1.3 times as much.
"""

import ctypes
import gc
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import torch
import update_against_rebuild as curvature
from factor_throughput import FLOOR, WHOLE, fitted_bases, random_examples, random_model, recipes, works
from factor_throughput import Setting as FactorSetting
from measurements import in_a_process, markdown_table, memory_of_this_process, report, setting_and_output
from scan_files import LakeFiles
from scan_rate import CPU, Scan, recipe_of
from scan_rate import Setting as ScanSetting

from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.fitting.fit_curvature import LayerFitting
from lorif_assets.attribution.stored.curvatures import curvature_of
from lorif_assets.attribution.stored.factors import stored_factors
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.sections import BatchSettings
from lorif_assets.lake.lake import Lake
from lorif_assets.mathematics.gradients.collector import GradientCollector, TokenBatch
from lorif_assets.mathematics.gradients.frozen_model import require_grad
from lorif_assets.mathematics.gradients.head import losses_with_graph

_WATCHED_EVERY = 0.002


@dataclass(frozen=True)
class Setting:
    """Sizes; those of the model, the layer and the factors are the defaults of the other benchmarks."""

    factor_examples: int = 32
    curvature_examples: int = 5_000
    score_examples: int = 10_000
    queries: int = 100
    times: int = 4
    threads: int = 1
    head_blocks: int = 30
    head_examples: int = 117


class Watch:
    """The largest memory that was seen, in bytes."""

    most = 0


@contextmanager
def watched() -> Iterator[Watch]:
    """Watch this process's memory that is no file's, inside the `with` block."""
    watch, done = Watch(), Event()

    def look() -> None:
        while not done.wait(_WATCHED_EVERY):
            watch.most = max(watch.most, memory_of_this_process("RssAnon"))

    watcher = Thread(target=look)
    watcher.start()
    try:
        yield watch
    finally:
        done.set()
        watcher.join()


def peak(work: Callable[[], object]) -> tuple[int, int]:
    """Return the memory before some work, and the most above it during it, in bytes."""
    gc.collect()
    if sys.platform == "linux":
        # What was freed but kept for later would hide what the work takes.
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = memory_of_this_process("RssAnon")
    with watched() as watch:
        work()
    return before, max(watch.most - before, 0)


def factors(setting: Setting, recipe_of: str, part: str, times: int) -> tuple[int, int]:
    """Watch a part of the making of gradient factors."""
    torch.set_num_threads(setting.threads)
    size = FactorSetting(examples=setting.factor_examples * times)
    (recipe,) = recipes(replace(size, recipes=recipe_of)).values()
    examples, batch = random_examples(size), BatchSettings(tokens=size.batch_tokens)
    attributed, bases = fitted_bases(random_model(size, recipe), examples[: setting.factor_examples], batch)
    works(attributed, bases, examples[:2], batch)[part]()
    return peak(works(attributed, bases, examples, batch)[part])


def one_batch(setting: Setting, layers: str) -> tuple[int, int]:
    """Watch a batch of a model with a large vocabulary: its gradients in some layers, or without any, the bare passes."""
    attributed, batch = with_large_vocabulary(setting, tuple(layers.split()) or ("*attn*",))
    first = TokenBatch(batch.input_ids[:1], batch.attention_mask[:1], batch.labels[:1])
    numbers = BatchSettings().gradient_numbers // 2
    with GradientCollector(attributed.model, attributed.projections if layers else []) as collector:
        collector.stream(first, _forget, numbers)
        return peak(lambda: collector.stream(batch, _forget, numbers))


def losses_of_one_batch(setting: Setting) -> tuple[int, int]:
    """Watch the passes of losses with their graph, as tail-patch and the method `ekfac` take them, over the same batch."""
    attributed, batch = with_large_vocabulary(setting, ("*attn*",))
    model = attributed.model.eval().requires_grad_(False)
    model.get_input_embeddings().register_forward_hook(require_grad)

    def passes(rows: int) -> None:
        ids = batch.input_ids[:rows]
        losses_with_graph(model, {"input_ids": ids, "use_cache": False}, ids).sum().backward()

    passes(1)
    return peak(lambda: passes(len(batch.input_ids)))


def with_large_vocabulary(setting: Setting, layers: tuple[str, ...]) -> tuple[AttributedModel, TokenBatch]:
    """Return a model whose logits would be its largest tensor, and a batch of chats."""
    torch.set_num_threads(setting.threads)
    size = FactorSetting(
        blocks=setting.head_blocks, width=576, heads=9, vocabulary=49_152, tokens=70, examples=setting.head_examples
    )
    attributed = random_model(size, Recipe(projection_factor=8, include_layers=layers))
    ids = torch.randint(0, size.vocabulary, (size.examples, size.tokens), generator=torch.Generator().manual_seed(0))
    return attributed, TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool), ids)


def _forget(_layer: str, _rows: slice, _gradients: torch.Tensor) -> None:
    return None


def layer_curvature(setting: Setting, times: int) -> tuple[int, int]:
    """Watch the building of a layer's state."""
    torch.set_num_threads(setting.threads)
    size = curvature.Setting(examples=setting.curvature_examples * times, shards=50 * times)
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(root=folder)
        curvature.write_shards(lake, size, range(size.shards), np.random.default_rng(0), version=0)
        stored = stored_factors(lake, size.record, size.recipe)

        def fit(files: int) -> None:
            some = replace(stored, files=stored.files[:files])
            LayerFitting(curvature_of(size.recipe), some, curvature.LAYER, None, curvature.SCAN_ROWS, CPU).fit(None)

        fit(1)
        return peak(lambda: fit(size.shards))


def scores(setting: Setting, times: int) -> tuple[int, int]:
    """Watch a scan."""
    torch.set_num_threads(setting.threads)
    size, recipe = ScanSetting(), recipe_of("sign", 8)
    with tempfile.TemporaryDirectory() as folder:
        first = LakeFiles(Path(folder, "first"), size.record, recipe, 1, setting.score_examples // 4)
        Scan(first, size, 1).whole()
        stored = LakeFiles(Path(folder, "all"), size.record, recipe, 4 * times, times * setting.score_examples)
        return peak(Scan(stored, size, setting.queries).whole)


def measure(setting: Setting) -> list[dict[str, Any]]:
    """Watch every stage, and return a row for each size."""
    stages: dict[str, tuple[Callable[..., tuple[int, int]], tuple[object, ...], int]] = {
        "bare model's passes": (factors, ("paper", FLOOR), setting.factor_examples),
        "factors, svd, bf16, c = 1": (factors, ("paper", WHOLE), setting.factor_examples),
        "factors, EK-FAC, signs": (factors, ("whitened", WHOLE), setting.factor_examples),
        "curvature, D = 4,096, r = 128": (layer_curvature, (), setting.curvature_examples),
        f"scores, signs, c = 8, Q = {setting.queries}": (scores, (), setting.score_examples),
    }
    rows = []
    for stage, (work, arguments, examples) in stages.items():
        for times in (1, setting.times):
            before, added = in_a_process(work, setting, *arguments, times)
            rows.append(
                {
                    "stage": stage,
                    "examples": examples * times,
                    "before_mib": before / 2**20,
                    "added_mib": added / 2**20,
                }
            )
    for stage, (work, arguments) in HEAD_STAGES.items():
        before, added = in_a_process(work, setting, *arguments)
        rows.append(
            {
                "stage": stage,
                "examples": setting.head_examples,
                "before_mib": before / 2**20,
                "added_mib": added / 2**20,
            }
        )
    return rows


BLOCKS = "*attn* *mlp*"
BARE = "vocabulary of 49,152: bare model's passes"
HEAD_STAGES: dict[str, tuple[Callable[..., tuple[int, int]], tuple[object, ...]]] = {
    BARE: (one_batch, ("",)),
    "vocabulary of 49,152: gradients": (one_batch, (BLOCKS,)),
    "vocabulary of 49,152: gradients, LM head too": (one_batch, (f"{BLOCKS} lm_head",)),
    "vocabulary of 49,152: losses with their graph": (losses_of_one_batch, ()),
}
LARGEST_RATIO = 1.3
COLUMNS = {
    "stage": "{stage}",
    "examples": "{examples:,}",
    "before, MiB": "{before_mib:,.0f}",
    "peak above it, MiB": "{added_mib:,.0f}",
}


def main() -> None:
    """Run the benchmark, print the table, and write JSON."""
    setting, output = setting_and_output(Setting, __doc__, "peak_memory")
    rows = measure(setting)
    report(output, setting, rows, markdown_table(COLUMNS, rows))
    added = {row["stage"]: row["added_mib"] for row in rows}
    for stage in HEAD_STAGES:
        if added[stage] > LARGEST_RATIO * added[BARE]:
            sys.exit(f"{stage}: {added[stage]:,.0f} MiB, more than {LARGEST_RATIO} times the bare model's")


if __name__ == "__main__":
    main()
