"""Data sets on the hub: which files of a repository a source means, by its description (README.md) and by their names.

Files are read as they are; loading scripts never run.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from lorif_assets.config.sources import Source, SourceFormat
from lorif_assets.errors import HubError, SourceError
from lorif_assets.hub.names import HubName, is_hub_name
from lorif_assets.hub.snapshots import Snapshot, snapshot_of

_DESCRIPTION = "README.md"
# Beside data, and none: descriptions, and what `datasets` saves with its tables.
_NO_DATA = {
    _DESCRIPTION,
    "config.json",
    "dataset_dict.json",
    "dataset_info.json",
    "dataset_infos.json",
    "dummy_data.zip",
    "state.json",
}
_TRAIN = "train"
_KEYWORDS = {
    **dict.fromkeys(("train", "training"), _TRAIN),
    **dict.fromkeys(("validation", "valid", "dev", "val"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_PART_OF_SPLIT = re.compile(r"(?:.*/)?data/(?P<split>\w+(?:\.\w+)*)-\d{5}-of-\d{5}[^/]*\.[^/]*")
_MAGIC = re.compile(r"[*?\[]")
_NAMES_SHOWN = 8


@dataclass(frozen=True)
class Selection:
    """The files that a source means, by their paths in the repository."""

    snapshot: Snapshot
    root: str
    """The folder that the source names, or that lies before a pattern; empty: the whole repository."""
    paths: Sequence[str]
    others: Sequence[str]
    """What lies there besides, descriptions aside."""
    is_file: bool
    """Whether the source names one file."""


def selected(source: Source, suffixes: Iterable[str]) -> Selection:
    """Return the files that a source on the hub means; of the repository, only its description is downloaded.

    Args:
        source: whose path is hf://datasets/org/name@revision, and a configuration's name, folder, file or pattern.
        suffixes: how the names of data files end.

    Raises:
        SourceError: the repository cannot be read, has no such place, configuration or split, or several to choose from.
    """
    with hub_errors(f"source '{source.name}': "):
        name = HubName.parse(source.path)
        if name.kind != "dataset":
            raise HubError(f"{source.path} is a model; expected a data set, hf://datasets/{name.repository}")
        if source.storage_options:
            raise HubError(
                "`storage_options` do not reach the hub: its token is taken from HF_TOKEN or `hf auth login`, and never stored"
            )
        snapshot = snapshot_of(name)
        files = [path for path in snapshot.files if _is_visible(path)]
        data = [path for path in files if path.lower().endswith(tuple(suffixes))]
        found = _Repository(source, snapshot, files, data, _configurations(snapshot))
        selection = found.selection()
        if any(path.startswith(f"{selection.root}/_delta_log/".lstrip("/")) for path in snapshot.files):
            raise HubError(f"{source.path} is a Delta table, which is not read from the hub; download it")
        return selection


def hub_notice(source: Source) -> str | None:
    """Return what is to be known of a source's repository: that its revision may move, or that the hub was not asked.

    None where its name stands for one commit for ever, and for a source that is not on the hub.

    Raises:
        SourceError: the repository or the revision cannot be found.
    """
    if not is_hub_name(source.path):
        return None
    with hub_errors(f"source '{source.name}': "):
        return snapshot_of(HubName.parse(source.path)).notice


@contextmanager
def hub_errors(prefix: str = "") -> Iterator[None]:
    """Say what is wrong with a repository as what is wrong with a source.

    Raises:
        SourceError: the hub's error was raised inside.
    """
    try:
        yield
    except HubError as error:
        raise SourceError(f"{prefix}{error}") from error


@dataclass(frozen=True)
class _Repository:
    source: Source
    snapshot: Snapshot
    files: Sequence[str]
    data: Sequence[str]
    configurations: Mapping[str, Mapping[str, Any]]

    def selection(self) -> Selection:
        place, names = self.snapshot.name.path, self.configurations
        if place in names:
            return self._of_configuration(place)
        if not place and names:
            first = [name for name, fields in names.items() if fields.get("default") or name == "default"]
            if len(names) > 1 and not first:
                some = f"{self.source.path.rstrip('/')}{'' if self.snapshot.name.revision else '@main'}/{next(iter(names))}"
                raise HubError(
                    f"{self.source.path} has the configurations {_listing(names)}; choose one in `path`, such as {some}"
                )
            return self._of_configuration(next(iter(first or names)))
        if _MAGIC.search(place):
            parts = PurePosixPath(place).parts
            root = "/".join(parts[: next(k for k, part in enumerate(parts) if _MAGIC.search(part))])
            # As below a local pattern, a format that is set reads files of any name.
            files = self.data if self.source.format is SourceFormat.AUTO else self.files
            return self._chosen(root, [path for path in files if _matches(path, place)], by_name=False)
        if place in self.snapshot.files:
            root = "/".join(PurePosixPath(place).parts[:-1])
            return Selection(self.snapshot, root, [place], (), is_file=True)
        return self._chosen(place, [path for path in self.data if _is_below(path, place)], by_name=True)

    def _of_configuration(self, name: str) -> Selection:
        fields = self.configurations[name]
        folder = str(fields.get("data_dir") or "").strip("./")
        patterns = _patterns_by_split(fields.get("data_files"))
        if not patterns:
            return self._chosen(folder, [path for path in self.data if _is_below(path, folder)], by_name=True)
        splits = {
            split: [
                path
                for path in self.data
                if any(_matches(path, f"{folder}/{pattern}".lstrip("/").removeprefix("./")) for pattern in of_split)
            ]
            for split, of_split in patterns.items()
        }
        return self._of_split("", splits)

    def _chosen(self, root: str, paths: Sequence[str], *, by_name: bool) -> Selection:
        if not paths:
            raise HubError(self._nothing_found())
        if by_name or self.source.split is not None:
            return self._of_split(root, _splits_by_name(paths, root))
        return self._with_others(root, paths)

    def _of_split(self, root: str, splits: Mapping[str, Sequence[str]]) -> Selection:
        wanted = self.source.split or (next(iter(splits)) if len(splits) == 1 else _TRAIN)
        if wanted not in splits:
            raise HubError(
                f"{self.source.path} has "
                + (
                    f"no split {wanted!r}; found {_listing(splits)}"
                    if self.source.split
                    else f"splits {_listing(splits)}"
                )
                + ". Set the source's `split` to one of them"
            )
        if not splits[wanted]:
            raise HubError(self._nothing_found())
        return self._with_others(root, splits[wanted])

    def _with_others(self, root: str, paths: Sequence[str]) -> Selection:
        others = [path for path in self.files if _is_below(path, root) and path not in set(paths)]
        return Selection(self.snapshot, root, paths, others, is_file=False)

    def _nothing_found(self) -> str:
        name = self.snapshot.name
        message = f"no data files are at {name.at(self.snapshot.commit)}; the repository has {_listing(self.files)}"
        if self.configurations:
            message += f", and the configurations {_listing(self.configurations)}"
        if not self.data and any(path.endswith(".py") for path in self.files):
            converted = f"hf://datasets/{name.repository}@refs/convert/parquet"
            message += f". Its loading script is never run; where the hub shows its rows, they are at {converted}"
        return message


def _configurations(snapshot: Snapshot) -> Mapping[str, Mapping[str, Any]]:
    """Return the fields of each configuration that the repository's description declares."""
    from huggingface_hub import metadata_load

    if _DESCRIPTION not in snapshot.files:
        return {}
    file = snapshot.fetch([_DESCRIPTION]) / _DESCRIPTION
    try:
        declared = (metadata_load(file) or {}).get("configs") or []
        return {str(fields["config_name"]): fields for fields in declared}
    except (ValueError, KeyError, TypeError) as error:
        raise HubError(
            f"the configurations in {file} cannot be read: {error}; name files or a folder in `path`"
        ) from error


def _patterns_by_split(data_files: Any) -> Mapping[str, Sequence[str]]:
    """Return the patterns of a configuration's files by split: one text, several, or split and path of each."""
    patterns: dict[str, list[str]] = {}
    for entry in [data_files] if isinstance(data_files, str | dict) else data_files or []:
        split, path = (entry["split"], entry["path"]) if isinstance(entry, dict) else (_TRAIN, entry)
        patterns.setdefault(str(split), []).extend([path] if isinstance(path, str) else path)
    return patterns


def _splits_by_name(paths: Sequence[str], root: str) -> Mapping[str, Sequence[str]]:
    """Return files by split, as `datasets` tells splits where nothing is declared.

    By `data/<split>-00000-of-00001`, else by a word in the names of folders, else in those of files; else all are `train`.
    """
    below = {path: path.removeprefix(f"{root}/") for path in paths}
    for split_of in (_by_part, _by_folder, _by_file_name):
        splits: dict[str, list[str]] = {}
        for path, relative in below.items():
            split = split_of(path if split_of is _by_part else relative)
            if split is not None:
                splits.setdefault(split, []).append(path)
        if splits:
            return splits
    return {_TRAIN: paths}


def _by_part(path: str) -> str | None:
    found = _PART_OF_SPLIT.fullmatch(path)
    return found["split"] if found else None


def _by_folder(path: str) -> str | None:
    return _keyword(PurePosixPath(path).parts[:-1])


def _by_file_name(path: str) -> str | None:
    return _keyword(PurePosixPath(path).parts[-1:])


def _keyword(names: Iterable[str]) -> str | None:
    words = (word for name in names for word in re.split(r"[-._ 0-9]+", name))
    return next((_KEYWORDS[word] for word in words if word in _KEYWORDS), None)


def _matches(path: str, pattern: str) -> bool:
    """Whether a path has the form of a pattern, in which `*` stays within a folder and `**` does not."""
    return _parts_match(PurePosixPath(path).parts, PurePosixPath(pattern).parts)


def _parts_match(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns:
        return not parts
    if patterns[0] == "**":
        rest = patterns[1:]
        # A last `**` is all files below.
        return (not rest and bool(parts)) or any(_parts_match(parts[k:], rest) for k in range(len(parts)) if rest)
    return bool(parts) and fnmatchcase(parts[0], patterns[0]) and _parts_match(parts[1:], patterns[1:])


def _is_below(path: str, folder: str) -> bool:
    return not folder or path.startswith(f"{folder}/")


def _is_visible(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return not any(part.startswith((".", "_")) for part in parts) and parts[-1] not in _NO_DATA


def _listing(names: Iterable[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - _NAMES_SHOWN} more" if shown[_NAMES_SHOWN:] else ""
    return (", ".join(shown[:_NAMES_SHOWN]) + more) or "nothing"
