"""A project attributed on a GPU that is none: nothing is computed of tensors that a GPU would have in two places."""

import shutil
from pathlib import Path

import dagster as dg
import pytest
import torch

from lorif_assets.lake.attribution_tables import QUERY_SCORES
from tests.conftest import TinyProject
from tests.pretended_gpu import GPU, pretended_gpu

_PAIR = ["checkpoint", "query_set", "query_id", "example_id", "side"]


def test_what_a_gpu_refuses_is_refused() -> None:
    with pretended_gpu():
        there = torch.ones(2, 3, device=GPU)
        assert (there @ torch.ones(3, 1).to(GPU)).device == GPU
        assert (2 * there).cpu().numpy().sum() == 12
        with pytest.raises(RuntimeError, match="on cuda:0 and on the CPU"):
            there + torch.ones(2, 3)
        with pytest.raises(TypeError, match="no numpy array"):
            there.numpy()


def test_a_project_is_attributed_as_on_a_cpu(ekfac_project: TinyProject, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(ekfac_project.root, root, ignore=shutil.ignore_patterns("dagster", "dagster_home", "lake"))
    with dg.DagsterInstance.ephemeral() as instance, pretended_gpu():
        project = TinyProject.open(root, instance).with_settings(devices={"devices": ["cuda:0"]})
        project.update()
        found = project.table(QUERY_SCORES)
    pairs = ekfac_project.table(QUERY_SCORES).join(found, on=_PAIR, suffix="_there", validate="1:1")
    assert pairs.height == found.height
    apart = (pairs["score"] - pairs["score_there"]).abs().max() / pairs["score"].abs().max()
    assert isinstance(apart, float)
    assert apart < 1e-3
