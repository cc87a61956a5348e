"""The demo's corpus: passages about Python from text that every CPython carries, with topics; no download."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, pairwise
from pathlib import Path

from lorif_assets.demo import language_reference, standard_library
from lorif_assets.demo.passages import Entry, RepetitionFilter, cut

_HELD_OUT_ONE_IN = 20


@dataclass(frozen=True)
class Passage:
    """A few paragraphs about one subject."""

    id: str
    """Unique and readable: where it comes from, its topic, and a running number in it, as in "topics/with/003"."""
    text: str
    topic: str
    """Topic of the language reference, or top-level module of the standard library."""
    title: str
    """Heading of the section, or qualified name of what the (first) docstring documents."""
    source: str
    """"language reference" or "standard library"."""


@dataclass(frozen=True)
class Corpus:
    """Passages in the order of their ids, split by a hash of the id."""

    train: tuple[Passage, ...]
    held_out: tuple[Passage, ...]

    @property
    def topics(self) -> frozenset[str]:
        """Topics that the training passages have."""
        return frozenset(passage.topic for passage in self.train)


def build_corpus() -> Corpus:
    """Build the corpus from this Python's own documentation; the same Python always gives the same corpus.

    Raises:
        SourceError: this Python was installed without its topics or its source files.
    """
    reference = language_reference.sections(language_reference.topics_of_this_python())
    library = standard_library.docstrings(standard_library.standard_library())
    return corpus_of(reference, library)


def corpus_of(reference: dict[str, list[list[Entry]]], library: dict[str, list[list[Entry]]]) -> Corpus:
    """Cut sections and docstrings into passages, drop repeated ones, and hold out about every twentieth.

    Args:
        reference: sections of the language reference by topic; earlier topics win where two say the same.
        library: docstrings of the standard library by module.
    """
    repetition = RepetitionFilter()
    passages = sorted(
        chain(
            _passages("topics", language_reference.SOURCE, reference, repetition),
            _passages("stdlib", standard_library.SOURCE, library, repetition),
        ),
        key=lambda passage: passage.id,
    )
    return Corpus(
        train=tuple(passage for passage in passages if not is_held_out(passage.id)),
        held_out=tuple(passage for passage in passages if is_held_out(passage.id)),
    )


def is_held_out(passage_id: str) -> bool:
    """Whether a passage stays out of training: about 5 % do, decided by the id alone."""
    return int.from_bytes(hashlib.sha256(passage_id.encode()).digest()[:8]) % _HELD_OUT_ONE_IN == 0


def write_passages(passages: Sequence[Passage], path: Path) -> Path:
    """Write passages to a Parquet file (columns id, text, topic, title, source); equal passages give equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = pa.schema([(name, pa.string()) for name in Passage.__dataclass_fields__])
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}")
    pq.write_table(pa.Table.from_pylist([asdict(passage) for passage in passages], schema=columns), unfinished)
    return unfinished.replace(path)


def write_shards(corpus: Corpus, directory: Path, shards: int = 8) -> list[Path]:
    """Write the training passages, in order, to `<directory>/00000.parquet` and so on, in near-equal shares."""
    n = len(corpus.train)
    bounds = [n * shard // shards for shard in range(shards + 1)]
    return [
        write_passages(corpus.train[start:end], directory / f"{shard:05d}.parquet")
        for shard, (start, end) in enumerate(pairwise(bounds))
    ]


def _passages(
    prefix: str, source: str, documents: dict[str, list[list[Entry]]], repetition: RepetitionFilter
) -> Iterator[Passage]:
    for topic, groups in documents.items():
        pieces = chain.from_iterable(map(cut, groups))
        new = (piece for piece in pieces if repetition.is_new(piece.text))
        for number, piece in enumerate(new, start=1):
            yield Passage(f"{prefix}/{topic}/{number:03d}", piece.text, topic, piece.title, source)
