"""Encoders on the hub: another commit is another encoder where the files that are loaded differ, and only they are fetched."""

from pathlib import Path

import pytest

from lorif_assets.config.influcoder import InflucoderSettings
from lorif_assets.config.settings import Settings
from lorif_assets.errors import SettingsError
from lorif_assets.influcoder.encoder_places import encoder_folder, encoder_in_words
from lorif_assets.influcoder.stored import encoder_base_version
from tests.hub_stand_in import HubStandIn

FILES = {
    "modules.json": b"[]",
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "model.safetensors": b"weights",
    "1_Pooling/config.json": b"{}",
    "2_Dense/pytorch_model.bin": b"more weights",
    "pytorch_model.bin": b"the same weights, pickled",
    "onnx/model.onnx": b"the same weights",
    "onnx/config.json": b"{}",
    "README.md": b"# Encoder",
}
LOADED = {name for name in FILES if not name.startswith(("onnx", "README", "pytorch"))}


def named(encoder: str, base: Path = Path("/nowhere")) -> Settings:
    return Settings(influcoder=InflucoderSettings(encoder=encoder), base=base)


def fetched(settings: Settings) -> Path:
    return encoder_folder(settings, settings.influcoder.encoder, "influcoder.encoder")


def test_other_weights_at_the_name_are_another_version_and_another_description_is_not(hub: HubStandIn) -> None:
    first = hub.model("org/encoder").commit(FILES)
    before = encoder_base_version(named("org/encoder"))
    assert before is not None
    assert "model.safetensors" not in hub.downloads(), "a look needs no weights"
    hub.model("org/encoder").commit({**FILES, "README.md": b"# The encoder", "onnx/model.onnx": b"again"})
    assert encoder_base_version(named("org/encoder")) == before
    hub.model("org/encoder").commit({**FILES, "model.safetensors": b"others!"})
    assert encoder_base_version(named("org/encoder")) != before
    assert encoder_base_version(named(f"hf://org/encoder@{first}")) == before


def test_what_is_loaded_is_fetched_from_the_commit_that_the_version_is_of(hub: HubStandIn) -> None:
    commit = hub.model("org/encoder").commit(FILES)
    hub.model("org/encoder").commit({**FILES, "model.safetensors": b"others!"})
    folder = fetched(named(f"org/encoder@{commit}"))
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there >= LOADED
    assert not there & {"onnx/model.onnx", "pytorch_model.bin"}
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert (fetched(named("org/encoder")) / "model.safetensors").read_bytes() == b"others!"


def test_a_folder_comes_first_and_what_is_neither_is_named(hub: HubStandIn, tmp_path: Path) -> None:
    (tmp_path / "org/encoder").mkdir(parents=True)
    assert fetched(named("org/encoder", tmp_path)) == tmp_path / "org/encoder"
    assert not hub.requests
    with pytest.raises(
        SettingsError, match=r"`influcoder.encoder` names 'org/none', and there is no folder .*org/none"
    ):
        fetched(named("org/none", tmp_path))
    with pytest.raises(SettingsError, match=r"`influcoder.encoder` names 'org/none'"):
        encoder_in_words(named("org/none", tmp_path), "org/none", "influcoder.encoder")
    assert encoder_base_version(named("org/none", tmp_path)) is None


def test_that_another_encoder_may_come_to_be_at_a_name_is_said(hub: HubStandIn) -> None:
    commit = hub.model("org/encoder").commit(FILES)
    pinned = f"org/encoder@{commit}"
    assert encoder_in_words(named(pinned), pinned, "influcoder.encoder") == f"hf://{pinned}"
    assert "which may move" in encoder_in_words(named("org/encoder"), "org/encoder", "influcoder.encoder")


def test_without_the_hub_the_version_is_that_of_the_commit_that_was_seen_last(
    hub: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.model("org/encoder").commit(FILES)
    seen = encoder_base_version(named("org/encoder"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert encoder_base_version(named("org/encoder")) == seen
