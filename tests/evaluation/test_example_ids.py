"""Two sources with the same ids are attributed, and not evaluated: there, ids tell examples apart."""

import pytest

from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.errors import MismatchError
from lorif_assets.evaluation.methods.inputs import MethodInputs
from lorif_assets.evaluation.retraining.subset_retraining import SubsetRetraining
from lorif_assets.models.devices import DeviceGroup
from tests.conftest import CHECKPOINTS, QUERY_SET, TinyProject


@pytest.fixture
def repeated(private_project: TinyProject) -> TinyProject:
    """The project with a second source, whose ids are those of a shard of the first one."""
    root = private_project.root
    (root / "more").mkdir()
    text = (root / "data/00001.jsonl").read_text()
    (root / "more/a.jsonl").write_text(text.replace('"text": "', '"text": "more '))
    toml = root / "lorif.toml"
    toml.write_text('[[sources]]\nname = "more"\npath = "more"\ncolumns = { id = "id" }\n' + toml.read_text())
    project = TinyProject.open(root, private_project.instance)
    project.run("training_examples", "more-a-00000")
    return project


REFUSED = (
    r"12 ids are those of several training examples \('doc1-0' of the shards 'docs-00001-00000' and 'more-a-00000'\)"
)


def test_methods_do_not_score_them(repeated: TinyProject) -> None:
    stored = StoredCheckpoint.read(repeated.lake, CHECKPOINTS[-1], repeated.settings.recipe)
    attributed = stored.load(repeated.opened.checkpoints, DeviceGroup.of("cpu")).model
    with pytest.raises(MismatchError, match=REFUSED):
        MethodInputs.load(repeated.opened, attributed, [QUERY_SET])


def test_no_model_is_retrained_on_them(repeated: TinyProject) -> None:
    with pytest.raises(MismatchError, match=REFUSED):
        SubsetRetraining(repeated.settings, repeated.lake).members("0")
