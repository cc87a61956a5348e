"""A layer's state after any sequence of edits equals the state built from scratch on the final data."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.attribution.fitting.fit_curvature import CurvatureFit, commit_row, fitted_row
from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
from lorif_assets.config.content_hash import content_hash
from lorif_assets.config.recipe import Recipe
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS, SVD_PRECONDITIONERS
from lorif_assets.lake.lake import Lake
from lorif_assets.mathematics.curvature.svd import Spectrum
from lorif_assets.mathematics.curvature.svd_preconditioner import CurvatureForm, DampingRule, Preconditioner

LAYER, D1, D2 = "h.0.linear", 6, 8
RECORD = CheckpointRecord("step-1", "weights", "tokenizer", "gpt2", 1, 1, {LAYER: (D1, D2)})
RECIPE = Recipe(curvature="svd", r=12, oversample=12, rank=1, factor_dtype="fp32")
CPU = torch.device("cpu")


def fit_curvature(checkpoint: StoredCheckpoint, *, refine: bool = False) -> tuple[CurvatureFit, dict[str, Any]]:
    """Bring the layer's curvature up to date, and store it."""
    fit, row = fitted_row(checkpoint, LAYER, rows=7, device=CPU, refine_below=0.5, refine=refine)
    commit_row(checkpoint, row)
    return fit, row


@dataclass
class FactorLake:
    """A lake of random factors, edited shard by shard as `gradient_factors` would."""

    lake: Lake
    rng: np.random.Generator
    shards: dict[str, np.ndarray] = field(default_factory=dict)

    def write(self, shard: str, rows: np.ndarray) -> None:
        self.shards[shard] = rows
        constants = {
            "checkpoint": RECORD.name,
            "shard": shard,
            "recipe_hash": RECIPE.factor_hash,
            "weights_hash": RECORD.weights_hash,
            "tokenizer_hash": RECORD.tokenizer_hash,
            "projection": "p",
            "shard_hash": content_hash(rows.tolist()),
            "factor_codec": "fp32",
            "bases": "",
            "fisher": "",
        }
        n = len(rows)
        table = pa.table(
            {
                "example_id": [f"{shard}/{i}" for i in range(n)],
                "row": pa.array(range(n), pa.int64()),
                "loss": pa.array([1.0] * n, pa.float32()),
                "n_target_tokens": pa.array([1] * n, pa.int32()),
                "truncated": [False] * n,
                **{name: [value] * n for name, value in constants.items()},
                LAYER: pa.array([row.tobytes() for row in rows], pa.large_binary()),
            }
        )
        self.lake.replace(GRADIENT_FACTORS, {"checkpoint": RECORD.name, "shard": shard}, table)

    def remove(self, shard: str) -> None:
        del self.shards[shard]
        empty = GRADIENT_FACTORS.columns.empty_table()
        self.lake.replace(GRADIENT_FACTORS, {"checkpoint": RECORD.name, "shard": shard}, empty)

    def random_rows(self, n: int) -> np.ndarray:
        scale = 0.8 ** np.arange(D1 + D2)
        return (self.rng.standard_normal((n, D1 + D2)) * scale).astype(np.float32)

    def renew(self, *, refine: bool = False) -> CurvatureFit:
        return fit_curvature(self.checkpoint(), refine=refine)[0]

    def checkpoint(self, recipe: Recipe = RECIPE) -> StoredCheckpoint:
        return StoredCheckpoint(self.lake, recipe, RECORD)

    @property
    def row(self) -> dict[str, Any]:
        (row,) = self.lake.read(SVD_PRECONDITIONERS).to_dicts()
        return row

    def elsewhere(self, n: int) -> np.ndarray:
        """Rows whose gradients lie where `random_rows` have next to none."""
        return np.ascontiguousarray(self.random_rows(n)[:, ::-1]) * 10

    def from_scratch(self, other: Path) -> CurvatureFit:
        fresh = FactorLake(Lake(root=str(other)), self.rng)
        for shard, rows in self.shards.items():
            fresh.write(shard, rows)
        return fresh.renew()


def scores(fit: CurvatureFit, rng: np.random.Generator) -> torch.Tensor:
    spectrum: Spectrum = fit.curvature.state.spectrum(RECIPE.r)
    preconditioner = Preconditioner.from_spectrum(spectrum, DampingRule.TRACE, 1.0, CurvatureForm.TAIL_CORRECTED)
    queries = torch.from_numpy(rng.standard_normal((5, D1 * D2)).astype(np.float32))
    return preconditioner.apply(queries)


def assert_same_scores(updated: CurvatureFit, rebuilt: CurvatureFit) -> None:
    left, right = (scores(fit, np.random.default_rng(1)) for fit in (updated, rebuilt))
    assert updated.curvature.state.count == rebuilt.curvature.state.count
    assert float((left - right).norm() / right.norm()) < 1e-4


def energy(rows: np.ndarray) -> float:
    return float((np.square(rows[:, :D1]).sum(1) * np.square(rows[:, D1:]).sum(1)).sum())


def lake_of(path: Path, n_shards: int = 6, rows: int = 20) -> FactorLake:
    made = FactorLake(Lake(root=str(path)), np.random.default_rng(0))
    for number in range(n_shards):
        made.write(f"s{number}", made.random_rows(rows))
    return made


def test_a_changed_shard_is_subtracted_and_added_and_no_other_is_read(tmp_path: Path) -> None:
    lake = lake_of(tmp_path / "a")
    assert lake.renew().history.startswith("built")
    rows = lake.shards["s2"].copy()
    rows[3] += 1
    lake.write("s2", rows)
    updated = lake.renew()
    assert (updated.history, updated.rows_read) == ("updated: 0 shards are new, 0 gone, 1 changed", 40)
    assert_same_scores(updated, lake.from_scratch(tmp_path / "b"))


@pytest.mark.parametrize(("before", "after"), [(20, 3), (3, 20), (14, 14), (20, 0)])
def test_a_shard_may_grow_and_shrink_while_others_come_and_go(tmp_path: Path, before: int, after: int) -> None:
    lake = lake_of(tmp_path / "a")
    lake.write("grown", lake.random_rows(before))
    lake.write("gone", lake.random_rows(5))
    lake.renew()
    lake.remove("gone")
    lake.write("new", lake.random_rows(4))
    if after:
        lake.write("grown", lake.random_rows(after))
    else:
        lake.remove("grown")
    updated = lake.renew()
    assert updated.history.startswith("updated")
    assert updated.rows_read == before + after + 5 + 4
    assert_same_scores(updated, lake.from_scratch(tmp_path / "b"))


def test_a_new_shard_is_added_alone(tmp_path: Path) -> None:
    lake = lake_of(tmp_path / "a")
    lake.renew()
    lake.write("s9", lake.random_rows(4))
    updated = lake.renew()
    assert (updated.history, updated.rows_read) == ("updated: 1 shards are new, 0 gone, 0 changed", 4)
    assert_same_scores(updated, lake.from_scratch(tmp_path / "b"))


def test_a_withdrawn_shard_is_subtracted_from_the_file_that_was_added(tmp_path: Path) -> None:
    lake = lake_of(tmp_path / "a")
    lake.renew()
    lake.remove("s1")
    updated = lake.renew()
    assert (updated.history, updated.rows_read) == ("updated: 0 shards are new, 1 gone, 0 changed", 20)
    assert_same_scores(updated, lake.from_scratch(tmp_path / "b"))


def test_nothing_is_read_when_nothing_changed(tmp_path: Path) -> None:
    lake = lake_of(tmp_path / "a")
    lake.renew()
    assert lake.renew().rows_read == 0


def test_a_state_is_rebuilt_when_a_replaced_file_was_vacuumed(tmp_path: Path) -> None:
    lake = lake_of(tmp_path / "a")
    lake.renew()
    lake.write("s0", lake.random_rows(20))
    table = lake.lake.table(GRADIENT_FACTORS)
    assert table is not None
    assert table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    updated = lake.renew()
    assert updated.history.startswith("built")
    assert_same_scores(updated, lake.from_scratch(tmp_path / "b"))


def test_a_state_is_rebuilt_where_updating_would_read_more(tmp_path: Path) -> None:
    lake = lake_of(tmp_path / "a", n_shards=2)
    lake.renew()
    lake.write("s0", lake.random_rows(20))
    assert lake.renew().history == "built: most of the data changed"


def test_a_new_damping_reuses_the_state(tmp_path: Path) -> None:
    lake = lake_of(tmp_path / "a")
    lake.renew()
    other = RECIPE.model_copy(update={"damping": 3.0})
    fit, row = fit_curvature(lake.checkpoint(other))
    assert fit.rows_read == 0
    assert row["damping"] == pytest.approx(3.0 * row["trace"] / (D1 * D2))


def test_the_ledger_names_every_shard_with_its_hash_and_file(tmp_path: Path) -> None:
    lake = lake_of(tmp_path / "a", n_shards=2)
    checkpoint = lake.checkpoint()
    _, row = fit_curvature(checkpoint)
    ledger = json.loads(row["ledger"])
    assert {shard: entry["shard_hash"] for shard, entry in ledger.items()} == checkpoint.factors.shard_hashes
    assert [entry["rows"] for entry in ledger.values()] == [20, 20]


# --- Drift and refinement --------------------------------------------------------------------------------------------


def test_added_data_like_the_rest_need_no_refinement_and_other_data_do(tmp_path: Path) -> None:
    lake = lake_of(tmp_path / "a")
    lake.renew()
    assert (lake.row["added_energy"], lake.row["needs_refine"]) == (0.0, False)
    assert lake.row["fitted_energy"] == lake.row["captured_energy"]
    lake.write("s9", lake.random_rows(20))
    lake.renew()
    assert lake.row["added_energy"] == pytest.approx(energy(lake.shards["s9"]), rel=1e-5)
    assert not lake.row["needs_refine"]
    lake.write("t0", lake.elsewhere(20))
    lake.renew()
    assert lake.row["needs_refine"]


def test_a_layer_asks_for_refinement_until_it_is_refined(tmp_path: Path) -> None:
    lake = lake_of(tmp_path / "a")
    lake.renew()
    lake.write("t0", lake.elsewhere(20))
    lake.renew()
    lake.write("s9", lake.random_rows(4))
    lake.renew()
    assert lake.row["needs_refine"]
    refined = lake.renew(refine=True)
    assert refined.history.startswith("refined on all 144 examples")
    assert (lake.row["needs_refine"], lake.row["added_energy"]) == (False, 0.0)


def test_refining_is_one_subspace_iteration_on_the_data_of_now(tmp_path: Path) -> None:
    lake = lake_of(tmp_path / "a")
    lake.renew()
    lake.write("t0", lake.elsewhere(20))
    before = lake.renew()
    refined = lake.renew(refine=True)
    basis = torch.linalg.qr(before.curvature.state.image).Q
    torch.testing.assert_close(refined.curvature.state.basis, basis)
    g = torch.cat(
        [
            torch.einsum("ni,nj->nij", x[:, :D1], x[:, D1:]).flatten(1)
            for x in map(torch.from_numpy, lake.shards.values())
        ]
    )
    torch.testing.assert_close(
        refined.curvature.state.image,
        g.mT @ (g @ basis),
        rtol=1e-4,
        atol=1e-4 * float(refined.curvature.state.image.norm()),
    )
    assert (
        refined.curvature.state.spectrum(RECIPE.r).captured_energy
        >= before.curvature.state.spectrum(RECIPE.r).captured_energy
    )


def test_later_updates_go_on_from_the_refined_basis(tmp_path: Path) -> None:
    lake = lake_of(tmp_path / "a")
    lake.renew()
    basis, version = lake.renew(refine=True).curvature.state.basis, lake.row["basis_version"]
    assert version
    lake.write("s9", lake.random_rows(4))
    updated = lake.renew()
    assert updated.rows_read == 4
    torch.testing.assert_close(updated.curvature.state.basis, basis)
    assert lake.row["basis_version"] == version


def test_every_refinement_has_a_version_of_its_own(tmp_path: Path) -> None:
    lake = lake_of(tmp_path / "a")
    versions = []
    for refine in (False, True, True):
        lake.renew(refine=refine)
        versions.append(lake.row["basis_version"])
    assert versions[0] == ""
    assert len(set(versions)) == 3


@pytest.mark.parametrize("fault", ["tensors", "row"])
def test_a_refinement_that_fails_leaves_the_old_state_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    lake = lake_of(tmp_path / "a")
    lake.renew()
    before = lake.row
    tensors = lake.lake.read_tensors(before["state_uri"])

    def fails(*_arguments: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Lake, {"tensors": "write_tensors", "row": "replace"}[fault], fails)
        with pytest.raises(OSError, match="no space left"):
            lake.renew(refine=True)
    assert lake.row == before
    kept = lake.lake.read_tensors(before["state_uri"])
    assert all(torch.equal(kept[name], tensors[name]) for name in tensors)
    assert lake.renew().rows_read == 0


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["add", "edit", "delete rows", "withdraw", "renew"]), st.integers(0, 10_000)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(OPERATIONS)
def test_any_sequence_of_edits_ends_where_a_rebuild_would(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, int]]
) -> None:
    root = tmp_path_factory.mktemp("lakes")
    lake = lake_of(root / "a", n_shards=5, rows=6)
    lake.renew()
    for operation, number in operations:
        name = sorted(lake.shards)[number % len(lake.shards)]
        if operation == "add":
            lake.write(f"n{number}", lake.random_rows(1 + number % 5))
        elif operation == "edit":
            lake.write(name, lake.shards[name] + np.float32(0.1))
        elif operation == "delete rows" and len(lake.shards[name]) > 1:
            lake.write(name, lake.shards[name][1:])
        elif operation == "withdraw" and len(lake.shards) > 1:
            lake.remove(name)
        elif operation == "renew":
            lake.renew()
    assert_same_scores(lake.renew(), lake.from_scratch(root / "b"))


@pytest.mark.slow
def test_a_hundred_edits_leave_the_scores_within_a_ten_thousandth(tmp_path: Path) -> None:
    lake = lake_of(tmp_path / "a", n_shards=10, rows=8)
    lake.renew()
    for edit in range(100):
        shard = f"s{edit % 10}"
        rows = lake.shards[shard].copy()
        rows[edit % 8] = lake.random_rows(1)[0]
        lake.write(shard, rows)
        assert lake.renew().history.startswith("updated")
    assert_same_scores(lake.renew(), lake.from_scratch(tmp_path / "b"))
