"""`lorif evaluate`: what comes first where the encoder learns from retrained models, and a plan that computes nothing."""

import io
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from rich.console import Console

from lorif_assets.assets.attribution_asset import AttributionAsset
from lorif_assets.cli import evaluate
from tests.conftest import TinyProject


@pytest.mark.parametrize("teacher", ["subset_losses", "lorif"])
def test_what_learns_from_retrained_models_follows_them_and_comes_before_the_methods(
    teacher: str, private_project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = private_project.root / "lorif.toml"
    sections = f'[influcoder]\nenabled = true\nteacher = "{teacher}"\n\n[evaluation]\ncommand = ["true"]\n'
    file.write_text(f"{file.read_text()}\n{sections}")
    monkeypatch.setenv("LORIF_CONFIG", str(file))
    rounds: list[set[str]] = []

    def bring(*_: Any, selection: Sequence[AttributionAsset], **__: Any) -> Iterator[Any]:
        rounds.append({asset.name for asset in selection})
        return iter(())

    monkeypatch.setattr(evaluate, "bring_up_to_date", bring)
    home = private_project.root / "dagster_home"
    home.mkdir()
    evaluate.run_evaluation(home, Console(file=io.StringIO()), plan=False, selection=False)
    first, *between, last = rounds
    assert "influcoder_encoder" in first
    assert {"method_scores", "subset_losses"} <= last
    assert between == ([{"subset_losses"}, first] if teacher == "subset_losses" else [])


@pytest.mark.parametrize("is_attributed", [True, False])
def test_a_plan_says_what_there_is_to_do_and_computes_none_of_it(
    is_attributed: bool, private_project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = private_project.root / "lorif.toml"
    file.write_text(f'{file.read_text()}\n[evaluation]\ncommand = ["true"]\nsubsets = 4\nseeds = 1\n')
    if is_attributed:
        private_project.edit_shard(1, 4, "an error closes the file")
    else:
        shutil.rmtree(private_project.root / "lake")
    monkeypatch.setenv("LORIF_CONFIG", str(file))
    said = io.StringIO()
    before = sorted(private_project.root.rglob("*"))
    evaluate.run_evaluation(private_project.root / "none", Console(file=said, width=200), plan=True, selection=False)
    rows = dict(line.split(maxsplit=1) for line in said.getvalue().splitlines())
    assert rows["training_examples"].startswith("1 partition: its source changed" if is_attributed else "3 partitions")
    assert rows["gradient_factors"].endswith("what follows from those above")
    assert "4 of 4 models are left to retrain" in said.getvalue()
    assert sorted(private_project.root.rglob("*")) == before
