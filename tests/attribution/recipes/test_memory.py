"""Memory before time: what a checkpoint takes is known from its configuration, and held against what is free."""

import logging
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GptOssConfig,
    LlamaConfig,
    MixtralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3MoeConfig,
)

from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.factors.factor_rows import factor_rows
from lorif_assets.attribution.fitting.fit_bases import fit_layers
from lorif_assets.attribution.recipes.fitted_recipe import fitted_recipe
from lorif_assets.attribution.recipes.gradient_room import gradient_room
from lorif_assets.attribution.recipes.memory import MemoryNeeds, memory_needs
from lorif_assets.attribution.recipes.memory_verdict import batch_limit, checkpoint_verdict, memory_verdict
from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.sections import BatchSettings
from lorif_assets.data.tokens.tokenization import TokenizedExample
from lorif_assets.demo.training import has_bfloat16_products
from lorif_assets.errors import CheckpointError
from lorif_assets.mathematics.gradients.layers import select_layers
from lorif_assets.mathematics.gradients.pass_memory import bytes_of_passes
from lorif_assets.mathematics.gradients.projection import layer_projection
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.progress import Progress
from tests.conftest import TinyProject
from tests.data.conftest import make_tokenizer
from tests.models.tiny_adapters import write_adapter, write_base

CPU = DeviceGroup.of("cpu")
GIB = 2**30
LENGTH = 256
BATCH = BatchSettings(tokens=16 * LENGTH)
NO_TOKENS = {"bos_token_id": 0, "eos_token_id": 0}
LLAMA: dict[str, Any] = {
    "vocab_size": 8_000,
    "hidden_size": 384,
    "intermediate_size": 1_024,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": LENGTH,
    **NO_TOKENS,
}
EXPERTS: dict[str, Any] = {
    "vocab_size": 2_000,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": LENGTH,
    **NO_TOKENS,
}
CONFIGS: dict[str, tuple[PreTrainedConfig, Recipe]] = {
    "GPT-2": (
        GPT2Config(vocab_size=2_000, n_embd=256, n_layer=6, n_head=4, n_positions=LENGTH, **NO_TOKENS),
        Recipe(projection_factor=4, max_length=LENGTH),
    ),
    "Llama with a large vocabulary and a tracked head": (
        LlamaConfig(
            vocab_size=32_000,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=LENGTH,
            **NO_TOKENS,
        ),
        Recipe(projection_factor=16, max_length=LENGTH, include_layers=("*mlp*", "lm_head")),
    ),
    "Llama in BF16, without whitening": (
        LlamaConfig(
            vocab_size=2_000,
            hidden_size=512,
            intermediate_size=1_024,
            num_hidden_layers=4,
            num_attention_heads=8,
            max_position_embeddings=LENGTH,
            dtype="bfloat16",
            **NO_TOKENS,
        ),
        Recipe(curvature="svd", rank=1, factor_dtype="bf16", projection_factor=8, max_length=LENGTH),
    ),
    "many small experts by default": (
        Qwen3MoeConfig(
            **EXPERTS, hidden_size=256, moe_intermediate_size=128, head_dim=64, num_experts=16, num_experts_per_tok=4
        ),
        Recipe(max_length=LENGTH),
    ),
    "gpt-oss in BF16 by default": (
        GptOssConfig(
            **EXPERTS,
            hidden_size=256,
            intermediate_size=128,
            head_dim=64,
            num_local_experts=32,
            num_experts_per_tok=4,
            dtype="bfloat16",
        ),
        Recipe(max_length=LENGTH),
    ),
    "Llama by default": (LlamaConfig(**LLAMA), Recipe(max_length=LENGTH)),
    "Llama in BF16 by default": (LlamaConfig(**LLAMA, dtype="bfloat16"), Recipe(max_length=LENGTH)),
}
_SLOW = {"Llama with a large vocabulary and a tracked head", "many small experts by default", "Llama by default"}
_IN_BF16 = pytest.mark.skipif(
    not has_bfloat16_products(), reason="without products in BF16 the passes take a quarter of an hour"
)
SEVEN_B = LlamaConfig(
    vocab_size=32_000,
    hidden_size=4_096,
    intermediate_size=11_008,
    num_hidden_layers=32,
    num_attention_heads=32,
    max_position_embeddings=2_048,
)


def skeleton(config: PreTrainedConfig) -> PreTrainedModel:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def needs_of(config: PreTrainedConfig, recipe: Recipe, batch: BatchSettings) -> MemoryNeeds:
    model = skeleton(config)
    return memory_needs(model, recipe, batch, LENGTH, bytes_of_passes(model, LENGTH))


def status(kind: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{kind}:"))


def measured(name: str) -> int:
    """The most memory of a process that attributes, above what it had with its libraries."""
    config, recipe = CONFIGS[name]
    torch.set_num_threads(1)
    rng, log = np.random.default_rng(0), logging.getLogger("test")
    # What libraries take on their first use is not the checkpoint's.
    small = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", n_layer=1, n_embd=8, n_head=1, vocab_size=8))
    small(torch.zeros(1, 4, dtype=torch.long)).logits.sum().backward()
    torch.linalg.eigh(torch.eye(8, dtype=torch.float64))
    del small
    before = status("VmRSS")
    model = AutoModelForCausalLM.from_config(config).eval()
    layers = select_layers(model, recipe.include_layers)
    projection = fitted_recipe(recipe, layers).projection
    shapes = {layer.name: projection.shape(layer) for layer in layers}
    record = CheckpointRecord("random", "weights", "tokenizer", "random", 0, None, shapes)
    projections = [layer_projection(layer, projection) for layer in layers]
    attributed = AttributedModel(record, recipe, model, None, projections, "projection", CPU)  # type: ignore[arg-type]
    ids = [rng.integers(0, config.vocab_size, LENGTH) for _ in range(2 * BATCH.tokens // LENGTH)]
    examples = [TokenizedExample(str(row), row, tokens, tokens) for row, tokens in enumerate(ids)]
    with Progress("test", 3 * sum(len(tokens) for tokens in ids), "tokens", log) as progress:
        bases = {}
        if recipe.whitens:
            bases = {name: fit.bases for name, fit in fit_layers(attributed, examples, BATCH, progress).items()}
        factor_rows(attributed, examples, bases, BATCH, progress)
    return status("VmHWM") - before


# --- The estimate is near the truth -------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells a process the most memory it had")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=[*([_IN_BF16] if "BF16" in name else []), *([pytest.mark.slow] if name in _SLOW else [])]
        )
        for name in CONFIGS
    ],
)
def test_the_estimate_is_within_a_third_of_the_most_that_attributing_took(name: str) -> None:
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        taken = process.submit(measured, name).result()
    estimated = needs_of(*CONFIGS[name], BATCH).total
    print(f"{name}: estimated {estimated / 2**20:,.0f} MiB, taken {taken / 2**20:,.0f} MiB")
    assert 0.75 < estimated / taken < 1.33, (estimated / 2**20, taken / 2**20)


def test_weights_are_counted_once_where_they_are_tied_and_in_the_type_that_they_are_loaded_in() -> None:
    config, recipe = CONFIGS["GPT-2"]
    model = skeleton(config)
    assert needs_of(config, recipe, BATCH).weights == pytest.approx(4 * model.num_parameters(), rel=0.01)
    half = skeleton(config).to(torch.bfloat16)
    assert memory_needs(half, recipe, BATCH, LENGTH, 0).weights == pytest.approx(2 * model.num_parameters(), rel=0.01)


def test_passes_grow_with_the_batch_and_logits_no_further_than_a_chunk() -> None:
    config, recipe = CONFIGS["Llama with a large vocabulary and a tracked head"]
    one, eight = (needs_of(config, recipe, BatchSettings(tokens=rows * 2_048)) for rows in (1, 8))
    assert eight.rows == 8 * one.rows
    assert eight.batch - one.batch == 7 * one.rows * one.passes
    assert eight.logits == one.logits


def test_passes_that_cannot_be_followed_without_numbers_are_counted_by_their_linear_layers() -> None:
    class Curious(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(6, 10)

        def get_input_embeddings(self) -> torch.nn.Module:
            raise NotImplementedError

    assert bytes_of_passes(Curious(), 5) == 5 * (6 + 10) * 4


def test_passes_of_experts_are_followed_as_those_of_dense_layers_are() -> None:
    def passes(per_token: int, tokens: int) -> int:
        config = Qwen3MoeConfig(
            **EXPERTS,
            hidden_size=64,
            moe_intermediate_size=32,
            head_dim=16,
            num_experts=8,
            num_experts_per_tok=per_token,
        )
        return bytes_of_passes(skeleton(config), tokens)

    assert passes(1, 512) > 2.2 * passes(1, 256), (
        "attention takes more than in proportion, and linear layers' sides do not"
    )
    assert passes(1, 256) < passes(2, 256) < passes(3, 256)


def test_experts_whose_shapes_torch_does_not_know_are_estimated_without_a_word(
    capfd: pytest.CaptureFixture[str],
) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = MixtralConfig(**sizes, num_key_value_heads=2, vocab_size=32, num_local_experts=2)
    assert bytes_of_passes(AutoModelForCausalLM.from_config(config), 8) > 0
    assert "Traceback" not in capfd.readouterr().err


# --- The verdict --------------------------------------------------------------------------------------------------


def test_a_7b_model_on_a_small_machine_is_told_apart_from_its_configuration_alone() -> None:
    verdict = memory_verdict(skeleton(SEVEN_B), Recipe(), BatchSettings(), 512, 8 * GIB)
    assert verdict.most_tokens is None
    assert verdict.remedies == ()
    assert "weights 25.1" in verdict.shortage
    assert "but 8.0 GiB are free: use a machine or devices with more memory" in verdict.shortage
    with pytest.raises(CheckpointError, match="the checkpoint 'big' does not fit cpu"):
        verdict.refuse_shortage("big", CPU)


def test_settings_that_help_are_named_each_enough_by_itself() -> None:
    config, recipe = CONFIGS["GPT-2"]
    model = skeleton(config)
    needs = needs_of(config, recipe, BATCH)
    verdict = memory_verdict(model, recipe, BATCH, LENGTH, int(0.7 * needs.total))
    assert verdict.most_tokens is not None
    assert verdict.remedies[0] == f"set `batch.tokens = {verdict.most_tokens}`"
    assert 'set `recipe.model_dtype = "bfloat16"`' in verdict.remedies
    cut = BATCH.model_copy(update={"tokens": verdict.most_tokens})
    assert memory_verdict(model, recipe, cut, LENGTH, int(0.7 * needs.total)).remedies == ()


def test_settings_that_help_only_together_are_named_together() -> None:
    verdict = memory_verdict(skeleton(SEVEN_B), Recipe(), BatchSettings(), 512, 18 * GIB)
    (remedy,) = verdict.remedies
    assert 'set `recipe.model_dtype = "bfloat16"` and `recipe.max_width = 128` and' in remedy


def test_what_fits_needs_no_remedy() -> None:
    config, recipe = CONFIGS["GPT-2"]
    verdict = memory_verdict(skeleton(config), recipe, BATCH, LENGTH, 100 * GIB)
    assert (verdict.most_tokens, verdict.remedies) == (BATCH.tokens, ())


# --- Before anything is loaded ------------------------------------------------------------------------------------


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Any:
    def set_free(size: int) -> None:
        monkeypatch.setattr("lorif_assets.attribution.recipes.memory_verdict.free_memory", lambda devices: size)

    return set_free


def test_materializing_refuses_a_checkpoint_that_does_not_fit_before_it_is_loaded(
    private_project: TinyProject, free: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(100_000)
    monkeypatch.setattr(
        "lorif_assets.models.checkpoints.Checkpoints.load_model", lambda *_: pytest.fail("it was loaded")
    )
    opened, recipe = private_project.opened, private_project.settings.recipe
    files = opened.checkpoints.find()[-1]
    record = CheckpointRecord(files.name, files.weights_hash(), files.tokenizer_hash(), "gpt2", 0, None, {})
    with pytest.raises(CheckpointError, match="does not fit cpu: its gradient factors would take about"):
        AttributedModel.load(record, recipe, opened.checkpoints, CPU)


def test_batches_are_cut_to_what_fits_and_hold_the_same_examples(
    private_project: TinyProject, free: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A model as small as this would be loaded without an estimate.
    monkeypatch.setattr("lorif_assets.attribution.recipes.memory_verdict._PLENTY", 1_000_000)
    opened, recipe = private_project.opened, private_project.settings.recipe
    files = opened.checkpoints.find()[-1]
    record = CheckpointRecord(files.name, files.weights_hash(), files.tokenizer_hash(), "gpt2", 0, None, {})
    free(1 << 40)
    assert AttributedModel.load(record, recipe, opened.checkpoints, CPU).batch_limit is None
    whole = memory_verdict(opened.checkpoints.skeleton(files), recipe, BatchSettings(), 48, 0).needs
    free((whole.total + whole.at(48).total) // 2)
    attributed = AttributedModel.load(record, recipe, opened.checkpoints, CPU)
    limit = attributed.batch_limit
    assert limit is not None
    assert 48 <= limit < BatchSettings().tokens
    ids = np.zeros(48, dtype=np.int64)
    examples = [TokenizedExample(str(row), row, ids, ids) for row in range(400)]
    batches = attributed.batches(examples, 100_000)
    assert max(map(len, batches)) * 48 <= limit
    assert sorted(row for batch in batches for row in batch) == list(range(400))


def test_a_checkpoint_far_smaller_than_the_memory_is_loaded_without_an_estimate(
    private_project: TinyProject, free: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(1 << 40)
    monkeypatch.setattr(
        "lorif_assets.models.checkpoints.Checkpoints.skeleton", lambda *_: pytest.fail("it was estimated")
    )
    opened = private_project.opened
    assert batch_limit(opened.checkpoints, opened.checkpoints.find()[-1], private_project.settings.recipe, CPU) is None


def test_of_a_mixture_of_experts_those_inputs_are_counted_that_a_tokens_experts_keep() -> None:
    def kept(n_experts: int, per_token: int) -> int:
        config = MixtralConfig(
            vocab_size=64,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_local_experts=n_experts,
            num_experts_per_tok=per_token,
        )
        recipe = Recipe(include_layers=("*.experts.*",), projection_factor=1)
        return memory_needs(skeleton(config), recipe, BATCH, LENGTH, 0).passes

    widths = (64 + 128) * 4 * 2 * LENGTH
    assert kept(8, 3) - kept(8, 2) == widths
    assert kept(32, 3) == kept(8, 3)


def test_an_adapter_takes_what_its_base_model_takes(tmp_path: Path, free: Any) -> None:
    base = write_base(tmp_path / "base", make_tokenizer())
    files = CheckpointFiles("step-1", write_adapter(tmp_path / "step-1", base), 1)
    checkpoints, stored = Checkpoints(path=str(tmp_path / "step-1")), base / "model.safetensors"
    free(100 * stored.stat().st_size)
    assert batch_limit(checkpoints, files, Recipe(), CPU) is None
    free(stored.stat().st_size)
    with pytest.raises(CheckpointError, match="'step-1' does not fit cpu"):
        batch_limit(checkpoints, files, Recipe(), CPU)


def test_weights_that_are_not_downloaded_yet_are_estimated(private_project: TinyProject, free: Any) -> None:
    free(1 << 40)
    opened, recipe = private_project.opened, private_project.settings.recipe
    files = opened.checkpoints.find()[-1]
    expected = checkpoint_verdict(opened.checkpoints, files, recipe, BatchSettings(), CPU)
    for file in files.weight_files:
        file.unlink()
    listed = NotDownloaded(files.name, files.path, files.step)
    assert checkpoint_verdict(opened.checkpoints, listed, recipe, BatchSettings(), CPU) == expected
    assert batch_limit(opened.checkpoints, listed, recipe, CPU) is None


class NotDownloaded(CheckpointFiles):
    """As on the hub: the names of the weights are known."""

    @property
    def weight_files(self) -> list[Path]:
        return [self.path / "model.safetensors"]


# --- A GPU's memory decides what the settings leave to it ----------------------------------------------------------------


CARD = DeviceGroup.of("cuda:0")


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the card have 80 GiB."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: SimpleNamespace(total_memory=80 * GIB))


@pytest.mark.usefixtures("card")
def test_gradients_have_a_sixteenth_of_a_gpu_unless_the_settings_say_otherwise() -> None:
    assert gradient_room(BatchSettings(), CARD.first) == 5 * GIB // 4
    assert gradient_room(BatchSettings(), CPU.first) == 256 * 2**20 // 4
    assert gradient_room(BatchSettings(gradient_mib=64), CARD.first) == 64 * 2**20 // 4


def test_a_gpus_batches_are_larger_unless_the_settings_say_otherwise() -> None:
    assert BatchSettings().tokens_on(CARD.first) == 32_768
    assert BatchSettings().tokens_on(CPU.first) == 8_192
    assert BatchSettings(tokens=8_192).tokens_on(CARD.first) == 8_192


@pytest.mark.usefixtures("card")
def test_a_checkpoint_is_held_against_a_gpu_with_the_batches_that_it_will_have_there(
    private_project: TinyProject, free: Any
) -> None:
    free(1 << 40)
    opened, recipe = private_project.opened, private_project.settings.recipe
    files = opened.checkpoints.find()[-1]
    on_cpu, on_card = (
        checkpoint_verdict(opened.checkpoints, files, recipe, BatchSettings(), devices).needs for devices in (CPU, CARD)
    )
    assert (on_cpu.tokens, on_card.tokens) == (8_192, 32_768)
    assert on_card.gradients > 2 * on_cpu.gradients
    asked = checkpoint_verdict(opened.checkpoints, files, recipe, BatchSettings(tokens=96), CARD).needs
    assert asked.tokens == 96
