"""Files of sources where they lie: on this machine, on the hub, or in an object store."""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path

from lorif_assets.data.formats.hub_selection import hub_errors
from lorif_assets.errors import SourceError, StoreError
from lorif_assets.hub.names import HubName, is_hub_name
from lorif_assets.hub.snapshots import snapshot_of
from lorif_assets.lake.file_samples import MARK, sample_of, with_sample
from lorif_assets.stores.object_store import ObjectStore, copy_of, is_store_url


def place_of(uri: str, base: Path, storage_options: Mapping[str, str]) -> Path:
    """Return where a file of a source lies on this machine; one on the hub or in a store is fetched if it is not here yet.

    Raises:
        SourceError: it cannot be fetched.
    """
    if is_store_url(uri):
        try:
            return copy_of(uri, storage_options)
        except StoreError as error:
            raise SourceError(str(error)) from error
    if not is_hub_name(uri):
        return base / uri
    with hub_errors():
        name = HubName.parse(uri)
        return snapshot_of(name).fetch([name.path]) / name.path


def exists(uri: str, base: Path, storage_options: Mapping[str, str]) -> bool:
    """Whether there is a file of a source, on this machine, on the hub or in a store, from where it is not fetched.

    Raises:
        SourceError: the hub or the store cannot be asked.
    """
    if is_store_url(uri):
        parent, _, name = uri.rpartition("/")
        try:
            return ObjectStore.at(parent, storage_options).file(name) is not None
        except StoreError as error:
            raise SourceError(str(error)) from error
    if not is_hub_name(uri):
        return (base / uri).exists()
    with hub_errors():
        name_on_hub = HubName.parse(uri)
        return name_on_hub.path in snapshot_of(name_on_hub).files


def state_at(uri: str, place: Path) -> str:
    """Return what changes when a file of a source is written; on the hub, that is the commit, on every machine.

    Raises:
        SourceError: it does not exist.
    """
    return str(HubName.parse(uri).revision) if is_hub_name(uri) else file_state(place)


def joint_state(states: Iterable[str]) -> str:
    """Return the state of several files, which changes when one of them is written; that of one file is its own."""
    first, *others = states
    if not others:
        return first
    parts = [state.partition(MARK) for state in (first, *others)]
    digest = blake2b(
        "\0".join(state for state, _, _ in parts).encode(errors="surrogatepass"), digest_size=16
    ).hexdigest()
    return with_sample(digest, "".join(sample for _, _, sample in parts))


def file_state(path: Path) -> str:
    """Return what changes when a file is written: size and time, and samples of its content.

    Raises:
        SourceError: it does not exist.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}. List the source's shards again.") from error
    return with_sample(f"{found.st_size}-{found.st_mtime_ns}", sample_of(path))
