"""What lies at a source's path: its format, its files, and the beginning of the shard names of each file."""

import glob
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TypeVar

from lorif_assets.config.sources import Source, SourceFormat
from lorif_assets.data.formats import format_of_suffix, formats_of_data, is_of, known_suffixes, readers
from lorif_assets.data.formats.contents import advice
from lorif_assets.data.formats.hub_selection import hub_errors, selected
from lorif_assets.data.formats.lakehouse_tables import TableFolder, table_among, table_around
from lorif_assets.data.formats.reader import SourceFile
from lorif_assets.errors import SourceError, StoreError
from lorif_assets.hub.names import is_hub_name
from lorif_assets.lake.partition_names import partition_names
from lorif_assets.lake.special_files import SPECIAL, is_special
from lorif_assets.stores.object_store import ObjectStore, copy_of, is_store_url

# Of files that are being written, or that an editor, a download or a copy left behind.
_UNFINISHED = (
    *("~", ".bak", ".crc", ".crdownload", ".incomplete", ".inprogress", ".lock", ".part", ".partial", ".swp", ".temp"),
    ".tmp",
)
_AnyPath = TypeVar("_AnyPath", Path, PurePosixPath)


def locate(source: Source, base: Path) -> tuple[SourceFormat, list[SourceFile]]:
    """Format and files of a source, sorted by name.

    In a directory or below a glob's fixed part, names that begin with `.` or `_` are skipped. A source that is one
    file, one table or one `datasets` directory names its shards after the source alone; files of a directory or glob
    add their relative path.

    Raises:
        SourceError: nothing is there, formats are mixed, the format set is not the one found, the path is a
            `DatasetDict`, or an object store refuses.
    """
    if is_hub_name(source.path):
        return _on_hub(source, base)
    if is_remote(source.path):
        is_table = source.format is not SourceFormat.AUTO and readers()[source.format].is_read_remotely
        whole = [SourceFile(source.path, source.name, source.path)]
        return (source.format, whole) if is_table else _in_store(source, base)

    path = base / Path(source.path).expanduser()
    if path.is_file():
        return _format_of_file(source, path), [SourceFile(_relative(path, base), source.name, path.name)]
    if path.is_dir():
        saved = _saved_format(source, path)
        if saved is not None:
            return saved, [SourceFile(_relative(path, base), source.name, path.name)]
        return _named_files(source, base, root=path, found=_visible_files(path, "**/*"), by_suffix=True)
    if glob.has_magic(source.path):
        root = _fixed_part(path)
        found = _visible_files(root, str(path.relative_to(root)))
        return _named_files(source, base, root=root, found=found, by_suffix=False)
    if is_special(path):
        raise SourceError(f"source '{source.name}': {path} is {SPECIAL}. Give the path of a file or a folder.")
    raise SourceError(
        f"source '{source.name}': nothing is at {path}. Relative paths start at {base}; correct the source's `path`."
    )


def passed_over(source: Source, base: Path) -> tuple[str, ...]:
    """What a source's folder or pattern covers and is not read, sorted: files of other formats, and linked folders.

    Nothing of one file or table. Names that begin with `.` or `_` are left out, as everywhere.

    Raises:
        SourceError: as `locate`.
    """
    if is_hub_name(source.path):
        selection = selected(source, _suffixes(source))
        kind, files = locate(source, base)
        read = {part for file in files for part in readers()[kind].parts(file.uri)}
        covered = () if selection.is_file else (*selection.paths, *selection.others)
        return tuple(
            sorted(
                path
                for path in covered
                if selection.snapshot.uri(path) not in read
                and not readers()[kind].is_description(PurePosixPath(path).name)
            )
        )
    path = base / Path(source.path).expanduser()
    if is_remote(source.path) or path.is_file():
        return ()
    kind, files = locate(source, base)
    if not readers()[kind].suffixes:
        return ()
    root, pattern = (path, "**/*") if path.is_dir() else (_fixed_part(path), str(path.relative_to(_fixed_part(path))))
    # What `**` covers is looked into; another pattern takes a folder for a file of that name.
    names = {_shown(found, root) for found in _visible(root, pattern) if "**" not in pattern or not found.is_dir()}
    if "**" in pattern:
        # Python's `**` does not go into them.
        names |= {_shown(found, root) for found in _visible(root, "**/*") if found.is_dir() and found.is_symlink()}
    read = {part for file in files for part in readers()[kind].parts(file.name)}
    return tuple(sorted(name for name in names - read if not readers()[kind].is_description(PurePosixPath(name).name)))


def _on_hub(source: Source, base: Path) -> tuple[SourceFormat, list[SourceFile]]:
    selection = selected(source, _suffixes(source))
    snapshot = selection.snapshot
    root = snapshot.folder / selection.root
    with hub_errors(f"source '{source.name}': "):
        if selection.is_file:
            file = snapshot.fetch(selection.paths) / selection.paths[0]
            return _format_of_file(source, file), [SourceFile(snapshot.uri(selection.paths[0]), source.name, file.name)]
        found = [snapshot.folder / path for path in selection.paths]
        by_suffix = not glob.has_magic(snapshot.name.path)
        kind, named = _named_files(source, base, root=root, found=found, by_suffix=by_suffix)
        paths = [(root / file.name).relative_to(snapshot.folder).as_posix() for file in named]
        _refuse(source, table_among(snapshot.uri("").rstrip("/"), paths, snapshot.files))
        snapshot.fetch(paths)
    return kind, [replace(file, uri=snapshot.uri(path)) for file, path in zip(named, paths, strict=True)]


def _in_store(source: Source, base: Path) -> tuple[SourceFormat, list[SourceFile]]:
    """Locate a source of files in an object store, by copies of those that it may be made of."""
    if not is_store_url(source.path):
        raise SourceError(
            f"source '{source.name}': {source.path} is not a local path, nor in an object store that is read (s3://, gs://, "
            "az://, abfss://). Copy the files to a local folder."
        )
    pattern = PurePosixPath(source.path.partition("://")[2])
    root = _fixed_part(pattern) if glob.has_magic(source.path) else pattern
    store = ObjectStore.at(
        source.path[: source.path.index("://") + 3] + root.as_posix(), source.revealed_storage_options
    )
    try:
        found = store.files()
        if not found and not glob.has_magic(source.path):
            # The URL is that of one file.
            file = copy_of(store.url, source.revealed_storage_options)
            return _format_of_file(source, file), [SourceFile(store.url, source.name, file.name)]
        by_suffix = not glob.has_magic(source.path)
        # A superset of what the pattern means: here a star also stands for folders.
        names = pattern.relative_to(root).as_posix().replace("**/", "*")
        wanted = [
            file
            for file in found
            if (file.name.lower().endswith(_suffixes(source)) if by_suffix else fnmatchcase(file.name, names))
        ]
        _refuse(source, table_among(store.url, (file.name for file in wanted), (file.name for file in found)))
        if by_suffix and source.format is SourceFormat.AUTO:
            # What trainers made of rows may be large, and is passed over.
            data = formats_of_data(path for file in wanted if _is_visible(path := Path(file.name)))
            wanted = [file for file in wanted if Path(file.name) in data]
        folder = store.copies(wanted)
        store.forget(found)
    except StoreError as error:
        raise SourceError(f"source '{source.name}': {error}") from error
    here = _visible_files(folder, "**/*" if by_suffix else pattern.relative_to(root).as_posix())
    kind, named = _named_files(source, base, root=folder, found=here, by_suffix=by_suffix)
    return kind, [replace(file, uri=f"{store.url}/{file.name}") for file in named]


def _suffixes(source: Source) -> tuple[str, ...]:
    """Return how files may end that a source is made of."""
    formats = (reader for kind, reader in readers().items() if not reader.is_named or kind is source.format)
    return tuple(suffix for reader in formats for suffix in reader.suffixes)


def _shown(path: Path, root: Path) -> str:
    name = path.relative_to(root).as_posix()
    if path.is_dir():
        return f"{name} (a linked folder)" if path.is_symlink() else f"{name} (a folder)"
    if is_special(path):
        return f"{name} ({SPECIAL})"
    return name if path.exists() else f"{name} (a broken link)"


def is_remote(path: str) -> bool:
    """Whether a path is a URL (s3://, abfss://, gs://, ...)."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path) is not None


def _relative(path: Path, base: Path) -> str:
    return (path.relative_to(base) if path.is_relative_to(base) else path).as_posix()


def _format_of_file(source: Source, path: Path) -> SourceFormat:
    found = format_of_suffix(path) if source.format is SourceFormat.AUTO else source.format
    if found is None:
        raise SourceError(
            f"source '{source.name}': cannot tell the format of {path} by its name. It {advice(path)}. Files end in "
            f"{known_suffixes()}."
        )
    if not readers()[found].suffixes:
        raise SourceError(f"source '{source.name}': format = \"{found}\" needs a directory, but {path} is a file.")
    return found


def _saved_format(source: Source, directory: Path) -> SourceFormat | None:
    """Delta or `datasets` if the directory is one such table; None for a directory of files."""
    if (splits := directory / "dataset_dict.json").is_file():
        names = sorted(child.name for child in directory.iterdir() if child.is_dir())
        raise SourceError(
            f"source '{source.name}': {splits.parent} is a DatasetDict with the splits {', '.join(names)}. Point the "
            f'source\'s `path` at one of them, e.g. "{source.path.rstrip("/")}/{names[0] if names else "train"}".'
        )
    found = next((kind for kind, reader in readers().items() if reader.is_at(directory)), None)
    if source.format is not SourceFormat.AUTO and source.format != found:
        if found is not None:
            raise SourceError(
                f"source '{source.name}': format = \"{source.format}\", but {directory} is a {found} source. "
                f'Set format = "{found}" or "auto".'
            )
        if not readers()[source.format].suffixes:
            raise SourceError(
                f"source '{source.name}': format = \"{source.format}\", but {directory} lacks what such a source has "
                f"({' and '.join(readers()[source.format].marks)}). Correct `path` or `format`."
            )
    return found


def _visible_files(directory: Path, pattern: str) -> list[Path]:
    return sorted(path for path in _visible(directory, pattern) if path.is_file())


def _visible(directory: Path, pattern: str) -> Iterator[Path]:
    for path in directory.glob(pattern):
        if _is_visible(path.relative_to(directory)):
            yield path


def _is_visible(path: Path) -> bool:
    return not any(part.startswith((".", "_")) for part in path.parts)


def _fixed_part(pattern: _AnyPath) -> _AnyPath:
    parts = list(pattern.parts)
    first_magic = next(k for k, part in enumerate(parts) if glob.has_magic(part))
    return type(pattern)(*parts[:first_magic])


def _named_files(
    source: Source, base: Path, *, root: Path, found: Sequence[Path], by_suffix: bool
) -> tuple[SourceFormat, list[SourceFile]]:
    if source.format is SourceFormat.AUTO:
        kind = _only_format(source, found)
        chosen = [path for path, of in formats_of_data(found).items() if of is kind]
    else:
        kind = source.format
        # A pattern says which files are meant, but a star does not mean a file that is being written.
        chosen = [path for path in found if (is_of(path, kind) if by_suffix else not _is_unfinished(path, source.path))]
    if not readers()[kind].suffixes or not chosen:
        raise SourceError(f"source '{source.name}': no {kind} files at {source.path}. Found: {_listing(found)}.")
    _refuse(source, table_around(chosen))
    prefixes = partition_names({path: _called(source, path, root, kind) for path in chosen})
    return kind, [
        SourceFile(_relative(path, base), prefixes[path], path.relative_to(root).as_posix()) for path in chosen
    ]


def _only_format(source: Source, found: Sequence[Path]) -> SourceFormat:
    formats = Counter(formats_of_data(found).values())
    if any(not readers()[kind].is_fallback for kind in formats):
        formats = Counter({kind: n for kind, n in formats.items() if not readers()[kind].is_fallback})
    if not formats:
        raise SourceError(
            f"source '{source.name}': no data files at {source.path}. Expected names that end in {known_suffixes()}; "
            f"found: {_listing(found)}.{f' {found[0].name} {advice(found[0])}.' if found else ''}"
        )
    if len(formats) > 1:
        counts = " and ".join(f"{n} {kind}" for kind, n in sorted(formats.items()))
        raise SourceError(
            f"source '{source.name}': {source.path} holds files of several formats ({counts}). Set the source's "
            "`format`, or make one source of each."
        )
    return next(iter(formats))


def _listing(found: Iterable[Path]) -> str:
    names = [path.name for path in found]
    return (", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")) or "nothing"


def _is_unfinished(path: Path, pattern: str) -> bool:
    suffix = next((suffix for suffix in _UNFINISHED if path.name.endswith(suffix)), None)
    return suffix is not None and not pattern.endswith(suffix)


def _refuse(source: Source, table: TableFolder | None) -> None:
    if table is not None:
        raise SourceError(f"source '{source.name}': {table}")


def _called(source: Source, path: Path, root: Path, kind: SourceFormat) -> tuple[str, str]:
    """Return what a file's shards are called after: the source and the path without its suffix, and the suffix."""
    suffix = path.name[-len(readers()[kind].suffix_of(path)) :] if readers()[kind].suffix_of(path) else path.suffix
    return f"{source.name}-{path.relative_to(root).as_posix().removesuffix(suffix)}", suffix
