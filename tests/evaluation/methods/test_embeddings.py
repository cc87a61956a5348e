"""The method `embeddings`: a text encoder as it is, beside methods that look at the model."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.attribution.stored.checkpoint_record import checkpoint_record
from lorif_assets.config.methods import MethodName
from lorif_assets.demo.encoder import DemoEncoderConfig, make_encoder
from lorif_assets.errors import SettingsError
from lorif_assets.evaluation.methods.embeddings import embedding_scores
from lorif_assets.evaluation.methods.evaluated_scores import method_versions
from lorif_assets.evaluation.methods.inputs import MethodInputs
from lorif_assets.influcoder.encoder import TextEncoder
from lorif_assets.influcoder.sampling import Role
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.models.devices import DeviceGroup
from tests.conftest import CHECKPOINTS, QUERY_SET

NEWEST = CHECKPOINTS[-1]


@pytest.fixture
def project(tiny_project):
    texts = tiny_project.lake.read(TRAINING_EXAMPLES)["text"].drop_nulls().to_list()
    checkpoints = tiny_project.opened.checkpoints
    tokenizer = checkpoints.load_tokenizer(checkpoints.get(NEWEST))
    make_encoder(texts, tokenizer, tiny_project.root / "encoder", DemoEncoderConfig(width=8))
    return with_encoder(tiny_project, "encoder")


def with_encoder(project, name):
    return project.with_settings(evaluation={"methods": ["lorif", "bm25", "embeddings"], "text_encoder": name})


def inputs_of(project):
    stored = StoredCheckpoint.read(project.lake, NEWEST, project.settings.recipe)
    attributed = stored.load(project.opened.checkpoints, DeviceGroup.of("cpu")).model
    return MethodInputs.load(project.opened, attributed, [QUERY_SET])


def test_scores_are_cosines_of_the_texts_embeddings(project):
    inputs = inputs_of(project)
    (scored,) = embedding_scores(inputs).values()
    encoder = TextEncoder.load(project.root / "encoder", 512, torch.device("cpu"))
    examples, queries = (encoder.embed(texts, Role.POOL) for texts in (inputs.examples.texts, inputs.queries.texts))
    np.testing.assert_allclose(scored.scores, (queries @ examples.mT).numpy(), rtol=1e-5)
    assert scored.bytes_per_example == 8 * 4


def test_another_encoder_makes_its_scores_stale_and_no_others(project):
    record = checkpoint_record(project.lake, NEWEST, project.settings.recipe)
    now, then = (
        method_versions(one.opened, record, QUERY_SET) for one in (project, with_encoder(project, "another/encoder"))
    )
    assert {name for name in now if now[name] != then[name]} == {MethodName.EMBEDDINGS}


def test_other_files_in_the_encoder_s_folder_do_so_too(project):
    record = checkpoint_record(project.lake, NEWEST, project.settings.recipe)
    then = method_versions(project.opened, record, QUERY_SET)
    assert method_versions(project.opened, record, QUERY_SET) == then
    (weights,) = (project.root / "encoder").rglob("*.safetensors")
    weights.write_bytes(bytes([*weights.read_bytes()[:-1], 7]))
    now = method_versions(project.opened, record, QUERY_SET)
    assert {name for name in now if now[name] != then[name]} == {MethodName.EMBEDDINGS}


def test_without_an_encoder_the_settings_are_refused(tiny_project):
    with pytest.raises(ValidationError, match=r"`embeddings` needs an encoder: set `text_encoder`"):
        with_encoder(tiny_project, None)


def test_an_encoder_that_is_not_there_is_named_with_its_setting(project, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    missing = with_encoder(project, str(project.root / "nowhere"))
    with pytest.raises(SettingsError, match=r"`evaluation\.text_encoder` names '.*nowhere'"):
        embedding_scores(inputs_of(missing))
