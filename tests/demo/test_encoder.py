"""The demo's encoder: small, loadable, and the same from the same seed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from lorif_assets.demo.encoder import DemoEncoderConfig, make_encoder
from lorif_assets.demo.tokenizer import train_tokenizer
from lorif_assets.errors import SettingsError
from lorif_assets.influcoder.encoder import TextEncoder
from lorif_assets.influcoder.sampling import Role

TEXTS = ["a lambda makes a function", "the with statement opens a file", "a file is closed", "slices copy lists"] * 5
CONFIG = DemoEncoderConfig(width=16)
CPU = torch.device("cpu")


def _tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, vocab_size=300, max_length=32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_encoder(TEXTS, _tokenizer(), tmp_path / "encoder", CONFIG)
    return tmp_path / "encoder"


def test_it_embeds_texts_at_unit_norm_whatever_shares_their_batch(folder: Path) -> None:
    encoder = TextEncoder.load(folder, 16, CPU)
    together = encoder.embed(TEXTS[:4], Role.POOL)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(together[1:2], encoder.embed(TEXTS[1:2], Role.POOL), atol=1e-5, rtol=1e-4)
    assert encoder.width == 16


def test_a_seed_gives_the_same_weights(folder: Path, tmp_path: Path) -> None:
    make_encoder(TEXTS, _tokenizer(), tmp_path / "again", CONFIG)
    hashes = {TextEncoder.load(path, 16, CPU).content_hash() for path in (folder, tmp_path / "again")}
    assert len(hashes) == 1


def test_texts_with_words_in_common_are_alike_and_others_are_not(folder: Path) -> None:
    about_files, closing, about_lists = (
        TextEncoder.load(folder, 16, CPU).embed([text], Role.POOL)[0] for text in TEXTS[1:4]
    )
    assert float(about_files @ closing) > float(about_files @ about_lists) + 0.05


def test_a_long_text_is_cut(folder: Path) -> None:
    encoder = TextEncoder.load(folder, 8, CPU)
    long = " ".join(TEXTS[:2] * 9)
    torch.testing.assert_close(encoder.embed([long], Role.POOL), encoder.embed([long + TEXTS[3]], Role.POOL))


def test_an_archive_brings_the_same_encoder_back(folder: Path) -> None:
    encoder = TextEncoder.load(folder, 16, CPU)
    restored = TextEncoder.from_archive(encoder.archive(), 16, CPU)
    assert restored.content_hash() == encoder.content_hash()
    torch.testing.assert_close(restored.embed(TEXTS[:2], Role.POOL), encoder.embed(TEXTS[:2], Role.POOL))


def test_heads_change_nothing_until_they_are_trained_and_then_tell_queries_from_examples(folder: Path) -> None:
    bare = TextEncoder.load(folder, 16, CPU)
    plain = bare.embed(TEXTS[:2], Role.POOL)
    encoder = TextEncoder.load(folder, 16, CPU).with_heads(True)
    for role in Role:
        torch.testing.assert_close(encoder.embed(TEXTS[:2], role), plain)
    assert len(encoder.parameters) == len(bare.parameters) + 2
    assert encoder.content_hash() != bare.content_hash()
    torch.manual_seed(0)
    with torch.no_grad():
        for weights in encoder.parameters[-2:]:
            weights.add_(torch.randn(16, 16))
    restored = TextEncoder.from_archive(encoder.archive(), 16, CPU)
    found = {role: restored.embed(TEXTS[:2], role) for role in Role}
    for role, embedded in found.items():
        torch.testing.assert_close(embedded, encoder.embed(TEXTS[:2], role))
    assert not torch.allclose(found[Role.ANCHOR], found[Role.POOL], atol=0.1)
    torch.testing.assert_close(restored.with_heads(False).embed(TEXTS[:2], Role.ANCHOR), plain)


def test_what_is_no_encoder_is_refused_with_its_name(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SettingsError, match=r"`influcoder.encoder` names .*nothing"):
        TextEncoder.load(tmp_path / "nothing", 16, CPU)
