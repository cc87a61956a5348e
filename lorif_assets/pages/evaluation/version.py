"""The version of an evaluation page: the hash of everything that it shows."""

from lorif_assets.config.content_hash import content_hash
from lorif_assets.lake.data_tables import QUERY_EXAMPLES
from lorif_assets.lake.evaluation_tables import (
    EVALUATION_FIGURES,
    EVALUATION_REPORTS,
    METHOD_COSTS,
    RECIPE_TRIALS,
    REMOVAL_LOSSES,
    SELECTION_LOSSES,
    SUBSET_LOSSES,
)
from lorif_assets.lake.lake import Lake


def page_version(lake: Lake, checkpoint: str, query_set: str) -> str | None:
    """Return the version that the page of a checkpoint and query set should have, or None where nothing was evaluated."""
    partition = {"checkpoint": checkpoint, "query_set": query_set}
    *measured, selections = (
        lake.read(schema, [part, "computed_from"], **partition).unique().sort(part, "computed_from").rows()
        for schema, part in (
            (EVALUATION_FIGURES, "evaluation"),
            (METHOD_COSTS, "method"),
            (REMOVAL_LOSSES, "removal"),
            (RECIPE_TRIALS, "recipe"),
            (SELECTION_LOSSES, "selection"),
        )
    )
    if not any([*measured, selections]):
        return None
    columns = ["subset", "seed", "computed_from"]
    losses = lake.read(SUBSET_LOSSES, columns, query_set=query_set).unique().sort(columns).rows()
    queries = lake.read(QUERY_EXAMPLES, ["query_set_hash"], query_set=query_set).unique().rows()
    # Pages of before there were selections stay what they were.
    return content_hash([measured, losses, queries, *([selections] if selections else [])])


def stored_page_versions(lake: Lake) -> dict[str, str]:
    """Return by partition (checkpoint and query set) the version of the page that was made."""
    rows = lake.read(EVALUATION_REPORTS, ["checkpoint", "query_set", "computed_from"])
    return {f"{checkpoint}|{query_set}": version for checkpoint, query_set, version in rows.iter_rows()}
