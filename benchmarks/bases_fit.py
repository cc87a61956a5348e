"""The fit of K-FAC bases beside its floor: stage by stage, in passes of the bare model over the same sample.

The floor is that of `factor_throughput.py`: a forward pass and a backward pass of activation gradients alone. The stages are
those of `kfac_bases` under the default recipe: `widths`, where they are measured (a small model); `sums` over the tokens of
both halves; `bases`, the eigenvectors of the sums and how well the halves agree; and `ranks` by layer, from the spectra of
whitened gradients. The model is of GPT-2's or Llama's shape with random weights, and the examples are random tokens. All run
in turn; figures are ratios of CPU seconds. The time of `bases` does not depend on the sample, so that on the few examples here
it looks larger than it is.

    python benchmarks/bases_fit.py --architecture gpt2 --blocks 4 --width 128 --heads 4 --dtype float32
"""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from factor_throughput import Setting as ModelSetting
from factor_throughput import bare_passes, random_examples, random_model
from measurements import interleaved, markdown_table, report, setting_and_output, synchronise, time_by_kind

from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.fitting.fit_bases import covariances, fit_layers, fit_tokens
from lorif_assets.attribution.fitting.layer_ranks import layer_ranks
from lorif_assets.attribution.fitting.measured_width import at_measured_width, measured_tokens
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.sections import BatchSettings
from lorif_assets.data.tokens.tokenization import TokenizedExample, n_tokens
from lorif_assets.mathematics.matrix_products import products_of_frozen_layers
from lorif_assets.progress import Progress

FLOOR, OWN_FLOOR, WIDTHS, SUMS, BASES, RANKS, WHOLE = "floor", "own floor", "widths", "sums", "bases", "ranks", "whole"
LOG = logging.getLogger("benchmark")


@dataclass(frozen=True)
class Setting:
    """Size of the model and of the sample; the default is SmolLM2-135M's shape with a small vocabulary, and chats."""

    architecture: str = field(default="llama", metadata={"choices": ("gpt2", "llama")})
    dtype: str = field(default="bfloat16", metadata={"choices": ("float32", "bfloat16")})
    blocks: int = 30
    width: int = 576
    heads: int = 9
    kv_heads: int = 3
    vocabulary: int = 2_000
    tokens: int = 96
    shortest: float = 0.5
    examples: int = 32
    batch_tokens: int = 8_192
    repeats: int = 1
    threads: int = 1
    device: str = "cpu"
    profile: bool = False

    @property
    def model(self) -> ModelSetting:
        """The setting of the model and the examples."""
        shared = ("architecture", "dtype", "blocks", "width", "heads", "kv_heads", "vocabulary", "tokens", "shortest")
        return replace(ModelSetting(), **{name: getattr(self, name) for name in (*shared, "examples", "device")})


def works(
    attributed: AttributedModel, examples: list[TokenizedExample], batch: BatchSettings
) -> dict[str, Callable[[], object]]:
    """Return what is timed, by its name."""
    batches = [attributed.batch(examples, at) for at in attributed.batches(examples, batch.tokens)]
    bases = {name: fit.bases for name, fit in fit(attributed, examples, batch).items()}

    def sums() -> None:
        with Progress(SUMS, n_tokens(examples), "tok", LOG) as progress:
            for half in (0, 1):
                covariances(attributed, examples[half::2], batch, progress, seed=half)
        synchronise(attributed.device)

    def ranks() -> None:
        with Progress(RANKS, n_tokens(examples), "tok", LOG) as progress:
            layer_ranks(attributed, examples, bases, batch, progress)

    def widths() -> None:
        with Progress(WIDTHS, measured_tokens(attributed, examples), "tok", LOG) as progress:
            at_measured_width(attributed, examples, batch, progress)

    return {
        FLOOR: lambda: bare_passes(attributed, batches, nullcontext()),
        OWN_FLOOR: lambda: bare_passes(attributed, batches, products_of_frozen_layers(attributed.model)),
        **({WIDTHS: widths} if measured_tokens(attributed, examples) else {}),
        SUMS: sums,
        RANKS: ranks,
        WHOLE: lambda: fit(attributed, examples, batch),
    }


def fit(attributed: AttributedModel, examples: list[TokenizedExample], batch: BatchSettings) -> dict[str, Any]:
    """Fit the bases and ranks of all layers at the model's width."""
    with Progress("fit", fit_tokens(examples), "tok", LOG) as progress:
        return fit_layers(attributed, examples, batch, progress)


def measure(setting: Setting) -> list[dict[str, Any]]:
    """Time every stage, and return a row for each."""
    examples, batch = random_examples(setting.model), BatchSettings(tokens=setting.batch_tokens)
    attributed = random_model(setting.model, Recipe(max_length=setting.tokens))
    timed = works(attributed, examples, batch)
    taken = interleaved(timed, setting.repeats)
    if setting.profile:
        for name in (SUMS, RANKS, WIDTHS):
            if name in timed:
                print(name, time_by_kind(attributed.device, timed[name], 25))
    cpu = {name: seconds.cpu for name, seconds in taken.items()}
    # The rest of the whole: too short beside the passes to be timed by itself on so small a sample.
    cpu[BASES] = cpu[WHOLE] - cpu[SUMS] - cpu[RANKS]
    order = (FLOOR, OWN_FLOOR, WIDTHS, SUMS, BASES, RANKS, WHOLE)
    return [
        {
            "stage": name,
            "tokens": n_tokens(examples),
            "layers": len(attributed.record.layer_shapes),
            "parameters": attributed.record.n_parameters,
            "cpu_seconds": cpu[name],
            "wall_seconds": taken[name].wall if name in taken else None,
            "tokens_per_cpu_second": n_tokens(examples) / cpu[name],
            "floors": cpu[name] / cpu[FLOOR],
            "own_floors": cpu[name] / cpu[OWN_FLOOR],
        }
        for name in order
        if name in cpu
    ]


COLUMNS = {
    "stage": "{stage}",
    "tokens per CPU s": "{tokens_per_cpu_second:,.0f}",
    "floors": "{floors:.2f}",
    "own floors": "{own_floors:.2f}",
}


def main() -> None:
    """Run the benchmark, print the table, and write JSON."""
    setting, output = setting_and_output(Setting, __doc__, "bases_fit")
    torch.set_num_threads(setting.threads)
    rows = measure(setting)
    report(output, setting, rows, markdown_table(COLUMNS, rows))


if __name__ == "__main__":
    main()
