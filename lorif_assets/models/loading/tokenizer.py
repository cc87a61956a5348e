"""A checkpoint's tokenizer as transformers loads it; of a SentencePiece file alone, as its own library reads that."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lorif_assets.config.limits import CheckpointLimits
from lorif_assets.errors import CheckpointError
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.models.files.descriptions import refuse_growing_texts, refuse_large, refused_in_words
from lorif_assets.models.files.gguf import named_file
from lorif_assets.models.files.tokenizer_files import (
    SENTENCEPIECE_FILES,
    TOKENIZER_CONFIG,
    TOKENIZER_FILES,
    gguf_tokenizer,
    is_filled,
)

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor
    from transformers import PreTrainedTokenizerBase

_LIBRARY = "sentencepiece"
_PIECES_READ = 400


def load_tokenizer(
    files: CheckpointFiles, limits: CheckpointLimits, *, trust_remote_code: bool
) -> "PreTrainedTokenizerBase":
    """Return a checkpoint's tokenizer.

    Args:
        files: the checkpoint.
        limits: of its files.
        trust_remote_code: whether to run Python code that it carries.

    Raises:
        CheckpointError: transformers cannot load it, reads it otherwise than its library, or it is beyond the limits.
    """
    from transformers import AutoTokenizer

    folder = files.tokenizer_folder
    refuse_large(files.tokenizer_files, limits)
    try:
        with refused_in_words(f"transformers cannot load the tokenizer of {files.path}"):
            refuse_growing_texts(folder / TOKENIZER_FILES[0], limits)
            tokenizer = AutoTokenizer.from_pretrained(
                folder,
                trust_remote_code=trust_remote_code,
                local_files_only=True,
                **named_file(gguf_tokenizer(folder)),
            )
    except CheckpointError as error:
        # Without the library, transformers takes the file for another kind and asks for another library.
        advice = (
            "; its vocabulary is a SentencePiece file alone, which takes the extra `sentencepiece` to read: "
            "`pip install 'lorif-assets[sentencepiece]'`"
            if files.has_sentencepiece_alone and find_spec(_LIBRARY) is None
            else ""
        )
        raise CheckpointError(f"{error}{advice}") from error
    # Without its library, the file was one of another kind: Meta calls those of tiktoken so too.
    is_undescribed = files.has_sentencepiece_alone and not is_filled(folder / TOKENIZER_CONFIG)
    return _as_its_library_reads(tokenizer, folder) if is_undescribed and find_spec(_LIBRARY) else tokenizer


def _as_its_library_reads(tokenizer: "PreTrainedTokenizerBase", folder: Path) -> "PreTrainedTokenizerBase":
    """Return the tokenizer of a SentencePiece file that gives the same tokens as SentencePiece does.

    Nothing beside the file says which class reads it, and transformers' choice may leave out the space before a text.

    Raises:
        CheckpointError: none does.
    """
    from sentencepiece import SentencePieceProcessor
    from transformers import LlamaTokenizer

    file = next(file for name in SENTENCEPIECE_FILES if (file := folder / name).is_file())
    try:
        processor = SentencePieceProcessor(model_file=str(file))
    except RuntimeError:
        # It is a file of another kind.
        return tokenizer
    text = _text_of(processor)
    expected = processor.encode(text, out_type=str)

    def agrees(found: "PreTrainedTokenizerBase") -> bool:
        # Some families number the same pieces otherwise.
        ids = found(text, add_special_tokens=False)["input_ids"]
        return bool(found.convert_ids_to_tokens(ids) == expected)

    if agrees(tokenizer):
        return tokenizer
    with refused_in_words(f"transformers cannot load the tokenizer {file}"):
        of_llama = LlamaTokenizer.from_pretrained(folder, local_files_only=True)
    if agrees(of_llama):
        return of_llama
    raise CheckpointError(
        f"{file} is read by transformers in another way than by SentencePiece itself, as no {TOKENIZER_CONFIG} says which "
        "class reads it: put that of the model beside it, or load the tokenizer where it is right and save it again: "
        f"`tokenizer.save_pretrained({str(folder)!r})`"
    )


def _text_of(processor: "SentencePieceProcessor") -> str:
    """Return a text of pieces of the vocabulary, so that no character of it is unknown."""
    asked = (processor.is_control, processor.is_unknown, processor.is_byte, processor.is_unused)
    pieces = [piece for piece in range(len(processor)) if not any(is_one(piece) for is_one in asked)]
    text: str = processor.decode(pieces[:_PIECES_READ])
    return text
