"""What is in sources and query files, by a look at some of their rows: what attribution would refuse, set aside or cut.

The functions are those that attribution reads with. No weights are loaded, only a checkpoint's tokenizer.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from lorif_assets.attribution.recipes.recipe_on_model import longest_input
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.sources import Columns
from lorif_assets.data.content.columns import usual_ids
from lorif_assets.data.content.query_objectives import ScalarRules
from lorif_assets.data.examples import require_usable, sort_out
from lorif_assets.data.formats.reader import RawShard
from lorif_assets.data.preview import first_queries, sampled_rows
from lorif_assets.data.query_files import query_source
from lorif_assets.data.rows.rejection_reasons import count_reasons, in_words
from lorif_assets.data.rows.row_ids import naming_column
from lorif_assets.data.tokens.rules import TokenRules
from lorif_assets.data.tokens.truncation import LENGTH_IN_WORDS
from lorif_assets.errors import LorifError, SourceError
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.models.loading.vocabulary import check_vocabulary, vocabulary_size
from lorif_assets.project import Project

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lorif_assets.data.tokens.tokenization import TokenizedShard

SAMPLE_ROWS = 1_000
"""Rows of a source or query set that are looked at."""


@dataclass(frozen=True)
class Finding:
    """Something about a source or query set, with what to do; a fault stops attribution, anything else is good to know."""

    what: str
    text: str
    is_fault: bool
    n_examples: int | None = None
    """Of a source, about how many examples it has, where that is not its number of rows."""


@dataclass(frozen=True)
class ExampleReader:
    """What reads examples for one checkpoint."""

    checkpoint: str
    tokenizer: "PreTrainedTokenizerBase"
    max_length: int
    vocabulary: int
    recipe: Recipe
    notice: str | None = None
    """What a person should know of the tokenizer beside its model."""

    @classmethod
    def of(cls, project: Project, files: CheckpointFiles) -> "ExampleReader":
        """Return that of a checkpoint.

        Raises:
            CheckpointError: it has no tokenizer that can be loaded.
        """
        recipe = project.settings.recipe
        skeleton, tokenizer = project.checkpoints.skeleton(files), project.checkpoints.load_tokenizer(files)
        notice = check_vocabulary(files, skeleton, tokenizer)
        longest = longest_input(skeleton, tokenizer, recipe)
        return cls(files.name, tokenizer, longest, vocabulary_size(skeleton), recipe, notice)

    def rules(self, *, are_queries: bool) -> TokenRules:
        """Return how queries or training examples become tokens."""
        return TokenRules.of_queries(self.recipe) if are_queries else TokenRules.of_examples(self.recipe)

    def read(self, rows: pa.Table, *, are_queries: bool = False) -> "TokenizedShard":
        """Return examples or queries as token ids and labels; those that cannot be are listed with the reason."""
        from lorif_assets.data.tokens.query_terms import tokenized_with_objectives
        from lorif_assets.data.tokens.tokenization import tokenize

        rules = self.rules(are_queries=are_queries)

        def by_content(some: pa.Table) -> "TokenizedShard":
            return tokenize(some, self.tokenizer, self.max_length, self.vocabulary, rules=rules)

        if not are_queries:
            return by_content(rows)
        return tokenized_with_objectives(rows, "example_id", self.tokenizer, by_content)


@dataclass
class _Sample:
    """What was found in some rows: how many, the reasons of the rejected ones, before and by the tokenizer."""

    scalar_rules: ScalarRules | None = None
    """Of queries; None: they are training examples."""
    n_rows: int = 0
    n_source_rows: float = 0.0
    """About how many rows of the source these are, or were packed in."""
    unreadable: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    first_place: str = ""
    n_cut: int = 0
    notices: Counter[str] = field(default_factory=Counter)
    ids: set[str | None] = field(default_factory=set)
    """Of each shard, the column that could name its rows, which are named by their place."""
    faults: dict[str, None] = field(default_factory=dict)

    def add(self, shard: str, raw: RawShard, columns: Columns, reader: ExampleReader | None, *, is_whole: bool) -> None:
        """Read the rows of a shard, of which these are all or the first."""
        n_rows = len(raw.rows) + len(raw.malformed)
        self.n_rows += n_rows
        self.n_source_rows += n_rows / raw.sequences_in_a_row
        self.ids.add(_unused_id(raw, columns))
        try:
            read = sort_out(raw, columns, shard, self.scalar_rules)
            self.unreadable += read.rejected["reason"].to_pylist()
            self._note_place(raw, read.rejected)
            if is_whole:
                require_usable(raw, read)
            if reader is None or not read.examples.num_rows:
                return
            tokenized = reader.read(read.examples, are_queries=self.scalar_rules is not None)
        except LorifError as error:
            self.faults[str(error)] = None
            return
        reasons = tokenized.rejected["reason"].to_pylist()
        self.unusable += reasons
        self._note_place(raw, tokenized.rejected)
        self.n_cut += tokenized.n_truncated
        self.notices += tokenized.notices
        if is_whole and not tokenized.examples:
            self.faults[
                f"no example of {raw.origin} can be used with the tokenizer of {reader.checkpoint!r}: "
                f"{in_words(count_reasons(reasons))}"
            ] = None

    def _note_place(self, raw: RawShard, rejected: pa.Table) -> None:
        if rejected.num_rows and not self.first_place:
            self.first_place = raw.place(rejected["row"][0].as_py())


def content_findings(
    project: Project, reader: ExampleReader | None, rows: Mapping[str, int], query_sets: Iterable[str]
) -> Iterator[Finding]:
    """Yield what is found in every source and query set.

    Args:
        project: whose they are.
        reader: of the checkpoint whose tokenizer reads them; None where there is none yet.
        rows: of each source that can be listed.
        query_sets: those to look at.
    """
    yield from _source_findings(project, reader, rows)
    for query_set in query_sets:
        yield from _query_findings(project, reader, query_set)


def _source_findings(project: Project, reader: ExampleReader | None, rows: Mapping[str, int]) -> Iterator[Finding]:
    settings, max_share = project.settings, project.settings.data.max_rejected_share
    unusable, expected, total = [], 0.0, 0.0
    for source in settings.sources:
        if source.name not in rows:
            continue
        sample, what = _Sample(), f"source {source.name}"
        try:
            for piece, raw in sampled_rows(source, settings.base, SAMPLE_ROWS):
                is_whole = len(raw.rows) + len(raw.malformed) == (len(raw.parts) or piece.rows)
                sample.add(piece.shard, raw, source.columns, reader, is_whole=is_whole)
        except SourceError as error:
            sample.faults[str(error)] = None
        yield from _findings(what, f"lorif preview --source {source.name}", sample, reader, max_share)
        unusable += sample.unusable
        share_of_source = rows[source.name] / max(sample.n_source_rows, 1)
        if sample.n_rows > sample.n_source_rows:
            n_examples = round(sample.n_rows * share_of_source)
            words = f"its rows hold several examples each, about {n_examples:,} in all"
            yield Finding(what, words, is_fault=False, n_examples=n_examples)
        expected += len(sample.unusable) * share_of_source
        total += (sample.n_rows - len(sample.unreadable)) * share_of_source
    if reader and expected > max_share * total:
        yield _too_many(
            "training examples",
            f"about {round(expected):,} of {round(total):,} at {reader.checkpoint!r}",
            unusable,
            max_share,
            "lorif preview",
        )


def _query_findings(project: Project, reader: ExampleReader | None, query_set: str) -> Iterator[Finding]:
    settings, max_share = project.settings, project.settings.data.max_rejected_share
    rules = ScalarRules.of(settings)
    sample, what, command = _Sample(rules), f"query set {query_set}", f"lorif preview --queries {query_set}"
    try:
        source = query_source(settings, query_set)
        for _, raw in first_queries(source, settings.base, SAMPLE_ROWS):
            is_whole = len(raw.rows) + len(raw.malformed) < SAMPLE_ROWS
            sample.add(query_set, raw, source.columns, reader, is_whole=is_whole)
    except SourceError as error:
        sample.faults[str(error)] = None
    yield from _findings(what, command, sample, reader, max_share)
    n_read = sample.n_rows - len(sample.unreadable)
    if len(sample.unusable) > max_share * n_read:
        looked_at = f"{len(sample.unusable):,} of {n_read:,} rows"
        yield _too_many(what, looked_at, sample.unusable, max_share, command, sample.first_place)


def _findings(
    what: str, command: str, sample: _Sample, reader: ExampleReader | None, max_share: float
) -> Iterator[Finding]:
    for fault in sample.faults:
        yield Finding(what, fault, is_fault=True)
    if len(sample.unreadable) > max_share * sample.n_rows:
        looked_at = f"{len(sample.unreadable):,} of {sample.n_rows:,} rows"
        yield _too_many(what, looked_at, sample.unreadable, max_share, command, sample.first_place)
    elif sample.unreadable or sample.unusable:
        reasons = sample.unreadable + sample.unusable
        yield Finding(
            what,
            f"{len(reasons):,} of {sample.n_rows:,} rows looked at would be set aside: {in_words(count_reasons(reasons))}. "
            f"The first is {sample.first_place}; `{command}` shows them",
            is_fault=False,
        )
    if reader and sample.n_cut:
        rule = reader.rules(are_queries=sample.scalar_rules is not None).truncation
        yield Finding(
            what,
            f"{sample.n_cut:,} of {sample.n_rows:,} rows looked at would be cut to {reader.max_length:,} tokens "
            f"({LENGTH_IN_WORDS}) by the rule {rule}. `{command}` shows what is left",
            is_fault=False,
        )
    if len(sample.ids) == 1 and (column := next(iter(sample.ids))):
        yield Finding(
            what,
            f"rows are named by their place in the file, though each one that was looked at has its own {column!r}: "
            f'`columns.id = "{column}"` names them by it. Best before the first run: what is stored of them is computed again',
            is_fault=False,
        )
    for notice, count in sample.notices.items():
        yield Finding(what, f"{count:,} of {sample.n_rows:,} rows looked at: {notice}", is_fault=False)


def _unused_id(raw: RawShard, columns: Columns) -> str | None:
    """Return the column that could name a shard's rows where neither the settings nor the format say what does."""
    if columns.id is not None or raw.id_column is not None or not raw.rows:
        return None
    usual = usual_ids([name for name in raw.columns if name not in (columns.metadata or ())])
    return naming_column(usual, raw.one_of_each_row)


def _too_many(
    what: str, looked_at: str, reasons: Iterable[str], max_share: float, command: str, first_place: str = ""
) -> Finding:
    where = f"The first is {first_place}; " if first_place else ""
    return Finding(
        what,
        f"{looked_at} would be set aside, more than the share `data.max_rejected_share` = {max_share:g} allows: "
        f"{in_words(count_reasons(reasons))}. {where}`{command}` shows them; correct the data, or raise the setting",
        is_fault=True,
    )
