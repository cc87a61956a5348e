"""What a folder holds that a first lorif.toml can point at: checkpoints, training data with their columns, queries."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os.path import commonpath
from pathlib import Path
from typing import Any, Self

from lorif_assets.config.first_settings import FoundSource, Surroundings
from lorif_assets.config.sources import Columns, Source, SourceFormat
from lorif_assets.data.content.columns import guessed_columns, usual_ids
from lorif_assets.data.formats import format_of_suffix, formats_of_data, readers
from lorif_assets.data.formats.delta_buckets import BucketedTable
from lorif_assets.data.formats.reader import RawShard
from lorif_assets.data.preview import first_rows
from lorif_assets.data.rows.row_ids import naming_column
from lorif_assets.errors import LorifError
from lorif_assets.models.files.checkpoint_folders import is_whole, list_folders

_DEPTH = 3
_MOST_FOLDERS = 2_000
_MOST_SOURCES = 8
_ROWS_WITH_IDS = 1_000
# What this project, MLflow, Python and trainers write is no data.
_OTHER_FOLDERS = re.compile(
    r"[._]|(lake|dagster_home|mlruns|mlartifacts|registered_models|node_modules|venv|env|logs|wandb|tests)$"
)
_NUMBERED = re.compile(r"(checkpoint|step|epoch|iter)\D*\d+$", re.IGNORECASE)
_QUERIES = {"query", "queries", "question", "questions", "probe", "probes", "prompts"}
_HELD_OUT = {"test", "valid", "validation", "val", "dev", "eval", "evaluation", "heldout", "holdout"}
# A folder that holds one of these is of a model, whole or not, of a tokenizer, a trainer, or a data set's splits.
_DESCRIPTIONS = (
    *("config.json", "adapter_config.json", "tokenizer_config.json", "trainer_state.json"),
    "dataset_dict.json",
)
# What people pretrain on beside plain text; of few such files beside data of a format, nobody means them.
_TEXT_ENDINGS = {".md", ".markdown", ".rst", ".html", ".htm", ".tex", ".py"}
_MANY_TEXTS = 10
# Tokens one after the other, and archives of files.
_STREAM_ENDINGS = {".bin", ".npy", ".tar"}
# What their writers note beside them.
_STREAM_DESCRIPTIONS = ("index.json", "meta.json")
_QUERY_FORMATS = {SourceFormat.PARQUET, SourceFormat.JSONL, SourceFormat.JSON, SourceFormat.CSV}


@dataclass(frozen=True)
class _Data:
    """A file, table or folder of files that may hold training data or queries; `sample` is the file to look into."""

    path: Path
    sample: Path
    words: frozenset[str]
    """Of its name, and of the names of the folders that it lies in."""

    @classmethod
    def of(cls, base: Path, path: Path, sample: Path) -> Self:
        """Return what lies at a path below the base folder."""
        return cls(path, sample, frozenset(re.split(r"[^a-z]+", _relative(base, path).lower())))


def look_around(folder: Path) -> Surroundings:
    """Look for what a folder and its subfolders hold, three levels down; files are told by their names and first rows."""
    folders = [one for _, one in zip(range(_MOST_FOLDERS), _below(folder, _DEPTH), strict=False)]
    checkpoints = _checkpoints(folder, folders)
    found = list(_data(folder, [one for one in folders if not is_whole(one)]))
    queries = _queries(found)
    place = _query_path(folder, queries)
    asked = [one for one in found if queries and place and one.path.is_relative_to(folder / place)]
    others = [one for one in found if one not in asked]
    held_out = [one for one in others if one.words & _HELD_OUT]
    kept = [one for one in others if one not in held_out] or held_out
    fewest = _MANY_TEXTS if kept else 1
    return Surroundings(
        sources=list(_sources(folder, kept[:_MOST_SOURCES])),
        more_data=[_relative(folder, one.path) for one in kept[_MOST_SOURCES:]],
        held_out=[_relative(folder, one.path) for one in held_out if one not in kept],
        texts={name: number for name, number in _by_ending(folder, folders, _TEXT_ENDINGS) if number >= fewest},
        streams=dict(_by_ending(folder, [one for one in folders if not _is_of_a_model(one)], _STREAM_ENDINGS)),
        checkpoints=checkpoints.path,
        n_checkpoints=checkpoints.number,
        base_model=checkpoints.base_model,
        other_checkpoints=checkpoints.others,
        queries=place,
        query_columns=_query_columns(folder, asked),
    )


def _below(folder: Path, depth: int) -> Iterator[Path]:
    yield folder
    if depth:
        for child in _children(folder):
            if child.is_dir() and not _OTHER_FOLDERS.match(child.name):
                yield from _below(child, depth - 1)


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(child for child in folder.iterdir() if _can_be_named(child.name))
    except OSError:
        return []


def _can_be_named(name: str) -> bool:
    # A name that is no text cannot stand in a settings file, and `~` begins somebody's home there.
    if name.startswith("~"):
        return False
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class _Checkpoints:
    """The folder with the most checkpoints, how many, a single model that lies elsewhere, and how many other folders hold."""

    path: str | None = None
    number: int = 0
    base_model: str | None = None
    others: Mapping[str, int] = field(default_factory=dict)


def _checkpoints(base: Path, folders: Sequence[Path]) -> _Checkpoints:
    groups: dict[Path, int] = {}
    for folder in folders:
        models = [one.path for one in list_folders(folder).folders if is_whole(one.path)]
        if models == [folder] or len(models) > 1:
            groups[folder] = len(models)
    if not groups:
        return _Checkpoints()
    chosen = max(groups, key=lambda folder: (groups[folder], folder.stat().st_mtime))
    if groups[chosen] == 1 and _NUMBERED.search(chosen.name) and base not in (chosen, chosen.parent):
        # The first of a training: the next ones will lie beside it.
        chosen = chosen.parent
        groups[chosen] = 1
    others = {
        one: number for one, number in groups.items() if not (one.is_relative_to(chosen) or chosen.is_relative_to(one))
    }
    single = [one for one, number in others.items() if number == 1]
    base_model = single[0] if len(single) == 1 and chosen != base else None
    return _Checkpoints(
        _relative(base, chosen),
        groups[chosen],
        _relative(base, base_model) if base_model else None,
        # The steps of a training are its folder's.
        {
            _relative(base, one): number
            for one, number in others.items()
            if one != base_model and others.keys().isdisjoint(one.parents)
        },
    )


def _data(base: Path, folders: Iterable[Path]) -> Iterator[_Data]:
    """Yield tables, folders of files of one kind, and single files."""
    taken: list[Path] = []
    for folder in folders:
        if any(folder.is_relative_to(one) for one in taken):
            continue
        if any(reader.is_at(folder) for reader in readers().values()):
            taken.append(folder)
            yield _Data.of(base, folder, folder)
            continue
        files = _data_files(folder, is_shared=folder == base)
        if folder != base and (len(files) > 1 or _is_of_one_file(folder, files)) and _are_of_one_kind(base, files):
            taken.append(folder)
            yield _Data.of(base, folder, files[0])
        else:
            yield from (_Data.of(base, file, file) for file in files)


def _data_files(folder: Path, *, is_shared: bool) -> list[Path]:
    files = [file for file in _children(folder) if file.is_file()]
    has_streams = any(file.suffix.lower() in _STREAM_ENDINGS for file in files)
    found = {file: format_of_suffix(file) for file in files}
    described = {name for kind in found.values() if kind for name in readers()[kind].descriptions}
    described |= {*_STREAM_DESCRIPTIONS} if has_streams else set()
    formats = {file: kind for file, kind in found.items() if file.name not in described}
    firm = [file for file, kind in formats.items() if kind and not readers()[kind].is_fallback]
    if not firm and not is_shared and not _is_described(folder):
        return [file for file, kind in formats.items() if kind]
    # Beside code, models and other data lie notes and settings in text and JSON files: data are those whose columns say so.
    tables = [file for file, kind in formats.items() if kind in _QUERY_FORMATS and file not in firm]
    told = {file for file in tables if guessed_columns(_first_row(folder, file))}
    data = [file for file in formats if file in told or file in firm]
    counted = {
        name
        for kind, reader in readers().items()
        for name in reader.counted([f.name for f in data if formats[f] is kind])
    }
    data = [file for file in data if file.name in counted]
    made_of_rows = {kind for kind, reader in readers().items() if reader.is_made_of_rows}
    return [file for file in data if formats[file] not in made_of_rows] or data


def _by_ending(base: Path, folders: Iterable[Path], endings: Collection[str]) -> Iterator[tuple[str, int]]:
    """Yield for each ending the pattern of the files that have it, and how many there are."""
    folders_of: dict[str, list[Path]] = {}
    for folder in folders:
        files = [file for file in _children(folder) if file.is_file()]
        read = {part for file in files if (kind := format_of_suffix(file)) for part in readers()[kind].parts(file.name)}
        for file in files:
            if file.suffix.lower() in endings and file.name not in read:
                folders_of.setdefault(file.suffix, []).append(folder)
    for ending, holding in sorted(folders_of.items()):
        # What lies in the folder itself describes it, unless there is nothing else.
        below = [folder for folder in holding if folder != base] or holding
        top = Path(commonpath(below))
        pattern = ("**/*" if any(folder != top for folder in below) else "*") + ending
        yield (_relative(base, top / pattern), len(below))


def _is_described(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _DESCRIPTIONS)


def _is_of_a_model(folder: Path) -> bool:
    # A trainer's state has weights too, and optimizers in files whose ending data may have.
    return _is_described(folder) or any(child.suffix == ".safetensors" for child in _children(folder))


def _is_of_one_file(folder: Path, files: Sequence[Path]) -> bool:
    """Whether a folder's only file is one of those that the format describes in another: more may come."""
    kinds = [kind for kind in map(format_of_suffix, files) if kind]
    return any((folder / name).is_file() for kind in kinds for name in readers()[kind].descriptions)


def _are_of_one_kind(base: Path, files: Sequence[Path]) -> bool:
    if not {*files} <= formats_of_data(_children(files[0].parent)).keys():
        # The folder would be read as what lies beside them.
        return False
    # Of many files two are looked into: shards of a data set have the same columns.
    first, last = (_first_row(base, file).keys() for file in (files[0], files[-1]))
    return first == last and len({format_of_suffix(file) for file in files}) == 1


def _queries(found: Sequence[_Data]) -> _Data | None:
    """Return what its name says to be queries, unless there is nothing else that could be training data."""
    named = [one for one in found if one.words & _QUERIES and (format_of_suffix(one.sample) in _QUERY_FORMATS)]
    return named[0] if named and len(found) > len(named) else None


def _query_path(base: Path, found: _Data | None) -> str | None:
    """Return the folder of the queries, where it is one of queries alone, or else their file."""
    if found is None:
        return "queries" if (base / "queries").is_dir() else None
    parent = found.path.parent
    is_of_queries = parent != base and parent.name.lower() in _QUERIES
    return _relative(base, parent if is_of_queries else found.path)


def _query_columns(base: Path, asked: Sequence[_Data]) -> Columns | None:
    """Return what the columns of all query files seem to be; nothing is named where they differ, as one setting is for all."""
    files = [
        file for one in asked for file in (_data_files(one.path, is_shared=False) if one.path.is_dir() else [one.path])
    ]
    guesses = [_guess(base, file) for file in files]
    return guesses[0] if guesses and all(guess == guesses[0] for guess in guesses) else None


def _sources(base: Path, found: Sequence[_Data]) -> Iterator[FoundSource]:
    names: set[str] = set()
    for one in found:
        columns = tuple(_first_row(base, one.sample))
        guess = _guess(base, one.sample)
        if guess and guess.id is None and _is_delta(one.sample):
            # Ids deal a table's rows to shards.
            guess = None
        source = Source(name=_name(one.path, names), path=_relative(base, one.path), columns=guess or Columns())
        unfit = usual_ids(columns) if guess and guess.id is None else []
        yield FoundSource(source, columns, guess is not None, next(iter(unfit), None))


def _guess(base: Path, sample: Path) -> Columns | None:
    """Return which columns seem to hold ids and content; no ids where the first rows do not have one each."""
    first = _first_row(base, sample)
    guess = guessed_columns(first)
    if guess is None or guess.id is None or _is_delta(sample):
        return guess
    rows = _rows(base, sample, _ROWS_WITH_IDS).one_of_each_row
    return guess.model_copy(update={"id": naming_column(usual_ids(first), rows)})


def _first_row(base: Path, path: Path) -> Mapping[str, Any]:
    """Return the first row of data, or their columns without values."""
    try:
        if _is_delta(path):
            table = BucketedTable.of(str(path), "", 1, {})
            return dict.fromkeys(table.columns(table.version()))
    except LorifError:
        return {}
    raw = _rows(base, path, 1)
    first = next((values for _, values in raw.rows), {})
    return {name: first.get(name) for name in raw.columns}


def _rows(base: Path, path: Path, number: int) -> RawShard:
    """Return the first rows of a file, as many as its first shard has of them; none where it cannot be read."""
    try:
        for _, raw in first_rows(Source(name="found", path=_relative(base, path)), base, number):
            return raw
    except LorifError:
        pass
    return RawShard(str(path), (), ())


def _is_delta(path: Path) -> bool:
    return readers()[SourceFormat.DELTA].is_at(path)


def _name(path: Path, taken: set[str]) -> str:
    stem = re.sub(r"[^\w.~-]", "-", path.name.partition(".")[0]).lstrip(".~-") or "data"
    name = next(one for one in (stem, *(f"{stem}-{number}" for number in range(2, 100))) if one not in taken)
    taken.add(name)
    return name


def _relative(base: Path, path: Path) -> str:
    return path.relative_to(base).as_posix()
