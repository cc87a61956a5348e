"""The length of a model's inputs, told from configurations of many architectures."""

from typing import Any

import pytest
from transformers import (
    AutoConfig,
    BloomConfig,
    CTRLConfig,
    Gemma3Config,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MptConfig,
    PreTrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
    XLNetConfig,
)

from lorif_assets.models.files.context import context_length, tokenizer_length
from tests.data.conftest import make_tokenizer


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LlamaConfig(max_position_embeddings=4096), 4096),
        (GPT2Config(n_positions=1024), 1024),
        (CTRLConfig(n_positions=256), 256),
        (MptConfig(max_seq_len=2048), 2048),
        # Of a model of text and images, the text's.
        (Gemma3Config(text_config={"max_position_embeddings": 8192}), 8192),
        (Gemma3Config(text_config={"max_position_embeddings": 8192}, block_size=32), 8192),
        # In the configurations of models whose code comes with them.
        (PreTrainedConfig(n_ctx=512), 512),
        (PreTrainedConfig(seq_length=8192), 8192),
        (BloomConfig(seq_length=2048), 2048),
        # Positions begin behind that of padding.
        (RobertaConfig(max_position_embeddings=514), 512),
        (XLMRobertaConfig(max_position_embeddings=40, pad_token_id=3), 36),
        # No bound: -1, or nothing said.
        (XLNetConfig(), None),
        (MambaConfig(), None),
    ],
    ids=lambda value: getattr(value, "model_type", None) or str(value),
)
def test_the_context_is_read_under_the_name_that_the_architecture_has_for_it(
    config: PreTrainedConfig, expected: int | None
) -> None:
    assert context_length(config) == expected


@pytest.mark.parametrize(
    ("stated", "expected"), [(512, 512), (512.0, 512), (int(1e30), None), (1e20, None), (0, None), (-1, None)]
)
def test_a_tokenizers_length_counts_where_it_is_one(stated: Any, expected: int | None) -> None:
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = stated
    assert tokenizer_length(tokenizer) == expected


def test_a_configuration_that_is_read_back_has_the_same_context(tmp_path: Any) -> None:
    GPT2Config(n_positions=77).save_pretrained(tmp_path)
    assert context_length(AutoConfig.from_pretrained(tmp_path)) == 77
