"""Influcoder's agreement with held-out influences, over seeds, beside the untrained encoder."""

import time
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Materializations, attribution_asset
from lorif_assets.assets.influcoder_encoder import influcoder_encoder
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.config.content_hash import content_hash
from lorif_assets.freshness.influcoder import stale_agreements
from lorif_assets.influcoder.extra import require_influcoder
from lorif_assets.influcoder.sampling import Role, Split
from lorif_assets.influcoder.stored import StoredTargets, stored_encoder, stored_targets
from lorif_assets.lake.influcoder_tables import INFLUCODER_AGREEMENT
from lorif_assets.pages import markdown

if TYPE_CHECKING:
    from lorif_assets.influcoder.encoder import TextEncoder

SERVED, TRAINED, UNTRAINED = "served", "trained", "untrained"
_COLUMNS = ("encoder", "seed", "per anchor", "aggregated", "NDCG@20", "training s", "ms per text")


@attribution_asset(
    group="evaluation",
    table=INFLUCODER_AGREEMENT,
    partitions=partitions.checkpoints,
    inputs=[influcoder_encoder],
    find_stale=stale_agreements,
    is_used=lambda settings: settings.influcoder.enabled,
    on_device=True,
    kinds={"torch", "deltalake"},
)
def influcoder_agreement(run: PartitionRun) -> Materializations:
    """Spearman correlation of embedding cosines with the teacher's influences between held-out anchors and pool.

    Measured for the served encoder and, under each evaluation seed (which splits the sampled texts again into training and
    held-out ones), for an encoder trained from the base and for the untrained base. The truth is the teacher's, not that of
    retraining.
    """
    require_influcoder()
    from lorif_assets.influcoder.training import load_base, train_encoder

    settings, lake, chosen = run.settings, run.lake, run.settings.influcoder
    for name in run.partitions:
        record = run.stored(name).record
        targets = stored_targets(lake, record, chosen, settings.recipe)
        served = stored_encoder(lake, record, chosen, settings.recipe)
        with run.lease() as group, run.tracked(name, [name], chosen.model_dump()) as tracked:
            found = _measured(served.load(lake, chosen, group.first), targets, *targets.of_split(Split.HELD_OUT))
            rows = [{"encoder": SERVED, "seed": chosen.seed, "training_seconds": served.seconds, **found}]
            for seed in chosen.evaluation_seeds:
                dealt = targets.deal_again(seed)
                distil, held_out = dealt.of_split(Split.DISTIL), dealt.of_split(Split.HELD_OUT)
                encoder = load_base(settings, group.first)
                control = _measured(encoder, targets, *held_out)
                started = time.monotonic()
                train_encoder(encoder, targets, *distil, chosen.distillation(seed))
                seconds = time.monotonic() - started
                trained = _measured(encoder, targets, *held_out)
                rows += [
                    {"encoder": UNTRAINED, "seed": seed, "training_seconds": 0.0, **control},
                    {"encoder": TRAINED, "seed": seed, "training_seconds": seconds, **trained},
                ]
                run.log.info(
                    f"{name} seed {seed}: per anchor {trained['per_anchor']:.3f}, untrained {control['per_anchor']:.3f}"
                )
            figures = _figures(rows)
            if tracked:
                tracked.metrics(figures)
        version = content_hash([chosen.agreement_hash, served.encoder_hash])
        constants = {
            "checkpoint": name,
            "teacher": targets.teacher,
            "teacher_seconds": targets.seconds,
            "recipe_hash": chosen.distillation_hash(settings.recipe),
            "computed_from": version,
        }
        table = pa.Table.from_pylist([row | constants for row in rows], schema=INFLUCODER_AGREEMENT.columns)
        lake.replace(INFLUCODER_AGREEMENT, {"checkpoint": name}, table)
        shown = dg.MetadataValue.md(markdown.table(_COLUMNS, map(_cells, rows), numbers=_COLUMNS[1:]))
        yield from run.commit(name, version, {"dagster/row_count": len(rows), **figures, "agreement": shown})


def _measured(
    encoder: "TextEncoder", targets: StoredTargets, anchors: Sequence[int], pool: Sequence[int]
) -> dict[str, Any]:
    from lorif_assets.mathematics.influcoder.agreement import agreement

    anchor_texts, pool_texts = [targets.anchors[i] for i in anchors], [targets.pool[i] for i in pool]
    # The set-up in the first call is not inference.
    encoder.embed(anchor_texts[:1], Role.ANCHOR)
    started = time.monotonic()
    predicted = encoder.embed(anchor_texts, Role.ANCHOR) @ encoder.embed(pool_texts, Role.POOL).mT
    seconds = time.monotonic() - started
    found = agreement(predicted, targets.matrix[list(anchors)][:, list(pool)])
    return {
        "per_anchor": found.per_anchor,
        "aggregated": found.aggregated,
        "ndcg_at_20": found.ndcg_at_20,
        "anchors": len(anchors),
        "pool": len(pool),
        "milliseconds_per_text": 1e3 * seconds / (len(anchors) + len(pool)),
    }


def _figures(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for encoder in (SERVED, TRAINED, UNTRAINED):
        of_encoder = [row for row in rows if row["encoder"] == encoder]
        for measure in ("per_anchor", "aggregated", "ndcg_at_20"):
            values = [float(row[measure]) for row in of_encoder]
            if values:
                figures[f"{encoder}_{measure}"] = fmean(values)
            if len(values) > 1:
                figures[f"{encoder}_{measure}_std"] = stdev(values)
    return figures


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    agreement = (f"{row['per_anchor']:+.3f}", f"{row['aggregated']:+.3f}", f"{row['ndcg_at_20']:.3f}")
    return (
        row["encoder"],
        str(row["seed"]),
        *agreement,
        f"{row['training_seconds']:.1f}",
        f"{row['milliseconds_per_text']:.2f}",
    )
