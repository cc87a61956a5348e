"""Kinds of checkpoints beside plain language models: those that see, encoders, and tokenizers of other forms."""

import json
import sys
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    Gemma3Config,
    LlavaConfig,
    MixtralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    RobertaConfig,
)

from lorif_assets.attribution.forecast.trial import try_architecture
from lorif_assets.attribution.recipes.recipe_on_model import longest_input
from lorif_assets.config.recipe import Recipe
from lorif_assets.errors import CheckpointError
from lorif_assets.mathematics.gradients.collector import GradientCollector, TokenBatch
from lorif_assets.mathematics.gradients.layers import LayerError, select_layers
from lorif_assets.mathematics.gradients.projection import Projection, layer_projection
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.models.loading import tokenizer as loading
from lorif_assets.models.loading.small_copy import small_copy
from tests.conftest import tiny_tokenizer, write_checkpoint
from tests.data.conftest import make_tokenizer

_TEXT: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_SIGHT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
}


def _gemma3() -> PreTrainedConfig:
    return Gemma3Config(
        text_config=_TEXT, vision_config={**_SIGHT, "patch_size": 14}, mm_tokens_per_image=4, image_token_index=63
    )


def _llava() -> PreTrainedConfig:
    return LlavaConfig(
        text_config={**_TEXT, "model_type": "llama"},
        vision_config={**_SIGHT, "patch_size": 14, "model_type": "clip_vision_model", "projection_dim": 32},
        image_token_index=63,
    )


def _qwen25_vl() -> PreTrainedConfig:
    sight = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "out_hidden_size": 32}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    return Qwen2_5_VLConfig(
        text_config={**_TEXT, "rope_parameters": rope},
        vision_config={**sight, "fullatt_block_indexes": [1]},
        image_token_id=63,
        video_token_id=62,
        vision_start_token_id=61,
        vision_end_token_id=60,
    )


def _saved(config: PreTrainedConfig, folder: Path, auto: Any = AutoModelForImageTextToText) -> CheckpointFiles:
    torch.manual_seed(0)
    auto.from_config(config).save_pretrained(folder)
    return CheckpointFiles(folder.name, folder, None)


@pytest.mark.parametrize("config", [_gemma3, _llava, _qwen25_vl], ids=lambda make: make.__name__.strip("_"))
def test_of_a_model_that_sees_the_language_model_is_tracked(config: Any, tmp_path: Path) -> None:
    files, checkpoints = _saved(config(), tmp_path / "ck"), Checkpoints(path=str(tmp_path))
    model: PreTrainedModel = checkpoints.load_model(files, "float32", DeviceGroup.of("cpu"))
    layers = select_layers(model)
    assert layers == select_layers(checkpoints.skeleton(files))
    assert len(layers) == 14
    assert all("language_model.layers." in layer.name for layer in layers)
    assert longest_input(model, make_tokenizer(), Recipe()) == 40
    ids = torch.arange(3, 15).view(2, 6)
    batch = TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool), ids)
    with GradientCollector(
        model, [layer_projection(layer, Projection(factor=2, seed=0)) for layer in layers]
    ) as collector:
        assert all(bool(gradient.any()) for gradient in collector.collect(batch).gradients.values())
    small = checkpoints.small_copy(files)
    assert small is not None
    assert try_architecture(small, layers)


def test_positions_of_the_family_of_roberta_begin_behind_that_of_padding() -> None:
    config = RobertaConfig(**{**_TEXT, "pad_token_id": 1}, is_decoder=True)
    model = AutoModelForCausalLM.from_config(config)
    longest = longest_input(model, make_tokenizer(), Recipe())
    assert longest == 38
    model(input_ids=torch.full((1, longest), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, longest + 1), 5))


def test_what_was_computed_with_other_positions_is_out_of_date_and_nothing_else(tmp_path: Path) -> None:
    files = CheckpointFiles("ck", tmp_path, None)

    def is_hash_of_the_bytes(family: str) -> bool:
        config = json.dumps({"model_type": family}).encode()
        (tmp_path / "config.json").write_bytes(config)
        plain = blake2b(f"|config.json|{len(config)}|".encode() + config, digest_size=16)
        state = [("config.json", len(config), (tmp_path / "config.json").stat().st_mtime_ns)]
        is_plain = files.listing_version() == blake2b(repr(state).encode(), digest_size=16).hexdigest()
        assert is_plain == (files.weights_hash() == plain.hexdigest())
        return is_plain

    assert is_hash_of_the_bytes("llama")
    assert is_hash_of_the_bytes("bert")
    assert not is_hash_of_the_bytes("camembert")
    assert not is_hash_of_the_bytes("xlm-roberta")


def test_a_large_configuration_is_tried_on_a_cut_copy() -> None:
    large = MixtralConfig(hidden_size=512, intermediate_size=1024, num_attention_heads=8, num_local_experts=64)
    small = small_copy(large, trust_remote_code=False)
    assert small is not None
    assert not small.is_whole
    assert small.model.num_parameters() < 300_000_000
    assert try_architecture(small, select_layers(small.model))


def test_an_encoder_is_found_by_a_trial_of_its_configuration_alone() -> None:
    small = small_copy(RobertaConfig(**_TEXT), trust_remote_code=False)
    assert small is not None
    with pytest.raises(LayerError, match="RobertaForCausalLM is no causal language model"):
        try_architecture(small, select_layers(small.model))


_LINES = "\n".join(f"the quick brown fox number {i} opens a file and closes it" for i in range(300))


def _with_sentencepiece(folder: Path, **options: Any) -> Any:
    sentencepiece = pytest.importorskip("sentencepiece")
    folder.mkdir()
    (folder / "text.txt").write_text(_LINES)
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=90,
        minloglevel=2,
        **{"model_type": "bpe", **options},
    )
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 90}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


def test_a_sentencepiece_vocabulary_alone_is_read_with_the_extra(tmp_path: Path) -> None:
    processor = _with_sentencepiece(tmp_path / "ck")
    files = CheckpointFiles("ck", tmp_path / "ck", None)
    assert files.has_sentencepiece_alone
    tokenizer = Checkpoints(path=str(tmp_path)).load_tokenizer(files)
    text = "the quick brown fox closes a file"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text
    assert len(tokenizer) == processor.get_piece_size()


@pytest.mark.parametrize("options", [{}, {"add_dummy_prefix": False}])
def test_a_sentencepiece_file_that_nothing_describes_is_read_as_its_library_reads_it(
    tmp_path: Path, options: dict[str, bool]
) -> None:
    processor = _with_sentencepiece(tmp_path / "ck", **options)
    (tmp_path / "ck/tokenizer_config.json").unlink()
    tokenizer = Checkpoints(path=str(tmp_path)).load_tokenizer(CheckpointFiles("ck", tmp_path / "ck", None))
    for text in ("the quick brown fox closes a file", "number 17"):
        assert tokenizer(text, add_special_tokens=False).input_ids == processor.encode(text)


def test_a_sentencepiece_file_whose_pieces_a_family_numbers_otherwise_is_read(tmp_path: Path) -> None:
    processor = _with_sentencepiece(tmp_path / "ck", model_type="unigram")
    (tmp_path / "ck/tokenizer_config.json").unlink()
    (tmp_path / "ck/tokenizer.model").rename(tmp_path / "ck/sentencepiece.bpe.model")
    (tmp_path / "ck/config.json").write_text(json.dumps({"model_type": "camembert"}))
    tokenizer = Checkpoints(path=str(tmp_path)).load_tokenizer(CheckpointFiles("ck", tmp_path / "ck", None))
    text = "the quick brown fox closes a file"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert ids != processor.encode(text)
    assert tokenizer.convert_ids_to_tokens(ids) == processor.encode(text, out_type=str)


def test_a_vocabulary_of_another_kind_under_that_name_asks_for_no_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_sentencepiece(tmp_path / "ck")
    (tmp_path / "ck/tokenizer_config.json").unlink()
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    monkeypatch.setattr(
        "transformers.AutoTokenizer.from_pretrained", lambda *_args, **_options: "as transformers read it"
    )
    found = Checkpoints(path=str(tmp_path)).load_tokenizer(CheckpointFiles("ck", tmp_path / "ck", None))
    assert found == "as transformers read it"


def test_a_sentencepiece_file_that_transformers_reads_otherwise_is_refused(tmp_path: Path) -> None:
    _with_sentencepiece(tmp_path / "ck", model_type="unigram")
    (tmp_path / "ck/tokenizer_config.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"tokenizer\.model is read by transformers in another way than by SentencePiece itself"
    ):
        Checkpoints(path=str(tmp_path)).load_tokenizer(CheckpointFiles("ck", tmp_path / "ck", None))


@pytest.mark.parametrize("has_library", [False, True])
def test_without_the_extra_a_sentencepiece_vocabulary_alone_says_which_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_library: bool
) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda name: object() if has_library else None)
    (tmp_path / "tokenizer.model").write_bytes(b"no such vocabulary")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(CheckpointError) as raised:
        Checkpoints(path=str(tmp_path)).load_tokenizer(CheckpointFiles("ck", tmp_path, None))
    assert ("pip install 'lorif-assets[sentencepiece]'" in str(raised.value)) is not has_library


# --- Heads for another task ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "architecture",
    [
        "GPT2ForSequenceClassification",
        "LlamaForTokenClassification",
        "Qwen2ForQuestionAnswering",
        "Qwen2ForProcessRewardModel",
        "XLNetForMultipleChoice",
    ],
)
def test_a_model_with_a_head_for_another_task_is_refused_before_it_is_loaded(tmp_path: Path, architecture: str) -> None:
    """With tied embeddings it would be attributed by a head that nobody trained."""
    write_checkpoint(tmp_path / "reward", tiny_tokenizer(), seed=0)
    described = tmp_path / "reward/config.json"
    checkpoints = Checkpoints(path=str(tmp_path))
    (files,) = checkpoints.find()
    assert checkpoints.skeleton(files)
    described.write_text(json.dumps({**json.loads(described.read_text()), "architectures": [architecture]}))
    with pytest.raises(CheckpointError, match=f"reward is a {architecture}, which gives labels or a score"):
        checkpoints.skeleton(files)
