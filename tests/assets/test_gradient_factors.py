"""gradient_factors: rows and figures, what is set aside, resuming, and that nothing is half written."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.factors.factor_rows import factor_rows
from lorif_assets.attribution.stored.factors import stored_factor_versions
from lorif_assets.data.tokens.tokenization import TokenizedShard
from lorif_assets.errors import LorifError, MismatchError
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS
from lorif_assets.lake.data_tables import REJECTED, TRAINING_EXAMPLES
from lorif_assets.lake.lake import Lake
from lorif_assets.mathematics.gradients.collector import GradientCollector, TokenBatch
from lorif_assets.mathematics.gradients.gradient_sinks import GradientSink
from tests.conftest import CHECKPOINTS, ROWS_PER_SHARD, SHARDS, TinyProject

CHECKPOINT = CHECKPOINTS[0]
KEYS = [f"{CHECKPOINT}|{shard}" for shard in SHARDS]
LAYERS = [f"transformer.h.{block}.{layer}" for block in (0, 1) for layer in ("attn.c_attn", "mlp.c_fc")]
DATA_VERSION = "dagster/data_version"


def files(lake: Lake) -> dict[tuple[str, str], str]:
    """The Parquet file of each checkpoint and shard: another one where it was written again."""
    return {(name, file.shard): file.path for name in CHECKPOINTS for file in lake.factor_files(name)}


def damage_weights(folder: Path, value: float) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.h.0.attn.c_attn.weight"].fill_(value)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


# --- Rows and figures ------------------------------------------------------------------------------------------------


def test_every_example_has_one_row_that_says_what_it_was_computed_from(tiny_project: TinyProject) -> None:
    rows = tiny_project.table(GRADIENT_FACTORS, checkpoint=CHECKPOINT).sort("shard", "row")
    examples = tiny_project.table(TRAINING_EXAMPLES).sort("shard", "row")
    for column in ("shard", "example_id", "row", "shard_hash"):
        assert rows[column].to_list() == examples[column].to_list()
    (record,) = [c for c in tiny_project.opened.checkpoints.find() if c.name == CHECKPOINT]
    assert rows["recipe_hash"].unique().to_list() == [tiny_project.settings.recipe.factor_hash]
    assert rows["weights_hash"].unique().to_list() == [record.weights_hash()]
    assert rows["tokenizer_hash"].unique().to_list() == [record.tokenizer_hash()]
    assert rows["factor_codec"].unique().to_list() == ["bf16"]
    assert rows["projection"].n_unique() == 1


def test_losses_are_those_of_the_model(tiny_project: TinyProject) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tiny_project.root / "checkpoints" / CHECKPOINT
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    rows = tiny_project.table(GRADIENT_FACTORS, checkpoint=CHECKPOINT, shard=SHARDS[0]).sort("row")
    for row, text in zip(
        rows.to_dicts(), tiny_project.table(TRAINING_EXAMPLES, shard=SHARDS[0]).sort("row")["text"], strict=True
    ):
        ids = torch.tensor([tokenizer(text)["input_ids"]])[:, : tiny_project.settings.recipe.max_length]
        with torch.no_grad():
            mean = model(ids, labels=ids).loss
        assert row["n_target_tokens"] == ids.shape[1] - 1
        assert row["loss"] == pytest.approx(float(mean) * (ids.shape[1] - 1), rel=1e-4)


def test_each_layer_has_a_column_of_equally_long_values(tiny_project: TinyProject) -> None:
    (file, *_) = tiny_project.lake.factor_files(CHECKPOINT)
    ((_, block),) = tiny_project.lake.stream_factors([file], LAYERS, 100)
    widths = {layer: {len(value) for value in block.column(layer).to_pylist()} for layer in LAYERS}
    # Rank 1 in BF16: 2 (d1 + d2) bytes, with the widths 16 -> 48 and 16 -> 64 halved by the projection factor.
    assert widths == {layer: {2 * (8 + 24)} if "attn" in layer else {2 * (8 + 32)} for layer in LAYERS}


def test_the_metadata_count_rows_tokens_and_bytes(tiny_project: TinyProject) -> None:
    figures = tiny_project.figures("gradient_factors", KEYS[0])
    rows = tiny_project.table(GRADIENT_FACTORS, checkpoint=CHECKPOINT, shard=SHARDS[0])
    targets = rows["n_target_tokens"].sum()
    assert figures["dagster/row_count"] == ROWS_PER_SHARD
    assert (figures["rejected_rows"], figures["truncated_examples"]) == (0, 0)
    assert (figures["max_length"], figures["truncation"]) == (48, "keep_start")
    assert figures["tokens"] == targets + ROWS_PER_SHARD
    assert figures["bytes_per_example"] == 2 * 2 * (8 + 24 + 8 + 32)
    assert figures["bytes"] == ROWS_PER_SHARD * figures["bytes_per_example"]
    assert figures["mean_loss_per_token"] == pytest.approx(rows["loss"].sum() / targets)
    assert figures["device"] == "cpu"
    assert figures["batch_tokens"] == tiny_project.settings.batch.tokens


def test_the_layers_are_shown_with_the_last_shard_of_a_run_alone(tiny_project: TinyProject) -> None:
    *others, last = (tiny_project.recorded("gradient_factors", key).metadata for key in KEYS)
    assert not any("layers" in metadata for metadata in others)
    table = last["layers"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [record.data["layer"] for record in table.records] == LAYERS


def test_long_examples_are_cut_and_counted(private_project: TinyProject) -> None:
    project = private_project.with_settings(recipe={"max_length": 4})
    project.run("checkpoints", CHECKPOINT)
    project.run("gradient_factors", KEYS[0])
    rows = project.table(GRADIENT_FACTORS, checkpoint=CHECKPOINT, shard=SHARDS[0])
    assert rows["n_target_tokens"].to_list() == [3] * ROWS_PER_SHARD
    assert project.figures("gradient_factors", KEYS[0])["truncated_examples"] == rows["truncated"].sum() > 0


# --- Running again ---------------------------------------------------------------------------------------------------


def test_what_is_there_already_is_left_as_it_is(private_project: TinyProject) -> None:
    before = files(private_project.lake)
    private_project.run("gradient_factors", *KEYS)
    assert files(private_project.lake) == before
    assert private_project.figures("gradient_factors", KEYS[1]) == {"left_as_is": True}


def test_recompute_writes_the_same_rows_again(private_project: TinyProject) -> None:
    before, rows = files(private_project.lake), private_project.lake.read(GRADIENT_FACTORS, checkpoint=CHECKPOINT)
    private_project.run("gradient_factors", *KEYS[:2], config={"recompute": True})
    after = files(private_project.lake)
    written = {key for key in before if after[key] != before[key]}
    assert written == {(CHECKPOINT, shard) for shard in SHARDS[:2]}
    again = private_project.lake.read(GRADIENT_FACTORS, checkpoint=CHECKPOINT)
    assert again.sort("shard", "row").equals(rows.sort("shard", "row"))


def test_one_partition_and_many_are_recorded_with_the_same_data_versions(recorded_project: TinyProject) -> None:
    many = {key: recorded_project.recorded("gradient_factors", key).tags or {} for key in KEYS}
    for key in KEYS:
        recorded_project.run("gradient_factors", key)
    one = {key: recorded_project.recorded("gradient_factors", key).tags or {} for key in KEYS}
    stored = stored_factor_versions(recorded_project.lake, CHECKPOINT)
    assert {key: tags[DATA_VERSION] for key, tags in one.items()} == {
        key: tags[DATA_VERSION] for key, tags in many.items()
    }
    assert [one[key][DATA_VERSION] for key in KEYS] == [stored[shard] for shard in SHARDS]
    for dimension, value in (("checkpoint", CHECKPOINT), ("shard", SHARDS[1])):
        tag = f"dagster/partition/{dimension}"
        assert one[KEYS[1]][tag] == many[KEYS[1]][tag] == value


def test_a_run_that_dies_keeps_the_shards_it_finished_and_the_next_one_goes_on(
    private_project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = private_project.with_settings(recipe={"seed": 1})
    project.run("checkpoints", CHECKPOINT)
    before, calls = files(project.lake), []

    def dies_at_the_second(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return factor_rows(*args)

    with monkeypatch.context() as patch:
        patch.setattr("lorif_assets.attribution.factors.build_factors.factor_rows", dies_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            project.run("gradient_factors", *KEYS)
    killed = files(project.lake)
    assert {shard for (_, shard), path in killed.items() if path not in before.values()} == {SHARDS[0]}
    assert project.figures("gradient_factors", KEYS[0])["dagster/row_count"] == ROWS_PER_SHARD

    assert set(project.stale("gradient_factors")) >= set(KEYS[1:])
    assert KEYS[0] not in project.stale("gradient_factors")
    project.run("gradient_factors", *KEYS)
    after = files(project.lake)
    assert after[CHECKPOINT, SHARDS[0]] == killed[CHECKPOINT, SHARDS[0]]
    assert all(after[CHECKPOINT, shard] != killed[CHECKPOINT, shard] for shard in SHARDS[1:])


# --- What is not finite ----------------------------------------------------------------------------------------------


def test_weights_that_are_not_finite_are_an_error_and_the_table_stays(private_project: TinyProject) -> None:
    before = files(private_project.lake)
    damage_weights(private_project.root / "checkpoints" / CHECKPOINT, float("nan"))
    private_project.run("checkpoints", CHECKPOINT)
    with pytest.raises(
        LorifError, match=f"3 of 3 shards failed, .*'{CHECKPOINT}' gives no finite loss .* for any of 12 examples"
    ):
        private_project.run("gradient_factors", *KEYS)
    assert files(private_project.lake) == before
    assert private_project.table(REJECTED, stage="gradient_factors").is_empty()


@pytest.fixture
def one_bad_gradient(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Puts a value into one number of one layer's gradient of the example that comes first in each batch."""
    stream = GradientCollector.stream

    def install(value: float) -> None:
        def damaged(self: GradientCollector, batch: TokenBatch, sink: GradientSink, max_numbers: int) -> torch.Tensor:
            def spoiling(layer: str, rows: slice, gradients: torch.Tensor) -> None:
                if layer == LAYERS[2] and rows.start == 0:
                    gradients[0, 0, 0] = value
                sink(layer, rows, gradients)

            return stream(self, batch, spoiling, max_numbers)

        monkeypatch.setattr(GradientCollector, "stream", damaged)

    return install


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_an_example_whose_gradient_is_not_finite_is_set_aside_and_disturbs_no_other(
    private_project: TinyProject, one_bad_gradient: Callable[[float], None], value: float
) -> None:
    before = private_project.lake.read(GRADIENT_FACTORS, checkpoint=CHECKPOINT, shard=SHARDS[0])
    one_bad_gradient(value)
    private_project.run("gradient_factors", KEYS[0], config={"recompute": True})
    (rejected,) = private_project.table(REJECTED, stage="gradient_factors").to_dicts()
    assert (rejected["part"], rejected["reason"]) == (KEYS[0], "the loss or a gradient is not finite")
    rows = private_project.lake.read(GRADIENT_FACTORS, checkpoint=CHECKPOINT, shard=SHARDS[0])
    assert rows.sort("row").equals(before.filter(before["example_id"] != rejected["example_id"]).sort("row"))
    figures = private_project.figures("gradient_factors", KEYS[0])
    assert (figures["dagster/row_count"], figures["rejected_rows"]) == (ROWS_PER_SHARD - 1, 1)


def test_the_beginning_of_an_example_that_is_set_aside_is_kept_as_text(
    private_project: TinyProject, one_bad_gradient: Callable[[float], None]
) -> None:
    one_bad_gradient(float("nan"))
    private_project.run("gradient_factors", KEYS[0], config={"recompute": True})
    (rejected,) = private_project.table(REJECTED, stage="gradient_factors").to_dicts()
    texts = private_project.table(TRAINING_EXAMPLES, shard=SHARDS[0])
    (text,) = texts.filter(texts["example_id"] == rejected["example_id"])["text"]
    assert text.startswith(rejected["excerpt"])
    assert rejected["excerpt"]


# --- Refusals --------------------------------------------------------------------------------------------------------


def test_a_checkpoint_that_was_not_recorded_is_refused(private_project: TinyProject) -> None:
    (private_project.root / "checkpoints" / CHECKPOINT).rename(private_project.root / "checkpoints/step-000300")
    with pytest.raises(
        MismatchError, match="'step-000300' is not in the table `checkpoints`; materialize `checkpoints`"
    ):
        private_project.run("gradient_factors", f"step-000300|{SHARDS[0]}")


def test_a_checkpoint_recorded_under_another_recipe_is_refused_naming_both(private_project: TinyProject) -> None:
    project = private_project.with_settings(recipe={"rank": 2})
    old, new = private_project.settings.recipe.factor_hash, project.settings.recipe.factor_hash
    with pytest.raises(MismatchError, match=f"under the factor recipe {old}, but the settings are now {new}"):
        project.run("gradient_factors", KEYS[0])


@pytest.mark.parametrize(("what", "name"), [("weights", "model.safetensors"), ("tokenizer", "tokenizer_config.json")])
def test_files_that_changed_since_they_were_recorded_are_refused(
    private_project: TinyProject, what: str, name: str
) -> None:
    folder = private_project.root / "checkpoints" / CHECKPOINT
    if what == "weights":
        damage_weights(folder, 0.5)
    else:
        (folder / name).write_text((folder / name).read_text() + "\n")
    with pytest.raises(
        MismatchError, match=f"the {what} of checkpoint '{CHECKPOINT}' .* changed since it was recorded"
    ):
        private_project.run("gradient_factors", KEYS[0], config={"recompute": True})


def test_a_shard_that_is_not_stored_is_refused(private_project: TinyProject) -> None:
    shard = {"shard": SHARDS[0]}
    private_project.lake.replace(TRAINING_EXAMPLES, shard, TRAINING_EXAMPLES.columns.empty_table())
    with pytest.raises(MismatchError, match=f"'{SHARDS[0]}' is not in `training_examples`; materialize it there first"):
        private_project.run("gradient_factors", KEYS[0])


def test_a_shard_without_any_target_token_is_refused_with_the_first_reason(private_project: TinyProject) -> None:
    (private_project.root / "data/00000.jsonl").write_text('{"id": "a", "text": "x"}\n{"id": "b", "text": "y"}')
    private_project.run("training_examples", SHARDS[0])
    with pytest.raises(
        LorifError,
        match=f"1 of 1 shards failed, .*no example of the shard '{SHARDS[0]}' can be used .*the first: no target",
    ):
        private_project.run("gradient_factors", KEYS[0])


def test_examples_without_a_target_token_are_set_aside(private_project: TinyProject) -> None:
    private_project.edit_shard(0, 3, "x")
    private_project.run("training_examples", SHARDS[0])
    private_project.run("gradient_factors", KEYS[0])
    assert private_project.table(GRADIENT_FACTORS, checkpoint=CHECKPOINT, shard=SHARDS[0]).height == ROWS_PER_SHARD - 1
    rejected = private_project.table(REJECTED, stage="gradient_factors")
    assert rejected["example_id"].to_list() == ["doc0-3"]
    assert private_project.figures("gradient_factors", KEYS[0])["rejected_reasons"] == {rejected["reason"][0]: 1}


def test_too_many_examples_set_aside_fail_their_shard_before_its_gradients_and_leave_what_is_stored(
    private_project: TinyProject,
) -> None:
    before = private_project.table(GRADIENT_FACTORS, checkpoint=CHECKPOINT, shard=SHARDS[0])
    for row in range(4):
        private_project.edit_shard(0, row, "x")
    private_project.edit_shard(1, 0, "a file ends")
    private_project.run("training_examples", SHARDS[0], SHARDS[1])
    with pytest.raises(
        LorifError, match=f"1 of 2 shards failed, .*'{CHECKPOINT}': 4 of 36 rows are set aside.*no target"
    ):
        private_project.run("gradient_factors", KEYS[0], KEYS[1])
    assert private_project.table(GRADIENT_FACTORS, checkpoint=CHECKPOINT, shard=SHARDS[0]).equals(before)
    rejected = private_project.table(REJECTED, stage="gradient_factors")
    assert rejected["example_id"].to_list() == [f"doc0-{row}" for row in range(4)]
    # The other shard is computed all the same.
    assert set(private_project.stale("gradient_factors")) >= {KEYS[0]}
    assert KEYS[1] not in private_project.stale("gradient_factors")


def test_what_the_tokens_do_not_hold_of_their_rows_is_in_the_metadata(
    private_project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenized = AttributedModel.tokenized

    def noticed(attributed: AttributedModel, examples: pa.Table) -> TokenizedShard:
        first, *others = (shard := tokenized(attributed, examples)).examples
        return replace(shard, examples=(replace(first, notices=("no tools",)), *others))

    monkeypatch.setattr(AttributedModel, "tokenized", noticed)
    private_project.run("gradient_factors", KEYS[0], config={"recompute": True})
    assert private_project.figures("gradient_factors", KEYS[0])["notices"] == {"no tools": 1}


def test_a_batch_that_does_not_fit_in_memory_is_halved_and_the_next_shard_starts_with_what_fitted(
    private_project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, sizes = GradientCollector.stream, []

    def limited(self: GradientCollector, batch: TokenBatch, sink: GradientSink, max_numbers: int) -> torch.Tensor:
        sizes.append(batch.input_ids.numel())
        if sizes[-1] > 40:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return stream(self, batch, sink, max_numbers)

    monkeypatch.setattr(GradientCollector, "stream", limited)
    private_project.run("gradient_factors", *KEYS[:2], config={"recompute": True})
    budgets = [private_project.figures("gradient_factors", key)["batch_tokens"] for key in KEYS[:2]]
    assert budgets[0] <= 40
    assert budgets[1] == budgets[0]
    assert sum(size > 40 for size in sizes) >= 1
