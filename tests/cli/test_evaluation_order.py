"""`lorif evaluate` where the encoder learns from the retrained models: they come first, and then the encoder."""

import io
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
