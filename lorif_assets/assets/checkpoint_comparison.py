"""Across checkpoints: how the leading training examples and the loss of every query of a set move."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Input, Materializations, Wait, attribution_asset
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.assets.query_scores import query_scores
from lorif_assets.freshness.attribution import stale_comparisons
from lorif_assets.lake.attribution_tables import CHECKPOINT_COMPARISONS
from lorif_assets.pages import markdown
from lorif_assets.pages.addresses import comparison_address
from lorif_assets.pages.comparison.content import ComparisonContent, mean
from lorif_assets.pages.framed import framed_page
from lorif_assets.tracking.metric_names import metric_name

_MOVES = {"overlap_at_10": "mean_overlap_at_10", "rank_biased_overlap": "mean_rank_biased_overlap"}
"""How a checkpoint's own run calls what it says of the way from the checkpoint before."""
_TITLE = "loss and overlap along the checkpoints"
_COLUMNS = ("from", "to", "mean rank-biased overlap", "mean overlap@10", "entered per query", "mean loss per token")


@attribution_asset(
    group="attribution",
    table=CHECKPOINT_COMPARISONS,
    partitions=partitions.query_sets,
    inputs=[Input(query_scores, partitions.same(partitions.QUERY_SET), Wait.FOR_IT_ALONE)],
    find_stale=stale_comparisons,
    kinds={"html", "deltalake"},
)
def checkpoint_comparison(run: PartitionRun) -> Materializations:
    """How each query's proponents move between neighbouring checkpoints (overlap, entries, exits), and its loss."""
    from lorif_assets.pages.comparison.assembly import assemble, comparison_rows
    from lorif_assets.pages.comparison.page import render

    lake = run.lake
    for query_set in run.partitions:
        content = assemble(run.project, query_set, run.provenance)
        html = render(content)
        where, page = lake.write_page(comparison_address(query_set), html.encode())
        stored = lake.read(CHECKPOINT_COMPARISONS, ["to_checkpoint", "computed_from"], query_set=query_set)
        _track(run, content, set(stored.unique().iter_rows()), html)
        rows = comparison_rows(content, run.settings.recipe, page)
        lake.replace(CHECKPOINT_COMPARISONS, {"query_set": query_set}, rows)
        yield from run.commit(
            query_set,
            content.compared.version,
            {
                "dagster/row_count": rows.num_rows,
                "report": dg.MetadataValue.path(where),
                "checkpoints": len(content.checkpoints),
                "queries": len(content.queries),
                **_findings(content),
            },
        )


def _track(run: PartitionRun, content: ComparisonContent, stored_versions: set[tuple[str, str]], page: str) -> None:
    """Give each newer checkpoint a run with its figures, unless the same scores were compared before; the project the page."""
    losses, overlaps, stayed = content.mean_losses[1:], content.mean_rank_biased_overlaps, content.mean_overlaps_at_10
    for pair, loss, overlap, share in zip(content.compared.neighbours, losses, overlaps, stayed, strict=True):
        if (pair.newer.name, pair.version) in stored_versions:
            continue
        params = {"query_set": content.query_set, "from_checkpoint": pair.older.name}
        figures = {"mean_rank_biased_overlap": overlap, "mean_overlap_at_10": share, "mean_loss_per_token": loss}
        with run.tracked(pair.newer.name, [content.query_set], params) as tracked:
            if tracked:
                known = {name: value for name, value in figures.items() if value is not None}
                tracked.metrics(known)
                tracked.checkpoint_metrics(
                    {
                        metric_name(name, content.query_set): known[figure]
                        for name, figure in _MOVES.items()
                        if figure in known
                    }
                )
                framed = framed_page(page, run.settings.addresses.explorer)
                tracked.text(framed, comparison_address(content.query_set), "project")


def _findings(content: ComparisonContent) -> dict[str, Any]:
    left_out = {"left_out": dict(content.compared.exclusions)} if content.compared.exclusions else {}
    stale = {"outdated": list(content.stale_checkpoints)} if content.stale_checkpoints else {}
    if not content.compared.neighbours:
        why = "fewer than two checkpoints have scores of the current recipe for this query set: nothing to compare"
        return {"note": why, **left_out, **stale}
    overlap = mean(value for value in content.mean_rank_biased_overlaps if value is not None)
    return {
        **({} if overlap is None else {"mean_rank_biased_overlap": overlap}),
        "movement": dg.MetadataValue.md(markdown.table(_COLUMNS, _movement(content), numbers=_COLUMNS[2:])),
        "along_the_checkpoints": dg.MetadataValue.md(markdown.picture(_picture(content), _TITLE)),
        **left_out,
        **stale,
    }


def _movement(content: ComparisonContent) -> Iterator[tuple[str, ...]]:
    """Yield the cells of every two neighbouring checkpoints."""
    losses = content.mean_losses
    for index, (pair, overlap, share) in enumerate(
        zip(content.compared.neighbours, content.mean_rank_biased_overlaps, content.mean_overlaps_at_10, strict=True)
    ):
        entered = mean(len(transition.entered) for transition in content.transitions(index))
        figures = [_figure(overlap, ".3f"), _figure(share, ".0%"), _figure(entered, ".1f")]
        change = f"{_figure(losses[index], '.4g')} → {_figure(losses[index + 1], '.4g')}"
        yield (markdown.code(pair.older.name), markdown.code(pair.newer.name), *figures, change)


def _figure(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _picture(content: ComparisonContent) -> bytes:
    from lorif_assets.pages import look as plots
    from lorif_assets.pages.comparison.plots import movement_figure

    return plots.png(movement_figure(content, plots.LIGHT))
