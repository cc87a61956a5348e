"""Files of JSON beside weights that are nested deeper than Python follows: what they would say is not known."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lorif_assets.errors import CheckpointError
from lorif_assets.models.files.adapter_files import AdapterFiles
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.models.files.quantised_weights import quantization
from lorif_assets.models.files.steps import trainer_step
from lorif_assets.models.training.learning_rates import logged_learning_rates

DEEP = '{"global_step": ' + "[" * 100_000


@pytest.mark.parametrize(
    ("name", "look", "found"),
    [
        ("trainer_state.json", trainer_step, None),
        ("trainer_state.json", logged_learning_rates, {}),
        ("config.json", quantization, None),
        ("config.json", lambda folder: CheckpointFiles(name="c", path=folder, step=1).remark, ""),
    ],
)
def test_nothing_is_found_in_them(name: str, look: Callable[[Path], object], found: object, tmp_path: Path) -> None:
    (tmp_path / name).write_text(DEEP)
    assert look(tmp_path) == found


def test_a_learning_rate_beyond_all_numbers_is_none(tmp_path: Path) -> None:
    (tmp_path / "trainer_state.json").write_text('{"log_history": [{"step": 1e999, "learning_rate": 1}]}')
    assert logged_learning_rates(tmp_path) == {}


def test_an_adapter_with_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(DEEP)
    with pytest.raises(CheckpointError, match=r"adapter_config\.json cannot be read"):
        _ = AdapterFiles(tmp_path).config
