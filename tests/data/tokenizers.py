"""Small tokenizers in the ways of the well-known families, trained on a few lines."""

from collections.abc import Callable, Mapping

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

LINES = ["the answer is Paris", "the capital of France is Paris", "hello world, how are you", "a world of answers"] * 4
SPECIAL = ["<unk>", "<s>", "</s>", "[CLS]", "[SEP]"]


def _fast(backend: Tokenizer, trainer: object) -> PreTrainedTokenizerFast:
    backend.train_from_iterator(LINES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def _around(template: str) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(single=template, special_tokens=[(t, SPECIAL.index(t)) for t in SPECIAL])


def _bpe(vocab_size: int, alphabet: list[str] | None = None) -> trainers.BpeTrainer:
    return trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL, initial_alphabet=alphabet or [], show_progress=False
    )


def unigram() -> PreTrainedTokenizerFast:
    """As T5's and XLNet's SentencePiece models: Unigram behind a dummy space."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=100, special_tokens=SPECIAL, unk_token="<unk>", max_piece_length=8, show_progress=False
    )
    return _fast(backend, trainer)


def metaspace_bpe() -> PreTrainedTokenizerFast:
    """As Mistral's: BPE over words that begin with a space, the first one too, and BOS in front."""
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder, backend.post_processor = decoders.Metaspace(), _around("<s> $A")
    return _fast(backend, _bpe(90))


def llama(template: str = "<s> $A") -> PreTrainedTokenizerFast:
    """As Llama 2's: BPE over whole texts, a dummy space put in front of each, bytes for what is unknown."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(content=" ", left=1)]
    )
    backend.post_processor = _around(template)
    return _fast(backend, _bpe(90))


def word_piece() -> PreTrainedTokenizerFast:
    """As BERT's: words in small letters, white space in no token, special tokens on both sides."""
    backend = Tokenizer(models.WordPiece(unk_token="<unk>"))
    backend.normalizer, backend.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    backend.decoder, backend.post_processor = decoders.WordPiece(), _around("[CLS] $A [SEP]")
    return _fast(backend, trainers.WordPieceTrainer(vocab_size=110, special_tokens=SPECIAL, show_progress=False))


def byte_level(*, trim_offsets: bool = False) -> PreTrainedTokenizerFast:
    """As GPT-2's; or, with `trim_offsets`, as Pythia's, which says that a token begins behind its space."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    return _fast(backend, _bpe(320, pre_tokenizers.ByteLevel.alphabet()))


class SlowTokenizer(PreTrainedTokenizer):
    """Words of a list, the longest first, else single characters; written in Python, so that it knows no places."""

    vocabulary: Mapping[str, int] = {
        piece: k for k, piece in enumerate(["<unk>", "<s>", "</s>", "hello", " world", *map(chr, range(32, 127))])
    }

    def __init__(self) -> None:
        super().__init__(bos_token="<s>", eos_token="</s>", unk_token="<unk>")

    @property
    def vocab_size(self) -> int:
        return len(self.vocabulary)

    def get_vocab(self) -> dict[str, int]:
        return dict(self.vocabulary)

    def _tokenize(self, text: str, **_: object) -> list[str]:
        pieces = []
        while text:
            piece = next((word for word in ("hello", " world") if text.startswith(word)), text[0])
            pieces.append(piece)
            text = text[len(piece) :]
        return pieces

    def _convert_token_to_id(self, token: str) -> int:
        return self.vocabulary.get(token, 0)

    def _convert_id_to_token(self, index: int) -> str:
        return list(self.vocabulary)[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return "".join(tokens)


FAMILIES: Mapping[str, Callable[[], PreTrainedTokenizerFast]] = {
    "unigram": unigram,
    "metaspace": metaspace_bpe,
    "llama": llama,
    "word pieces": word_piece,
    "bytes": byte_level,
    "bytes, trimmed": lambda: byte_level(trim_offsets=True),
}
