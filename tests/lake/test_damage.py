"""Damage met in passing: one error that names table, partition, file and remedy, whatever is damaged and whoever reads it."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorif_assets.errors import DamagedLakeError, TableError
from lorif_assets.lake import lake_tables as lake_tables_module
from lorif_assets.lake import seals
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS, KFAC_BASES
from lorif_assets.lake.damage import notes
from lorif_assets.lake.data_tables import REJECTED
from lorif_assets.lake.delta_paths import data_files
from lorif_assets.lake.factor_row_groups import read_rows, scan_bytes
from lorif_assets.lake.file_constants import file_constants
from lorif_assets.lake.format_version import FORMAT, format_content, stored_format
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.seals import seal_path
from lorif_assets.lake.verification import files_to_verify, verify
from tests.damaged_files import flip_bit
from tests.lake.test_lake import LAYER, OTHER_LAYER, counts, replace_factors, replace_rejected, streamed

ROWS, WIDTH = 600, 40


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(root=str(tmp_path / "lake"))


def files_of(lake: Lake, table: str, suffix: str = ".parquet") -> list[str]:
    return [path for path in files_to_verify(lake) if path.startswith(f"{table}/") and path.endswith(suffix)]


def store_factors(lake: Lake, shard: str = "docs-0") -> str:
    """Factors of two layers; their file."""
    draw = np.random.default_rng(0)
    values = {layer: [draw.bytes(WIDTH) for _ in range(ROWS)] for layer in (LAYER, OTHER_LAYER)}
    replace_factors(lake, "one", shard, values)
    return next(path for path in files_of(lake, "gradient_factors") if shard in path)


def column_bit(lake: Lake, path: str, column: str, group: int = 0) -> int:
    """A bit in the values of a column."""
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(Path(lake.root, path)).row_group(group)
    (found,) = (
        metadata.column(at) for at in range(metadata.num_columns) if metadata.column(at).path_in_schema == column
    )
    return 8 * (found.data_page_offset + found.total_compressed_size - WIDTH)


def without_checksums(lake: Lake) -> None:
    """Let the lake be one of an earlier version."""
    shutil.rmtree(Path(lake.root, "checksums"))
    Path(lake.root, "format.json").unlink()


def test_writers_at_the_same_time_leave_checksums_of_all_they_wrote(lake: Lake) -> None:
    def write(side: str) -> None:
        for part in range(4):
            for n in (1, 2):
                replace_rejected(lake, f"{side}{part}", n)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, "ab"))
    assert verify(lake, files_to_verify(lake)).damage == []
    assert len(counts(lake)) == 8
    # An attempt that another's commit came before leaves a file that no commit names.
    table = lake.table(REJECTED)
    assert table is not None
    log = [path for path, _ in lake.stored.sizes(f"{REJECTED.name}/_delta_log") if path.endswith(".json")]
    current = list(data_files(table, REJECTED, {}))
    assert len(current) == 8
    assert [path for path in (*log, *current) if not lake.stored.has(seal_path(path))] == []


@pytest.mark.parametrize("written", ["replaced", "removed"])
def test_a_commit_of_another_right_after_ones_own_leaves_neither_without_checksums(
    written: str, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    for partition in ("a", "b"):
        replace_rejected(lake, partition, 1)
    name = {"replaced": "overwrite", "removed": "drop"}[written]
    write = getattr(lake_tables_module, name)

    def write_before_another(table: Any, *arguments: Any) -> None:
        write(table, *arguments)
        monkeypatch.setattr(lake_tables_module, name, write)
        replace_rejected(lake, "c", 1)
        table.update_incremental()

    monkeypatch.setattr(lake_tables_module, name, write_before_another)
    if written == "replaced":
        replace_rejected(lake, "a", 2)
    else:
        lake.remove(REJECTED, part=["a"])
    found = verify(lake, files_to_verify(lake))
    assert (found.damage, found.unchecked) == ([], 0)


# --- Factors -----------------------------------------------------------------------------------------------------


def test_a_flipped_bit_of_a_layer_stops_the_scan_of_that_layer_and_names_table_partition_file_and_remedy(
    lake: Lake,
) -> None:
    path = store_factors(lake)
    flip_bit(lake, path, column_bit(lake, path, LAYER))
    with pytest.raises(DamagedLakeError) as raised:
        streamed(lake, "one", LAYER, 100)
    said = str(raised.value)
    assert said == (
        f"the lake {lake.root} is damaged: the file {path} of the table gradient_factors, checkpoint = 'one', "
        "shard = 'docs-0' is not what was written: its checksum differs; run `lorif materialize`, which makes "
        "`gradient_factors`, partition one|docs-0, again"
    )


def test_what_is_read_is_what_is_checked(lake: Lake) -> None:
    path = store_factors(lake)
    flip_bit(lake, path, column_bit(lake, path, LAYER))
    (file,) = lake.factor_files("one")
    assert len([value for _, block in lake.stream_factors([file], ["example_id"], 100) for value in block]) > 0
    assert len(streamed(lake, "one", OTHER_LAYER, 100)) == ROWS
    assert scan_bytes(lake, [file], [LAYER]) > 0
    assert read_rows(lake, file, [OTHER_LAYER], [0, 3]).batch.num_rows == 2
    with pytest.raises(DamagedLakeError):
        read_rows(lake, file, [LAYER], [0, 3])


def test_single_rows_of_a_sound_row_group_are_read_beside_a_damaged_one(lake: Lake) -> None:
    draw = np.random.default_rng(0)
    replace_factors(lake, "one", "docs-0", {LAYER: [draw.bytes(5_000) for _ in range(ROWS)]})
    (file,), (path,) = lake.factor_files("one"), files_of(lake, "gradient_factors")
    flip_bit(lake, path, column_bit(lake, path, LAYER, group=1))
    assert read_rows(lake, file, [LAYER], [0]).batch.num_rows == 1
    with pytest.raises(DamagedLakeError):
        read_rows(lake, file, [LAYER], [ROWS // 2])


@pytest.mark.parametrize("at", [-1, -40, -100, -8 * 300])
def test_a_flipped_bit_of_the_footer_is_found_before_it_is_believed(lake: Lake, at: int) -> None:
    path = store_factors(lake)
    flip_bit(lake, path, at)
    (file,) = lake.factor_files("one")
    for read in (
        lambda: streamed(lake, "one", LAYER, 100),
        lambda: scan_bytes(lake, [file], [LAYER]),
        lambda: read_rows(lake, file, [LAYER], [0]),
    ):
        with pytest.raises(DamagedLakeError, match="its checksum differs"):
            read()


def test_every_flipped_bit_of_the_values_is_found(lake: Lake) -> None:
    replace_factors(lake, "one", "docs-0", {LAYER: [b"abcd"] * 3})
    (path,) = files_of(lake, "gradient_factors")
    content = Path(lake.root, path).read_bytes()
    (file,) = lake.factor_files("one")
    draw = np.random.default_rng(0)
    for at in draw.choice(8 * len(content), 200, replace=False).tolist():
        flip_bit(lake, path, at)
        with pytest.raises(DamagedLakeError):
            list(lake.stream_factors([file], [LAYER, "example_id", *GRADIENT_FACTORS.columns.names[4:]], 10))
        Path(lake.root, path).write_bytes(content)


def test_damaged_checksums_are_damage_of_their_file(lake: Lake) -> None:
    path = store_factors(lake)
    flip_bit(lake, seal_path(path), 77)
    with pytest.raises(DamagedLakeError, match="cannot be checked, as its checksums are damaged"):
        streamed(lake, "one", LAYER, 100)


def test_a_superseded_file_that_is_damaged_makes_no_partition_of_now_count_as_damaged(lake: Lake) -> None:
    path = store_factors(lake)
    earlier = lake.factor_files("one")
    store_factors(lake)
    flip_bit(lake, path, column_bit(lake, path, LAYER))
    with pytest.raises(DamagedLakeError):
        list(lake.stream_factors(earlier, [LAYER], 100))
    assert notes(lake.stored) == []


# --- Tables ------------------------------------------------------------------------------------------------------


def test_a_flipped_bit_of_a_table_stops_whoever_reads_that_partition_and_nobody_else(lake: Lake) -> None:
    for part in ("a", "b"):
        replace_rejected(lake, part, 2)
    path = next(path for path in files_of(lake, "rejected") if "part=a" in path)
    flip_bit(lake, path, 500)
    assert lake.read(REJECTED, part="b").height == 2
    for read in (lambda: lake.read(REJECTED), lambda: lake.read(REJECTED, ["row"], part=["a", "b"])):
        with pytest.raises(DamagedLakeError, match=r"part=a/.* of the table rejected, stage = 's', part = 'a'"):
            read()


def test_a_damaged_partition_is_missing_where_it_is_asked_what_is_to_be_made_again(lake: Lake) -> None:
    for part in ("a", "b"):
        replace_rejected(lake, part, 2)
    flip_bit(lake, next(path for path in files_of(lake, "rejected") if "part=a" in path), 500)
    with pytest.raises(DamagedLakeError):
        lake.read(REJECTED)
    rest = lake.without_damaged()
    assert counts(rest) == {"b": 2}
    assert set(file_constants(rest, REJECTED, ["part", "reason"])["part"]) == {"b"}
    replace_rejected(lake, "a", 3)
    assert notes(lake.stored) == []
    assert counts(lake.without_damaged()) == {"a": 3, "b": 2}


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def zeros(content: bytes) -> bytes:
    return bytes(len(content))


def without_its_footer(content: bytes) -> bytes:
    return content[:-8] + b"\xff\xff\xff\x7fPAR1"


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "cut": cut,
    "empty": lambda content: b"",
    "zeros": zeros,
    "a footer of nonsense": without_its_footer,
    "something else": lambda content: b"<html>" * 100,
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("is_checked", [True, False], ids=["with checksums", "of an earlier version"])
def test_a_broken_file_is_one_error_and_never_a_panic(lake: Lake, how: str, is_checked: bool) -> None:
    replace_rejected(lake, "a", 2)
    store_factors(lake)
    if not is_checked:
        without_checksums(lake)
    for path in (*files_of(lake, "rejected"), *files_of(lake, "gradient_factors")):
        file = Path(lake.root, path)
        file.write_bytes(BROKEN[how](file.read_bytes()))
    (file_of_factors,) = lake.factor_files("one")
    for read in (
        lambda: lake.read(REJECTED),
        lambda: lake.read(GRADIENT_FACTORS, ["loss"]),
        lambda: streamed(lake, "one", LAYER, 10),
        lambda: read_rows(lake, file_of_factors, [LAYER], [0]),
    ):
        with pytest.raises(DamagedLakeError, match=r"\.parquet of the table .*run `lorif materialize`"):
            read()


def test_a_lost_file_is_named_with_its_partition_and_made_again(lake: Lake) -> None:
    replace_rejected(lake, "a", 2)
    (path,) = files_of(lake, "rejected")
    Path(lake.root, path).unlink()
    with pytest.raises(DamagedLakeError, match=f"{path} of the table rejected, stage = 's', part = 'a' is gone"):
        lake.read(REJECTED)
    assert counts(lake.without_damaged()) == {}


# --- The log -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [0, 1, 2])
def test_a_log_entry_that_changed_is_put_back_before_it_is_believed(lake: Lake, version: int) -> None:
    for n in (3, 2):
        replace_rejected(lake, "a", n)
    entry = Path(lake.root, f"rejected/_delta_log/{version:020}.json")
    written = entry.read_bytes()
    for at in range(0, 8 * len(written), 8 * len(written) // 20):
        flip_bit(lake, f"rejected/_delta_log/{entry.name}", at)
        assert counts(lake) == {"a": 2}
        assert entry.read_bytes() == written


def test_a_lake_that_cannot_be_written_to_is_not_read_with_a_changed_log(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_rejected(lake, "a", 2)
    flip_bit(lake, f"rejected/_delta_log/{1:020}.json", 333)

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("lorif_assets.lake.stored_files.StoredFiles.write", refuse)
    with pytest.raises(DamagedLakeError, match=f"{1:020}.json of the table rejected is not what was written"):
        lake.read(REJECTED)


@pytest.mark.parametrize("how", ["cut", "empty", "zeros", "something else"])
def test_a_broken_log_without_a_copy_is_an_error_that_says_what_is_lost(lake: Lake, how: str) -> None:
    replace_rejected(lake, "a", 2)
    without_checksums(lake)
    for path in files_of(lake, "rejected", ".json"):
        Path(lake.root, path).write_bytes(BROKEN[how](Path(lake.root, path).read_bytes()))
    with pytest.raises(
        DamagedLakeError, match=r"rejected/_delta_log.* of the table rejected .*delete .*/rejected and run"
    ):
        lake.read(REJECTED)


def test_a_table_that_was_deleted_and_made_again_is_not_mixed_with_what_guarded_the_old_one(lake: Lake) -> None:
    for n in (3, 2, 1):
        replace_rejected(lake, "a", n)
    shutil.rmtree(Path(lake.root, "rejected"))
    replace_rejected(lake, "b", 1)
    assert counts(lake) == {"b": 1}
    assert verify(lake, files_to_verify(lake)).damage == []


def test_a_log_with_checkpoints_is_guarded_too(lake: Lake) -> None:
    for n in range(101):
        replace_rejected(lake, "a", 1 + n % 3)
    log = Path(lake.root, "rejected/_delta_log")
    (checkpoint,) = log.glob("*.checkpoint.parquet")
    before = counts(lake)
    for file in (checkpoint, log / "_last_checkpoint"):
        written = file.read_bytes()
        for at in (5, 8 * len(written) // 2, 8 * len(written) - 20):
            flip_bit(lake, str(file.relative_to(lake.root)), at)
            assert counts(lake) == before
            assert file.read_bytes() == written
    assert verify(lake, files_to_verify(lake)).damage == []


LOSSES: dict[str, Callable[[Path], Any]] = {
    "empty": lambda file: file.write_bytes(b""),
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "cut": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "gone": Path.unlink,
}


@pytest.fixture
def logged(lake: Lake) -> Lake:
    """A lake with a table of a hundred commits, so that its log has a checkpoint."""
    for n in range(102):
        replace_rejected(lake, "a", 1 + n % 3)
    return lake


def log_file(lake: Lake, kind: str) -> str:
    names = {"entry": "*.json", "checkpoint": "*.checkpoint.parquet"}
    newest = max(Path(lake.root, "rejected/_delta_log").glob(names.get(kind, kind)))
    return str(newest.relative_to(lake.root))


def as_another_process() -> None:
    seals._sound.clear()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", ["entry", "checkpoint"])
def test_of_a_log_file_and_its_copy_one_may_be_lost(logged: Lake, kind: str, loss: str) -> None:
    before = counts(logged)
    for path in (log_file(logged, kind), seal_path(log_file(logged, kind))):
        written = Path(logged.root, path).read_bytes()
        LOSSES[loss](Path(logged.root, path))
        as_another_process()
        assert counts(logged) == before
        if loss == "gone" and path.startswith("checksums/"):
            continue
        assert Path(logged.root, path).read_bytes() == written
    assert verify(logged, files_to_verify(logged)).damage == []


def test_an_entry_that_was_replaced_together_with_its_copy_is_named(logged: Lake) -> None:
    path = log_file(logged, "entry")
    for file in (path, seal_path(path)):
        Path(logged.root, file).write_text('{"version": 1}')
    as_another_process()
    with pytest.raises(DamagedLakeError, match=path):
        counts(logged)


def test_verify_names_a_log_that_lacks_something_nothing_tells_of(logged: Lake) -> None:
    path = log_file(logged, "checkpoint")
    for entry in Path(logged.root, path).parent.glob("00000000000000000[0-9][0-9]*.json"):
        Path(logged.root, seal_path(str(entry.relative_to(logged.root)))).unlink(missing_ok=True)
        if entry.name < Path(path).name:
            entry.unlink()
    for file in (path, seal_path(path)):
        Path(logged.root, file).unlink()
    as_another_process()
    with pytest.raises(DamagedLakeError, match="rejected/_delta_log"):
        counts(logged)
    (damage,) = (one for one in verify(logged, files_to_verify(logged)).damage if one.table == "rejected")
    assert "delete" in damage.what_to_do


@pytest.mark.parametrize("loss", sorted(LOSSES.keys() - {"gone"}))
@pytest.mark.parametrize("kind", ["entry", "checkpoint"])
def test_a_log_file_that_is_lost_with_its_copy_is_named_and_the_rows_of_before_are_not_read(
    logged: Lake, kind: str, loss: str
) -> None:
    path = log_file(logged, kind)
    for file in (path, seal_path(path)):
        LOSSES[loss](Path(logged.root, file))
    as_another_process()
    with pytest.raises(DamagedLakeError, match=path):
        counts(logged)
    assert path in {damage.file for damage in verify(logged, files_to_verify(logged)).damage}


def test_without_the_newest_entry_and_a_copy_that_can_be_read_the_rows_of_before_are_not_taken_for_those_of_now(
    logged: Lake,
) -> None:
    path = log_file(logged, "entry")
    Path(logged.root, path).unlink()
    Path(logged.root, seal_path(path)).write_bytes(b"")
    as_another_process()
    with pytest.raises(DamagedLakeError, match=path):
        counts(logged)


def test_a_copy_that_another_process_is_writing_is_none_of_a_lost_entry(lake: Lake) -> None:
    replace_rejected(lake, "a", 1)
    Path(lake.root, "checksums/rejected/_delta_log/.0123456789abcdef").write_bytes(b"half")
    as_another_process()
    assert counts(lake) == {"a": 1}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_pointer_to_the_newest_checkpoint_is_taken_away_where_it_is_lost_with_its_copy(
    logged: Lake, loss: str
) -> None:
    before, path = counts(logged), log_file(logged, "_last_checkpoint")
    for file in (path, seal_path(path)):
        LOSSES[loss](Path(logged.root, file))
    as_another_process()
    assert counts(logged) == before
    assert not Path(logged.root, path).exists()
    replace_rejected(logged, "b", 1)
    assert counts(logged) == {**before, "b": 1}
    assert verify(logged, files_to_verify(logged)).damage == []


def test_verify_says_of_such_a_pointer_that_nothing_is_to_be_made_again(logged: Lake) -> None:
    path = log_file(logged, "_last_checkpoint")
    for bit, file in enumerate((path, seal_path(path))):
        flip_bit(logged, file, 8 * bit)
    as_another_process()
    (damage,) = verify(logged, files_to_verify(logged)).damage
    assert damage.file == path
    assert "it was taken away" in damage.what_to_do


# --- Tensors -----------------------------------------------------------------------------------------------------


def test_every_flipped_bit_of_tensors_is_found(lake: Lake) -> None:
    import torch

    path = lake.write_tensors("states", {"a": torch.ones(20)})
    folder = lake.write_tensor_folder("sums", ["h.0", "h.1"], lambda name: {"squares": torch.ones(5)})
    for file in (path, f"{folder}/h.0.safetensors"):
        for at in range(0, 8 * Path(lake.root, file).stat().st_size, 37):
            flip_bit(lake, file, at)
            with pytest.raises(DamagedLakeError, match=f"in the file {file}"):
                lake.read_tensors(file)
            flip_bit(lake, file, at)
        lake.read_tensors(file)
    flip_bit(lake, f"{folder}/checksums.json", 50)
    with pytest.raises(DamagedLakeError):
        lake.read_tensors(f"{folder}/h.1.safetensors")


def test_damaged_tensors_are_named_with_the_row_that_points_to_them(lake: Lake) -> None:
    import pyarrow as pa
    import torch

    path = lake.write_tensors("kfac_bases_tensors/one", {"q_in": torch.ones(20)})
    rows = pa.Table.from_pylist([{"checkpoint": "one", "layer": "h.0", "uri": path}], KFAC_BASES.columns)
    lake.replace(KFAC_BASES, {"checkpoint": "one"}, rows)
    flip_bit(lake, path, -9)
    with pytest.raises(
        DamagedLakeError, match=r"of the table kfac_bases, checkpoint = 'one' .*which makes `kfac_bases`"
    ):
        lake.read_tensors(path)
    assert lake.without_damaged().read(KFAC_BASES).is_empty()


# --- An object store ---------------------------------------------------------------------------------------------


def test_a_lake_at_a_url_has_checksums_and_is_verified(tmp_path: Path) -> None:
    import torch

    lake = Lake(root=f"file://{tmp_path}/lake")
    local = Lake(root=f"{tmp_path}/lake")
    Path(local.root).mkdir()
    replace_rejected(lake, "a", 2)
    path = store_factors(lake)
    tensors = lake.write_tensors("curvature_states/one", {"a": torch.ones(20)})
    assert verify(lake, files_to_verify(lake)).unchecked == 0
    for file in (path, tensors, seal_path(path)):
        flip_bit(local, file, 99)
    assert {damage.file for damage in verify(lake, files_to_verify(lake)).damage} == {path, tensors, seal_path(path)}
    with pytest.raises(DamagedLakeError):
        lake.read_tensors(tensors)


# --- The format --------------------------------------------------------------------------------------------------


def test_a_lake_without_a_format_is_read_and_gets_one_with_the_first_write(lake: Lake) -> None:
    replace_rejected(lake, "a", 2)
    without_checksums(lake)
    assert stored_format(lake.stored) == 1
    assert counts(lake) == {"a": 2}
    assert not Path(lake.root, "format.json").exists()
    assert verify(lake, files_to_verify(lake)).unchecked > 0
    replace_rejected(lake, "b", 1)
    assert stored_format(lake.stored) == FORMAT
    assert counts(lake) == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    "content", [format_content(FORMAT + 1), json.dumps({"format": 99, "written_by": "later"}).encode()]
)
def test_a_lake_of_a_newer_format_is_refused_with_what_to_do(lake: Lake, content: bytes) -> None:
    replace_rejected(lake, "a", 2)
    Path(lake.root, "format.json").write_bytes(content)
    for use in (
        lambda: lake.read(REJECTED),
        lambda: replace_rejected(lake, "b", 1),
        lambda: verify(lake, files_to_verify(lake)),
    ):
        with pytest.raises(
            TableError, match=r"has format \d+, .* up to 2: a newer version wrote it. Install that version"
        ):
            use()


def test_a_flipped_bit_never_makes_a_format_look_like_another(lake: Lake) -> None:
    replace_rejected(lake, "a", 2)
    for at in range(8 * len(format_content(FORMAT))):
        flip_bit(lake, "format.json", at)
        with pytest.raises(DamagedLakeError, match=r"format.json is not what was written; run `lorif verify`"):
            lake.read(REJECTED)
        assert {damage.file for damage in verify(lake, files_to_verify(lake)).damage} == {"format.json"}
    assert counts(lake) == {"a": 2}
