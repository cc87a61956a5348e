"""Selections of training data as the explorer tells of them, and the one folder that it may write them into."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from lorif_assets.data.passages import Part, passage_metadata, passage_parts, passages
from lorif_assets.errors import RefusedError, SettingsError
from lorif_assets.influences.selection import SelectedGroup, SelectedGroups, Selection, check_output
from lorif_assets.influences.wanted_rows import WantedRows
from lorif_assets.lake.lake import Lake

_MOST_LEADING = 10
_OUTPUT = re.compile(r"\w(?:[\w .%+=-]{0,98}[\w%+=-])?")


@dataclass(frozen=True)
class SelectedExample:
    """A row that was selected; `value` is what rows were ranked by, in standard deviations of a query's scores.

    Rows that were named have none.
    """

    shard: str
    example_id: str
    value: float | None
    parts: tuple[Part, ...]
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class SelectedData:
    """Training data that were selected, and not written yet: how many rows of how many, by source and by metadata.

    `checkpoint` and `query_sets`, which have their weights, are empty where rows were named. `n_near_duplicates` were left out;
    `n_unread` are in shards that no source has any more. `leading` are the first of the rows by the end of the ranking that was
    taken. `command` writes the same.
    """

    checkpoint: str
    query_sets: Mapping[str, float]
    n_rows: int
    n_examples: int
    n_near_duplicates: int
    n_unread: int
    sources: tuple[SelectedGroup, ...]
    groups: SelectedGroups | None
    leading: tuple[SelectedExample, ...]
    command: str


@dataclass(frozen=True)
class WrittenSelection:
    """A selection that was written: where, how many rows, and the name of each source's file."""

    path: str
    n_rows: int
    files: Mapping[str, str]


def selected_data(selection: Selection, lake: Lake) -> SelectedData:
    """Return what a selection has; `lake` has the texts."""
    return SelectedData(
        checkpoint=selection.wanted.checkpoint or "",
        query_sets=selection.wanted.query_sets,
        n_rows=selection.rows.height,
        n_examples=sum(selection.of.values()),
        n_near_duplicates=selection.n_repeats,
        n_unread=selection.n_unread,
        sources=tuple(
            SelectedGroup(row["source"], row["rows"], row["of"]) for row in selection.summary.iter_rows(named=True)
        ),
        groups=selection.groups,
        leading=_leading(selection, lake),
        command=writing_command(selection.wanted),
    )


def _leading(selection: Selection, lake: Lake) -> tuple[SelectedExample, ...]:
    is_highest = selection.wanted.bottom is None
    # Of rows that were named, none has a value, and they stay as they are.
    rows = selection.rows.sort("value", descending=is_highest, maintain_order=True).head(_MOST_LEADING)
    said = passages(lake, rows.select("shard", "example_id").iter_rows())
    found = []
    for shard, example_id, value in rows.select("shard", "example_id", "value").iter_rows():
        row = said.get((shard, example_id))
        parts, metadata = (passage_parts(row), passage_metadata(row)) if row else ((), {})
        found.append(SelectedExample(shard, example_id, value, parts, metadata))
    return tuple(found)


def writing_command(wanted: WantedRows) -> str:
    """Return the command that writes a selection."""
    return f"{wanted.command} --output {output_name(wanted)}"


def output_name(wanted: WantedRows) -> str:
    """Return what a selection is called where it was given no name."""
    return "remaining" if wanted.exclude else "selected"


class SelectionFolder:
    """Where selections may be written; without a `path`, nowhere."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        # Of two that would write the same file, the second finds it there.
        self._writing = Lock()

    def place(self, wanted: WantedRows, output: str) -> Path:
        """Return where a selection is to be written.

        Raises:
            RefusedError: nothing may be written.
            SettingsError: the name is none, leads out of the folder, or is that of a file of a kind that is not written.
        """
        if self.path is None:
            raise RefusedError(
                "this explorer writes nothing: start it with `lorif explore --allow-writing FOLDER`, or run "
                f"`{writing_command(wanted)}`"
            )
        if not _OUTPUT.fullmatch(output):
            raise SettingsError(
                f"an output is the name of a file or folder in {self.path}, of letters, digits, spaces and _ - + = % . alone; "
                f"found {output!r}"
            )
        check_output(self.path / output)
        return self.path / output

    def write(self, selection: Selection, output: str) -> WrittenSelection:
        """Write a selection as a file or a folder of this name.

        Raises:
            RefusedError, SettingsError: as `place`.
            LorifError: as `Selection.write`.
        """
        path = self.place(selection.wanted, output)
        with self._writing:
            lineage = selection.write(path)
        return WrittenSelection(str(path), lineage["rows"], lineage["files"])
