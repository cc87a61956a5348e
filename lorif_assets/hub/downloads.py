"""Downloads from the hub to its cache, which a look that must not take long leaves running."""

import glob
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any

from tqdm import tqdm

from lorif_assets.errors import HubError
from lorif_assets.hub.connection import asked, cache, endpoint, in_background
from lorif_assets.hub.names import HubName

# A repository has at least one of them as a rule, and both are small.
_DESCRIPTION = ("README.md", ".gitattributes")
_patience: ContextVar[float | None] = ContextVar("patience", default=None)
_running: dict[tuple[str, str, tuple[str, ...]], Future[None]] = {}
_starting = Lock()


@contextmanager
def downloads_within(seconds: float) -> Iterator[None]:
    """Wait no longer than this for each download inside; what takes longer goes on, and is an error until it is done."""
    before = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(before)


def download(name: HubName, commit: str, paths: Sequence[str]) -> None:
    """Download files of a repository as it was at a commit.

    Raises:
        HubError: the hub refuses them or cannot be reached, or they are not here after `downloads_within`.
    """

    def ask() -> None:
        asked(name, lambda: _download(name, commit, paths, _TerminalBar), is_download=True)

    patience = _patience.get()
    if patience is None:
        ask()
        return
    key = (cache(), commit, tuple(paths))
    with _starting:
        running = _running.get(key) or _running.setdefault(key, in_background(ask))
    if not wait([running], patience).done:
        raise HubError(f"{len(paths)} files of {name} are being downloaded; what needs them waits until they are here")
    _running.pop(key, None)
    running.result()


def download_description(name: HubName, commit: str) -> None:
    """Download what describes a repository; with it, huggingface_hub keeps the list of its files in the cache."""
    _download(name, commit, _DESCRIPTION, _HiddenBar)


def _download(name: HubName, commit: str, paths: Sequence[str], bar: type[tqdm]) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download(
        name.repository,
        repo_type=name.kind,
        revision=commit,
        cache_dir=cache(),
        endpoint=endpoint(),
        allow_patterns=[glob.escape(path) for path in paths],
        tqdm_class=bar,
    )


class _HiddenBar(tqdm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "disable": True})


class _TerminalBar(tqdm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # disable=None: no bar where standard error is no terminal.
        super().__init__(*args, **{**kwargs, "disable": None, "leave": False})
