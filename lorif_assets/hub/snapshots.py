"""What a repository holds at one commit, and its files in the hub's cache."""

import logging
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path, PurePosixPath

from lorif_assets.errors import HubError
from lorif_assets.hub.connection import (
    OFFLINE,
    PATIENCE_SECONDS,
    UnreachableError,
    asked,
    cache,
    endpoint,
    is_offline,
    shown_endpoint,
)
from lorif_assets.hub.downloads import download, download_description
from lorif_assets.hub.names import HubName

_LOG = logging.getLogger(__name__)
# Said once in a process, and again after the hub has answered in the meantime.
_reported: set[HubName] = set()
_answers: "ContextVar[dict[tuple[str, str, HubName], Snapshot | HubError] | None]" = ContextVar("answers", default=None)


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit."""

    name: HubName
    commit: str
    obstacle: str | None = None
    """Why the hub could not be asked which commit the name stands for, so that the last one known was taken."""

    @property
    def notice(self) -> str | None:
        """What is to be known of the name, as a sentence; None where it stands for one commit for ever."""
        if self.obstacle:
            return f"{self.obstacle}, so {self.name} is taken at the commit that was seen last, {self.commit}"
        if self.name.is_pinned:
            return None
        return f"follows {self.name.followed!r}, which may move; {self.name.at(self.commit)} would stay as it is now"

    @cached_property
    def folder(self) -> Path:
        """Where its files lie once they are fetched."""
        from huggingface_hub.file_download import repo_folder_name

        repository = repo_folder_name(repo_id=self.name.repository, repo_type=self.name.kind)
        return Path(cache(), repository, "snapshots", self.commit)

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of all files of the repository, sorted.

        Offline, where the cache has no list of them, those that it holds.

        Raises:
            HubError: the hub refuses to list them, or cannot be reached, and the cache does not have them.
        """
        return tuple(sorted(self._listed))

    def content_of(self, paths: Iterable[str]) -> str | None:
        """Return a hash of files' content by the hub's own hashes, which another commit may share; None where it lists none.

        Raises:
            HubError: as `files`.
        """
        hashes = {path: self._listed[path] for path in paths}
        if not hashes or not all(hashes.values()):
            return None
        return blake2b(repr(sorted(hashes.items())).encode(), digest_size=16).hexdigest()

    @cached_property
    def names_by_folder(self) -> Mapping[str, list[str]]:
        """The names of the files in each folder, sorted; the folder of the repository itself is ".".

        Raises:
            HubError: as `files`.
        """
        names: dict[str, list[str]] = {}
        for path in map(PurePosixPath, self.files):
            names.setdefault(str(path.parent), []).append(path.name)
        return names

    def has_same(self, path: str, other: str) -> bool | None:
        """Whether two files are the same by the hub's own hashes; None where it lists none.

        Raises:
            HubError: as `files`.
        """
        hashes = self._listed[path], self._listed[other]
        return hashes[0] == hashes[1] if all(hashes) else None

    @cached_property
    def _listed(self) -> Mapping[str, str]:
        """The hub's hash of each file by path; empty texts where the cache has files and no list of them.

        Raises:
            HubError: the hub refuses to list them, or cannot be reached, and the cache does not have them.
        """
        from huggingface_hub import get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError

        def listed() -> Mapping[str, str]:
            found = get_cached_repo_tree(
                self.name.repository, repo_type=self.name.kind, revision=self.commit, cache_dir=cache()
            )
            return {file.path: file.blob_id for file in found}

        try:
            return listed()
        except CachedRepoTreeNotFoundError:
            pass
        try:
            self._require_hub()
            asked(self.name, lambda: download_description(self.name, self.commit))
            return listed()
        except (UnreachableError, CachedRepoTreeNotFoundError) as error:
            # Out of reach, huggingface_hub is content with a snapshot of which it has no list.
            held = sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())
            if not held:
                raise _missing(self.name, str(error)) from error
            _LOG.warning(
                f"{self.name} at {self.commit[:12]}: {error}; the files that {self.folder} holds are taken for all"
            )
            return dict.fromkeys(held, "")

    def uri(self, path: str) -> str:
        """Return the name of one of its files, with the commit."""
        return self.name.at(self.commit, path)

    def fetch(self, paths: Iterable[str]) -> Path:
        """Return the snapshot's folder, in which these files of it now lie.

        Raises:
            HubError: they are not in the cache, and cannot be downloaded.
        """
        missing = self._absent(paths)
        if not missing:
            return self.folder
        try:
            self._require_hub()
            download(self.name, self.commit, missing)
            if still_missing := self._absent(missing):
                raise UnreachableError(f"{shown_endpoint()} did not send {still_missing[0]}")
        except UnreachableError as error:
            raise _missing(self.name, str(error), missing) from error
        return self.folder

    def _require_hub(self) -> None:
        if is_offline():
            raise UnreachableError(OFFLINE)
        # Where nobody answers, this fails at once, and huggingface_hub's downloads only after many attempts.
        asked(self.name, lambda: _current_commit(replace(self.name, revision=self.commit)))

    def _absent(self, paths: Iterable[str]) -> list[str]:
        return [path for path in paths if not (self.folder / path).is_file()]


@contextmanager
def asked_once() -> Iterator[None]:
    """Have each name stand for one commit within this: the hub is asked for it once, however many adapters name it."""
    if _answers.get() is not None:
        yield
        return
    before = _answers.set({})
    try:
        yield
    finally:
        _answers.reset(before)


def snapshot_of(name: HubName) -> Snapshot:
    """Return a repository at the commit that its name stands for now, or did where `asked_once` began.

    Nothing is asked for a name with a commit. Where the hub cannot be reached, or in offline mode, a branch or tag stands for
    the commit at which it was seen last.

    Raises:
        HubError: the repository or the revision does not exist or must not be read, or the hub cannot be reached and the
            cache does not know the revision.
    """
    answers = _answers.get()
    if answers is None:
        return _asked_for(name)
    key = (endpoint(), cache(), name)
    if key not in answers:
        try:
            answers[key] = _asked_for(name)
        except HubError as error:
            answers[key] = error
    answer = answers[key]
    if isinstance(answer, HubError):
        raise answer
    return answer


def _asked_for(name: HubName) -> Snapshot:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionResolutionError

    if name.is_pinned:
        return Snapshot(name, str(name.revision))
    obstacle = None
    if not is_offline():
        try:
            found = Snapshot(name, asked(name, lambda: _current_commit(name)))
        except UnreachableError as error:
            obstacle = str(error)
        else:
            _remember(found)
            _reported.discard(name)
            return found
    try:
        known = HfApi().resolve_revision(
            name.repository,
            repo_type=name.kind,
            revision=name.revision,
            cache_dir=cache(),
            local_files_only=True,
        )
    except RevisionResolutionError as error:
        raise _missing(name, obstacle or OFFLINE) from error
    snapshot = Snapshot(name, known.resolved, obstacle or OFFLINE)
    if name not in _reported:
        _reported.add(name)
        _LOG.warning(f"{snapshot.notice}")
    return snapshot


def _current_commit(name: HubName) -> str:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint())
    found = api.repo_info(name.repository, repo_type=name.kind, revision=name.revision, timeout=PATIENCE_SECONDS)
    return str(found.sha)


def _remember(snapshot: Snapshot) -> None:
    """Keep which commit a branch stands for where huggingface_hub looks for it while the hub is out of reach."""
    ref = snapshot.folder.parent.parent / "refs" / (snapshot.name.revision or "main")
    try:
        if not ref.is_file() or ref.read_text() != snapshot.commit:
            ref.parent.mkdir(parents=True, exist_ok=True)
            partial = ref.with_name(f".{ref.name}-{uuid.uuid4().hex}")
            partial.write_text(snapshot.commit)
            partial.replace(ref)
    except OSError as error:
        _LOG.warning(f"{ref} cannot be written ({error.strerror}): without the hub, {snapshot.name} will not be found")


def _missing(name: HubName, obstacle: str, paths: Iterable[str] = ()) -> HubError:
    lacking = list(paths)
    what = f"{lacking[0]} of {name}" if lacking else f"{name}, revision {name.followed!r},"
    more = f" (and {len(lacking) - 1} more files)" if lacking[1:] else ""
    kind = " --repo-type dataset" if name.kind == "dataset" else ""
    revision = f" --revision {name.revision}" if name.revision else ""
    return HubError(
        f"{what}{more} is not in the cache {cache()}, and {obstacle}. Check the network, HF_ENDPOINT (now {shown_endpoint()}) "
        f"and HF_HOME; or run `hf download {name.repository}{kind}{revision}` where the hub can be reached, and bring the "
        "cache here"
    )
