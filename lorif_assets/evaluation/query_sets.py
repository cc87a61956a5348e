"""Which query sets an evaluation uses."""

from collections.abc import Sequence

from lorif_assets.config.settings import Settings
from lorif_assets.data.query_files import query_files
from lorif_assets.errors import MismatchError
from lorif_assets.lake.data_tables import QUERY_EXAMPLES
from lorif_assets.lake.lake import Lake


def evaluated_query_sets(settings: Settings, lake: Lake) -> Sequence[str]:
    """Return the active query sets, all of which must be in the lake.

    Raises:
        MismatchError: there is none.
    """
    found = active_query_sets(settings, lake)
    if not found:
        raise MismatchError("no active query set is in `query_examples`; materialize it there first")
    return found


def active_query_sets(settings: Settings, lake: Lake) -> Sequence[str]:
    """Return the active query sets that are in the lake."""
    setting = settings.active.query_sets
    active_names = list(query_files(settings)) if setting == "all" else list(setting)
    stored = set(lake.read(QUERY_EXAMPLES, ["query_set"])["query_set"])
    return [name for name in active_names if name in stored]
