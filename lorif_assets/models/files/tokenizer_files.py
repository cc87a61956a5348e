"""The files of a tokenizer: which ones a folder has, and which of them its tokens depend on."""

import json
from pathlib import Path
from typing import Any

from lorif_assets.models.files.chat_template_files import named_templates
from lorif_assets.models.files.gguf import gguf_files

TOKENIZER_CONFIG = "tokenizer_config.json"
_ADDED_TOKENS = "added_tokens.json"
SENTENCEPIECE_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "sentencepiece.model")
_OF_ONE_FAMILY = (
    "emoji.json",  # GPT-NeoX-Japanese
    "source.spm",  # Marian
    "target.spm",
    "target_vocab.json",
    "word_shape.json",  # RoCBert
    "word_pronunciation.json",
)
# Of classes of their own: ProphetNet's; Qwen's first, and Kimi's, whose code comes with the model.
_OWN_VOCABULARIES = ("prophetnet.tokenizer", "qwen.tiktoken", "tiktoken.model")
_WITHOUT_VOCABULARY = frozenset({"ByT5Tokenizer", "CanineTokenizer"})
"""Classes whose tokens are bytes or characters."""
TEKKEN = "tekken.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    *SENTENCEPIECE_FILES,
    "chat_template.jinja",
    *_OF_ONE_FAMILY,
    *_OWN_VOCABULARIES,
    _ADDED_TOKENS,
)
VOCABULARY_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", *SENTENCEPIECE_FILES, *_OWN_VOCABULARIES, TEKKEN)


def tokenizer_files(folder: Path) -> list[Path]:
    """Return the files of a folder's tokenizer and its chat templates; a GGUF file without one beside it brings its own."""
    if in_weights := gguf_tokenizer(folder):
        return [in_weights]
    there = [file for name in (*TOKENIZER_FILES, TEKKEN) if (file := folder / name).is_file()]
    names = {file.name for file in there}
    unread = {TEKKEN} if names & {*VOCABULARY_FILES} - {TEKKEN} else set[str]()
    if _ADDED_TOKENS in names and "added_tokens_decoder" in _settings(folder):
        # It has them all, and the file of an earlier transformers is passed over.
        unread.add(_ADDED_TOKENS)
    return [*(file for file in there if file.name not in unread), *named_templates(folder)]


def tokenizer_code(folder: Path) -> list[Path]:
    """Return the Python files of a folder whose tokenizer is of a class of its own, sorted; none for all others."""
    code = sorted(file for file in folder.glob("*.py") if file.is_file())
    classes = _settings(folder).get("auto_map", {}) if code else {}
    # A list is what transformers once wrote, of the tokenizer's classes alone.
    return code if isinstance(classes, list) or "AutoTokenizer" in classes else []


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer's vocabulary, be it in a GGUF file."""
    return has_vocabulary(folder) or gguf_tokenizer(folder) is not None


def has_vocabulary(folder: Path) -> bool:
    """Whether a folder holds a tokenizer's vocabulary in files of its own, and not in a GGUF file, or one that needs none."""
    if any(is_filled(folder / name) for name in VOCABULARY_FILES):
        return True
    kind = _settings(folder).get("tokenizer_class")
    return isinstance(kind, str) and kind in _WITHOUT_VOCABULARY


def gguf_tokenizer(folder: Path) -> Path | None:
    """Return the GGUF file whose tokenizer is a folder's; None where the tokenizer has files of its own, or there is none."""
    return None if has_vocabulary(folder) else next(iter(gguf_files(folder)), None)


def is_filled(file: Path) -> bool:
    """Whether a file is there and not empty."""
    return file.is_file() and file.stat().st_size > 0


def _settings(folder: Path) -> dict[str, Any]:
    try:
        settings = json.loads((folder / TOKENIZER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}
