"""A curvature with a table of its own takes four files: this adds one to a copy of the source, and runs the whole pipeline."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import lorif_assets
from tests.conftest import CHECKPOINTS, QUERY_SET, TinyProject

SOURCE = Path(lorif_assets.__file__).parents[1]

MATHEMATICS = """
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class IdentityPreconditioner:
    norm_weight = 1.0
    axis_sizes = None

    def apply(self, gradients):
        return gradients

    inverse = apply


@dataclass(frozen=True)
class IdentityCurvature:
    count: int = 0

    def add(self, part):
        return replace(self, count=self.count + len(part.u))

    def remove(self, part):
        return replace(self, count=self.count - len(part.u))

    def refined(self):
        return IdentityCurvature()

    def preconditioner(self):
        return IdentityPreconditioner()

    def tensors(self):
        return {"count": torch.tensor([self.count])}

    def figures(self):
        return {}
"""

TABLE = """
IDENTITY_PRECONDITIONERS = table(
    "identity_preconditioners",
    ("checkpoint", "layer"),
    "A layer whose curvature is the identity.",
    checkpoint=pa.string(),
    layer=pa.string(),
    d1=pa.int32(),
    d2=pa.int32(),
    n_examples=(pa.int64(), "training examples"),
    state_uri=(pa.string(), "safetensors file"),
    ledger=(pa.string(), "JSON"),
    ledger_hash=pa.string(),
    state_version=(pa.string(), "hash"),
    version=(pa.string(), "hash"),
    recipe_hash=pa.string(),
    weights_hash=pa.string(),
    projection=pa.string(),
)

"""

CURVATURE = """
from lorif_assets.lake.attribution_tables import IDENTITY_PRECONDITIONERS


@dataclass(frozen=True)
class Identity(LakeCurvature):
    table = IDENTITY_PRECONDITIONERS
    reads_factors = True
    words = "count", "replaced factors"
    description = "Nothing but the number of examples: the curvature is the identity in every layer."
    check = SoundnessCheck("count_is_sound", "Every stored example is counted.", "every layer counts what is stored")

    def state_version(self, factors):
        return content_hash([self.recipe.factor_hash, factors.weights_hash, factors.projection])

    ledger = Svd.ledger
    parts = Svd.parts
    part = Svd.part

    def empty(self, shape, bases, device):
        from lorif_assets.mathematics.curvature.identity import IdentityCurvature

        return IdentityCurvature()

    def restored(self, row, tensors, bases):
        return replace(self.empty((0, 0), bases, None), count=row["n_examples"])

    def preconditioner(self, row, tensors, bases):
        return self.restored(row, tensors, bases).preconditioner()

    def columns(self, curvature, factors, basis_version, refine_below):
        return {}

    @classmethod
    def soundness(cls, row, tensors, n_stored):
        return Soundness([] if int(tensors["count"]) == n_stored else ["another number of examples is stored"])

    def cost(self, shapes):
        return CurvatureCost(stored_bytes=8 * len(shapes), largest_state_bytes=8, bytes_per_shard=0, factor_passes=1)


"""

RUN = """
import json

import dagster as dg

from lorif_assets.automation.materialization import bring_up_to_date
from lorif_assets.assets.graph import ASSETS
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.settings import load_settings
from lorif_assets.definitions import defs
from lorif_assets.evaluation.tuning.candidates import candidates
from lorif_assets.lake.tables import TABLES
from lorif_assets.project import Project

project = Project.of(load_settings())
with dg.DagsterInstance.ephemeral() as instance:
    updates = [
        {one.asset: len(one.partitions) for one in bring_up_to_date(instance, ASSETS, project) if one.partitions}
        for _ in range(2)
    ]
(check,) = (one for one in defs.asset_checks for spec in one.check_specs if spec.name == "count_is_sound")
scores = project.lake.read(TABLES["query_scores"])
print(json.dumps({
    "first": updates[0],
    "second": updates[1],
    "asset": next(iter(check.check_specs)).asset_key.to_user_string(),
    "sound": check(project.lake).passed,
    "examples": sorted(set(project.lake.read(TABLES["identity_preconditioners"])["n_examples"])),
    "scores": scores.height,
    "finite": bool(scores["score"].is_finite().all()),
    "tried": any(recipe.curvature == "identity" for group in candidates(Recipe(preset="whitened"), 1_000) for recipe in group),
}))
"""


def _insert(path: Path, text: str, before: str) -> None:
    """Put a text before the only line that begins with some words."""
    lines = path.read_text().split("\n")
    (at,) = (number for number, line in enumerate(lines) if line.startswith(before))
    path.write_text("\n".join([*lines[:at], *text.rstrip("\n").split("\n"), "", *lines[at:]]))


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{path.name}: {old}"
    path.write_text(text.replace(old, new))


def _add_the_identity(package: Path) -> None:
    fields, tables = package / "config/curvature_fields.py", package / "lake/attribution_tables.py"
    curvatures = package / "attribution/stored/curvatures.py"
    (package / "mathematics/curvature/identity.py").write_text(MATHEMATICS)
    _replace(fields, 'Literal["svd", "ekfac", "kfac", "adam"]', 'Literal["svd", "ekfac", "kfac", "adam", "identity"]')
    _replace(
        fields,
        '    "kfac": _KRONECKER,\n',
        '    "kfac": _KRONECKER,\n    "identity": CurvatureFields((), (), (), damping=None),\n',
    )
    _insert(tables, TABLE, "PRECONDITIONER_TABLES")
    _replace(
        tables,
        "SVD_PRECONDITIONERS, EKFAC_PRECONDITIONERS)",
        "SVD_PRECONDITIONERS, EKFAC_PRECONDITIONERS, IDENTITY_PRECONDITIONERS)",
    )
    _insert(curvatures, CURVATURE, "CURVATURES: ")
    _replace(curvatures, '"adam": Adam}', '"adam": Adam, "identity": Identity}')


def _contents(folder: Path) -> Mapping[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source in which the identity is a curvature."""
    root = tmp_path_factory.mktemp("source")
    for package in ("lorif_assets", "resources"):
        shutil.copytree(SOURCE / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    _add_the_identity(root / "lorif_assets")
    return root


@pytest.fixture(scope="module")
def outcome(source: Path, tiny_project: TinyProject, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the pipeline made of a project with the identity, and the folder of the project."""
    root = tmp_path_factory.mktemp("identity") / "project"
    shutil.copytree(tiny_project.root, root, ignore=shutil.ignore_patterns("dagster", "lake"))
    file = root / "lorif.toml"
    file.write_text(file.read_text().replace('curvature = "svd"', 'curvature = "identity"'))
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(source), "LORIF_CONFIG": str(file)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    return {**json.loads(done.stdout.splitlines()[-1]), "root": root}


def test_it_takes_four_files(source: Path) -> None:
    old, new = _contents(SOURCE / "lorif_assets"), _contents(source / "lorif_assets")
    assert {name for name in new if new[name] != old.get(name)} == {
        "attribution/stored/curvatures.py",
        "config/curvature_fields.py",
        "lake/attribution_tables.py",
        "mathematics/curvature/identity.py",
    }


def test_its_asset_is_brought_up_to_date_with_the_scores_and_the_report(outcome: dict[str, Any]) -> None:
    layers = 4
    assert outcome["first"]["identity_preconditioners"] == layers * len(CHECKPOINTS)
    assert {"query_scores", "attribution_report"} <= outcome["first"].keys()
    assert not {"svd_preconditioners", "ekfac_preconditioners", "kfac_bases"} & outcome["first"].keys()
    assert outcome["second"] == {}
    assert outcome["examples"] == [36]
    assert outcome["scores"]
    assert outcome["finite"]


def test_its_check_looks_at_its_table(outcome: dict[str, Any]) -> None:
    assert (outcome["asset"], outcome["sound"]) == ("identity_preconditioners", True)


def test_the_report_shows_the_figures_that_its_table_has(outcome: dict[str, Any]) -> None:
    (page,) = outcome["root"].rglob(f"*{CHECKPOINTS[0]}/{QUERY_SET}.html")
    text = page.read_text()
    assert "of which the table below has the figures that are stored" in text
    assert "transformer.h.0.attn.c_attn" in text
    assert "Captured energy" not in text


def test_lorif_tune_tries_it(outcome: dict[str, Any]) -> None:
    assert outcome["tried"]
