"""The code location: it loads, quickly, and every asset says what it is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lorif_assets.assets.attribution_asset import AttributionAsset
from lorif_assets.assets.graph import ASSETS
from lorif_assets.lake.tables import TABLES

INFLUCODER = {
    "influence_targets",
    "influcoder_encoder",
    "influence_embeddings",
    "influcoder_scores",
    "influcoder_agreement",
    "recall_curves",
}
_LOAD = """
import json, sys
import dagster as dg
from lorif_assets.definitions import defs
dg.Definitions.validate_loadable(defs)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def load(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", _LOAD], cwd=folder, capture_output=True, text=True, check=False)


def test_the_definitions_load_without_a_settings_file_and_without_heavy_imports(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    assert loaded.returncode == 0, loaded.stderr
    heavy = {
        "torch",
        "transformers",
        "mlflow",
        "datasets",
        "matplotlib",
        "pandas",
        "peft",
        "sentence_transformers",
        "sklearn",
        "scipy",
    }
    assert heavy & set(json.loads(loaded.stdout.splitlines()[-1])) == set()


def test_a_wrong_setting_stops_the_definitions_with_a_message_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "lorif.toml").write_text("[recipe]\nr = -1")
    loaded = load(tmp_path)
    assert loaded.returncode != 0
    assert "recipe.r: Input should be greater than or equal to 0 (found -1)" in loaded.stderr


@pytest.mark.parametrize("asset", ASSETS, ids=lambda asset: asset.name)
def test_an_asset_says_what_it_is_who_owns_it_and_which_columns_it_writes(asset: AttributionAsset) -> None:
    (spec,) = asset.definition.specs
    assert spec.description
    assert len(spec.description.splitlines()[0]) > 20
    assert spec.owners
    assert spec.kinds
    assert spec.group_name != "default"
    assert spec.code_version
    table = TABLES[spec.metadata["dagster/table_name"]]
    columns = [column.name for column in spec.metadata["dagster/column_schema"].columns]
    assert columns[: len(table.columns.names)] == table.columns.names


def test_assets_that_use_the_model_share_the_gpu_pool() -> None:
    pools = {asset.name for asset in ASSETS if asset.definition.op.pool == "gpu"}
    assert pools == {
        "kfac_bases",
        "gradient_factors",
        "svd_preconditioners",
        "ekfac_preconditioners",
        "query_scores",
        "token_scores",
        "exact_scores",
        "group_scores",
        *INFLUCODER,
    }
