"""Stored factors: found together only where they belong together, and read in the order of shards and rows."""

from typing import Any

import pyarrow as pa
import pytest
import torch

from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord, checkpoint_record
from lorif_assets.attribution.stored.factors import StoredFactors, stored_factors
from lorif_assets.errors import MismatchError, TableError
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS
from lorif_assets.lake.lake import FactorFile
from tests.conftest import CHECKPOINTS, SHARDS, TinyProject

CHECKPOINT = CHECKPOINTS[0]
LAYER = "transformer.h.0.attn.c_attn"
CPU = torch.device("cpu")


def found(project: TinyProject, **changed: Any) -> StoredFactors:
    record = checkpoint_record(project.lake, CHECKPOINT, project.settings.recipe)
    record = CheckpointRecord(**{**vars(record), **changed})
    return stored_factors(project.lake, record, project.settings.recipe)


def rewrite(project: TinyProject, shard: str, **constants: str) -> None:
    """Store a shard's rows again with other values in some columns."""
    rows = project.lake.table(GRADIENT_FACTORS).to_pyarrow_table(
        partitions=[("checkpoint", "=", CHECKPOINT), ("shard", "=", shard)]
    )
    for name, value in constants.items():
        rows = rows.set_column(rows.column_names.index(name), name, pa.array([value] * rows.num_rows))
    project.lake.replace(GRADIENT_FACTORS, {"checkpoint": CHECKPOINT, "shard": shard}, rows)


@pytest.mark.parametrize("rows", [1, 5, 12, 1_000])
def test_blocks_come_in_the_order_of_shards_and_rows_whatever_their_size(tiny_project: TinyProject, rows: int) -> None:
    stored = found(tiny_project)
    blocks = list(stored.blocks([LAYER], rows, CPU))
    (whole,) = [torch.cat([b[LAYER].u for b in stored.blocks([LAYER], 12, CPU)])]
    assert max(block[LAYER].u.shape[0] for block in blocks) <= rows
    assert torch.equal(torch.cat([block[LAYER].u for block in blocks]), whole)
    assert stored.n_examples == whole.shape[0] == 36


@pytest.mark.parametrize(("rows", "sizes"), [(12, [12, 12, 12]), (24, [24, 12]), (30, [24, 12]), (5, [5, 5, 2] * 3)])
def test_short_files_share_a_block_and_full_ones_are_left_as_they_are(
    tiny_project: TinyProject, rows: int, sizes: list[int]
) -> None:
    blocks = found(tiny_project).blocks([LAYER], rows, CPU)
    assert [block[LAYER].u.shape[0] for block in blocks] == sizes


def test_files_are_cut_into_stretches_that_follow_one_another(tiny_project: TinyProject) -> None:
    stored = found(tiny_project)
    first, second, third = stored.files
    assert list(stored.adjacent(stored.files)) == [(0, stored.files)]
    assert list(stored.adjacent([first, third])) == [(0, (first,)), (24, (third,))]
    assert list(stored.adjacent([second, third])) == [(12, (second, third))]
    assert list(stored.adjacent([])) == []


def test_positions_name_the_examples_that_the_blocks_hold(tiny_project: TinyProject) -> None:
    names = found(tiny_project).example_ids([35, 0, 12, 11, 0])
    assert names == {
        0: ("doc0-0", SHARDS[0]),
        11: ("doc0-11", SHARDS[0]),
        12: ("doc1-0", SHARDS[1]),
        35: ("doc2-11", SHARDS[2]),
    }


@pytest.mark.parametrize("column", ["weights_hash", "tokenizer_hash"])
def test_factors_of_other_weights_or_another_tokenizer_are_refused_naming_both(
    tiny_project: TinyProject, column: str
) -> None:
    theirs = getattr(checkpoint_record(tiny_project.lake, CHECKPOINT, tiny_project.settings.recipe), column)
    with pytest.raises(
        MismatchError, match=f"3 shard.*'{SHARDS[0]}', have {column} {theirs}, but .* have other; mater"
    ):
        found(tiny_project, **{column: "other"})


def test_one_shard_of_another_recipe_is_refused_by_name(private_project: TinyProject) -> None:
    rewrite(private_project, SHARDS[1], recipe_hash="another")
    with pytest.raises(MismatchError, match=f"1 shard.*'{SHARDS[1]}', have recipe_hash another, but"):
        found(private_project)


def test_two_projections_are_refused(private_project: TinyProject) -> None:
    rewrite(private_project, SHARDS[1], projection="another")
    with pytest.raises(MismatchError, match=r"come from two projections, .*another"):
        found(private_project)


def test_a_shard_in_several_files_is_refused(private_project: TinyProject) -> None:
    from deltalake import write_deltalake

    table = private_project.lake.table(GRADIENT_FACTORS)
    rows = table.to_pyarrow_table(partitions=[("checkpoint", "=", CHECKPOINT), ("shard", "=", SHARDS[0])])
    write_deltalake(table, rows.slice(0, 1), mode="append")
    with pytest.raises(TableError, match=f"shard '{SHARDS[0]}', lie in several files: another program rewrote"):
        found(private_project)


@pytest.mark.parametrize("values", [[b"1234", None], [b"123", b"12345"], [None, b"1234"]])
@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_missing_or_uneven_values_are_refused(tiny_project: TinyProject, values: list[Any], kind: pa.DataType) -> None:
    from lorif_assets.attribution.stored.factors import _value_bytes

    sound, odd = (pa.record_batch({LAYER: pa.array(rows, kind)}) for rows in ([b"1234", b"5678"], values))
    pieces = [(FactorFile("sound", "0.parquet", 2), sound), (FactorFile("odd", "1.parquet", 2), odd)]
    for some in (pieces, pieces[1:]):
        joined = pa.concat_batches([batch for _, batch in some])
        with pytest.raises(
            TableError, match=f"1.parquet .shard 'odd'. have no or uneven values for the layer '{LAYER}'"
        ):
            _value_bytes(joined, LAYER, some)


def test_shards_that_another_program_wrote_with_shorter_offsets_join_the_others() -> None:
    from lorif_assets.attribution.stored.factors import _joined

    kinds = (pa.large_binary(), pa.binary(), pa.large_binary())
    batches = [
        pa.record_batch({LAYER: pa.array([value], kind)}) for value, kind in zip((b"a", b"b", b"c"), kinds, strict=True)
    ]
    assert _joined(batches).column(LAYER).to_pylist() == [b"a", b"b", b"c"]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_values_are_read_from_any_part_of_a_column(kind: pa.DataType) -> None:
    from lorif_assets.attribution.stored.factors import _value_bytes

    batch = pa.record_batch({LAYER: pa.array([b"ab", b"cd", b"ef", b"gh"], kind)}).slice(1, 2)
    values = _value_bytes(batch, LAYER, [(FactorFile(SHARDS[0], "part.parquet", 2), batch)])
    assert [bytes(row) for row in values.numpy()] == [b"cd", b"ef"]
