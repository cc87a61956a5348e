"""Part of the training data by its influence on queries: which rows, where they came from, and as files."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import polars as pl

from lorif_assets.data.formats.reader import ShardSlice
from lorif_assets.data.source_rows import SourceRows, source_rows
from lorif_assets.data.written_rows import write_json_lines, write_parquet
from lorif_assets.errors import MismatchError, SettingsError
from lorif_assets.influences.wanted_rows import WantedRows
from lorif_assets.project import Project
from lorif_assets.scratch_folders import scratch_folder

_PARQUET, _JSON_LINES = ".parquet", ".jsonl"
_PACKED = frozenset([".bz2", ".gz", ".tar", ".xz", ".zip", ".zst"])
_OTHER_KINDS = _PACKED | frozenset(
    [".arrow", ".avro", ".csv", ".feather", ".json", ".ndjson", ".orc", ".pq", ".tsv", ".txt", ".xlsx"]
)
"""Of files that people keep training data in; other names with a dot, such as step.100, are those of folders."""


@dataclass(frozen=True)
class SelectedGroup:
    """The examples of a source, or with one value in a metadata column: how many were taken of how many."""

    name: str
    n_rows: int
    n_examples: int


@dataclass(frozen=True)
class SelectedGroups:
    """What was taken of each value of a metadata column, the most first."""

    column: str
    groups: tuple[SelectedGroup, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Selection:
    """Rows of sources by their influence.

    `rows` have source, shard, row (its place in the shard), example_id, value (what they were ranked by) and, where there are
    weights, weight, in the order of shards and rows. `of` has the number of examples that they were taken from, by source.
    `n_repeats` were left out as near-duplicates; `n_unread` are in shards that no source has any more, and were not looked
    at. `groups` counts by the metadata column that was selected by, else by the first there is; None without metadata.
    `origin` says what they were ranked by.
    """

    project: Project
    wanted: WantedRows
    rows: pl.DataFrame
    of: Mapping[str, int]
    n_repeats: int
    n_unread: int
    groups: SelectedGroups | None
    shard_hashes: Mapping[str, str]
    pieces: Mapping[str, ShardSlice]
    origin: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"Selection of {self.rows.height:,} of {sum(self.of.values()):,} rows by `{self.wanted.command}`"

    @property
    def summary(self) -> pl.DataFrame:
        """By source: source, rows, of (examples there were), share (0 to 1), and mean_value of the rows."""
        counts = self.rows.group_by("source").agg(rows=pl.len().cast(pl.Int64), mean_value=pl.col("value").mean())
        of = pl.DataFrame(list(self.of.items()), schema={"source": pl.String, "of": pl.Int64}, orient="row")
        joined = of.join(counts, on="source", how="left", maintain_order="left").with_columns(
            pl.col("rows").fill_null(0)
        )
        return joined.select("source", "rows", "of", share=pl.col("rows") / pl.col("of"), mean_value="mean_value")

    @property
    def lineage(self) -> dict[str, Any]:
        """Where the rows came from: what they were ranked by, how many of how many, and how each source is read."""
        sources = {source.name: source for source in self.project.settings.sources}
        return {
            **self.origin,
            "rows": self.rows.height,
            "of": sum(self.of.values()),
            "near_duplicates_left_out": self.n_repeats,
            "rows_that_no_source_has": self.n_unread,
            "sources": {
                row["source"]: {
                    "path": sources[row["source"]].path,
                    "columns": sources[row["source"]].columns.model_dump(mode="json", exclude_defaults=True),
                    "rows": row["rows"],
                    "of": row["of"],
                }
                for row in self.summary.iter_rows(named=True)
            },
        }

    def write(self, output: str | PathLike[str]) -> dict[str, Any]:
        """Write the rows, and beside them their lineage as `<output without .parquet or .jsonl>.lineage.json`.

        An output that ends in .parquet or .jsonl is one file, for rows of one source; any other is a folder with a Parquet
        file for each. Files are there whole, or not at all. A Parquet file has the lineage too, in its metadata
        `lorif.selection`.

        Returns:
            The lineage, with the names of the `files` by source.

        Raises:
            SettingsError: the output is there already or cannot be written, ends as a file of another kind, or rows of several
                sources are to be in one file.
            MismatchError: nothing is selected, or a source changed since it was attributed.
            SourceError: a source cannot be read, or Parquet has no type for a column of it.
        """
        output = Path(output)
        check_output(output)
        sources = self.summary.filter(pl.col("rows") > 0)["source"].to_list()
        if not sources:
            raise MismatchError("nothing is selected: there is no row to write")
        files = _files(sources, output)
        lineage, lineage_file = {**self.lineage, "files": files}, _lineage_file(output)
        for path in (output, lineage_file):
            if path.is_file() or (path.is_dir() and any(path.iterdir())):
                raise SettingsError(
                    f"{path} is there already, and is not written over: name another output, or remove it"
                )
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            with scratch_folder(beside=output.parent) as whole:
                for source, name in files.items():
                    _write(self, source, whole / name, lineage)
                lineage_file.write_text(json.dumps(lineage, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
                (whole / output.name if _is_file(output) else whole).rename(output)
        except OSError as error:
            raise SettingsError(
                f"{output} cannot be written: {error.strerror or error}. Name another output"
            ) from error
        return lineage


def _is_file(output: Path) -> bool:
    return output.suffix.lower() in {_PARQUET, _JSON_LINES}


def check_output(output: Path) -> None:
    """Refuse an output whose ending says that it is a file of a kind that is not written.

    Raises:
        SettingsError: it does; the message says what is written.
    """
    kind = output.suffix.lower()
    if kind in _OTHER_KINDS:
        raise SettingsError(
            f"a selection is written as Parquet or JSON Lines, not as {kind}; found the output {output.name!r}. Name "
            f"{output.stem}{_PARQUET} or {output.stem}{_JSON_LINES}, or a folder such as {output.stem}"
        )


def _lineage_file(output: Path) -> Path:
    return output.with_name(f"{output.stem if _is_file(output) else output.name}.lineage.json")


def _files(sources: list[str], output: Path) -> dict[str, str]:
    """Return by source the name of its file, in the output's folder or, of a single one, beside others."""
    if not _is_file(output):
        return {source: f"{source}{_PARQUET}" for source in sources}
    if len(sources) > 1:
        raise SettingsError(
            f"the selected rows are of {len(sources)} sources ({', '.join(sources)}), whose columns need not be the same: name "
            "a folder as the output, in which each has a file, or one of the sources"
        )
    return {sources[0]: output.name}


def _write(selection: Selection, source: str, path: Path, lineage: Mapping[str, Any]) -> None:
    parts = _parts(selection, source)
    if path.suffix.lower() == _JSON_LINES:
        write_json_lines(path, parts)
    else:
        write_parquet(path, source, parts, lineage)


def _parts(selection: Selection, source: str) -> Iterator[SourceRows]:
    """Yield the selected rows of a source, shard by shard."""
    settings = selection.project.settings
    (definition,) = (one for one in settings.sources if one.name == source)
    chosen = selection.rows.filter(pl.col("source") == source)
    for (shard,), rows in chosen.group_by("shard", maintain_order=True):
        name = str(shard)
        part = source_rows(
            definition, selection.pieces[name], settings.base, selection.shard_hashes[name], rows["row"].to_list()
        )
        column = selection.wanted.weights
        yield part.with_weights(column, rows["weight"].to_numpy()) if column else part
