"""Can these scores be trusted? What the lake and the checks say about it, finding by finding, and a verdict."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import polars as pl

from lorif_assets.attribution.checkpoints.learned_by_heart import REMEDY, learned_by_heart
from lorif_assets.config.methods import MethodName
from lorif_assets.config.recipe import Recipe
from lorif_assets.data.rows.rejected import rejected_counts
from lorif_assets.data.rows.rejection_reasons import rows_set_aside
from lorif_assets.evaluation.figures import MEAN
from lorif_assets.influences.out_of_date import changed_since, up_to_date_by
from lorif_assets.lake.attribution_tables import KFAC_BASES, QUERY_SUMMARIES
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.lake.evaluation_tables import EVALUATION_FIGURES
from lorif_assets.lake.lake import Lake

SETTLED_AGREEMENT = 0.9
"""How far the K-FAC bases of two halves of a sample agree, at least, where more data would change little."""


class Standing(StrEnum):
    """What a finding says of the scores: they are sound, to be read with care, unsound, or nobody looked."""

    GOOD = "good"
    CAUTION = "caution"
    BAD = "bad"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class CheckOutcome:
    """What a check said when it last ran. One that warns finds what is to be read with care, not what is wrong."""

    name: str
    passed: bool
    is_warning: bool
    words: str
    remedy: str | None
    when: datetime


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, and what to do about it where there is something to do."""

    what: str
    standing: Standing
    words: str
    remedy: str | None = None


@dataclass(frozen=True)
class Trust:
    """The verdict on the scores of a query set at a checkpoint, and what it rests on, the worst first."""

    standing: Standing
    verdict: str
    findings: tuple[Finding, ...]


def trust(lake: Lake, recipe: Recipe, checkpoint: str, query_set: str, checks: Sequence[CheckOutcome]) -> Trust:
    """Return whether the stored scores of a query set at a checkpoint can be trusted.

    Args:
        lake: where they are stored.
        recipe: of the settings as they are now.
        checkpoint: whose scores they are.
        query_set: that was scored.
        checks: what the checks said when they last ran.
    """
    retraining = list(_retraining(lake, checkpoint, query_set))
    findings = [
        *_settings(lake, recipe, checkpoint, query_set),
        *retraining,
        *_bases(lake, checkpoint),
        *_by_heart(lake, checkpoint),
        *_set_aside(lake, checkpoint, query_set),
        *_checked(checks),
    ]
    worst = [Standing.BAD, Standing.CAUTION, Standing.UNKNOWN, Standing.GOOD]
    findings.sort(key=lambda finding: worst.index(finding.standing))
    return Trust(*_verdict(findings, retraining), tuple(findings))


def _verdict(findings: Sequence[Finding], retraining: Sequence[Finding]) -> tuple[Standing, str]:
    found = {standing: [one for one in findings if one.standing is standing] for standing in Standing}
    measured = any(one.standing is Standing.GOOD for one in retraining)
    if found[Standing.BAD]:
        return Standing.BAD, f"No: {found[Standing.BAD][0].words}."
    if found[Standing.CAUTION]:
        n = len(found[Standing.CAUTION])
        where = "one finding below says" if n == 1 else f"{n} findings below say"
        held = "retraining agrees with the scores" if measured else "nothing speaks against the scores"
        return Standing.CAUTION, f"With care: {held}, but {where} where to be careful."
    if measured:
        checked = ", and no check found a fault" if any(one.what.startswith("check ") for one in findings) else ""
        return Standing.GOOD, f"Yes, as far as was measured: retraining agrees with the scores{checked}."
    return Standing.UNKNOWN, "Nothing speaks against it, but nobody has held these scores against retraining."


def _settings(lake: Lake, recipe: Recipe, checkpoint: str, query_set: str) -> Iterator[Finding]:
    rows = lake.read(QUERY_SUMMARIES, ["recipe_hash", "n_examples"], checkpoint=checkpoint, query_set=query_set)
    remedy = f"run `lorif materialize`, or materialize `query_scores` for {checkpoint}|{query_set}"
    if set(rows["recipe_hash"]) == {recipe.score_hash}:
        yield Finding("settings", Standing.GOOD, "the scores were computed under the recipe that the settings have now")
    else:
        yield Finding(
            "settings", Standing.BAD, "the scores were computed under another recipe than the settings have now", remedy
        )
    if changed := changed_since(lake, recipe, checkpoint, query_set):
        yield Finding("up to date", Standing.CAUTION, changed, up_to_date_by(checkpoint))
    n_examples, n_stored = rows["n_examples"].max(), lake.read(TRAINING_EXAMPLES, ["shard"]).height
    if isinstance(n_examples, int) and n_examples < n_stored:
        words = f"{n_examples:,} of the {n_stored:,} training examples that are stored were scored"
        yield Finding("training data", Standing.CAUTION, words, remedy)


def _retraining(lake: Lake, checkpoint: str, query_set: str) -> Iterator[Finding]:
    figures = lake.read(
        EVALUATION_FIGURES, checkpoint=checkpoint, query_set=query_set, statistic=MEAN, method=MethodName.LORIF
    )
    datamodeling = figures.filter(pl.col("metric") == "lds").to_dicts()
    for row in datamodeling:
        words = (
            f"the sum of scores over random halves of the data predicts the loss after retraining on them with a rank "
            f"correlation (LDS) of {row['value']:.2f}, 95 % interval {row['low']:.2f} to {row['high']:.2f}"
        )
        remedy = "read `docs/evaluation.md`: another recipe, or more stored bytes, may predict it better"
        is_good = row["low"] > 0
        yield Finding("retraining", Standing.GOOD if is_good else Standing.BAD, words, None if is_good else remedy)
    if not datamodeling:
        yield Finding(
            "retraining", Standing.UNKNOWN, "these scores were not held against retraining", "run `lorif evaluate`"
        )
    for row in figures.filter(pl.col("metric") == "recall_at_10").to_dicts():
        words = f"of the known sources of its queries, {row['value']:.0%} are among the ten leading proponents"
        yield Finding("known sources", Standing.GOOD if row["value"] >= 0.5 else Standing.CAUTION, words)


def _bases(lake: Lake, checkpoint: str) -> Iterator[Finding]:
    rows = lake.read(KFAC_BASES, ["layer", "half_agreement", "n_examples"], checkpoint=checkpoint)
    if rows.is_empty():
        return
    unsettled = rows.filter(pl.col("half_agreement") < SETTLED_AGREEMENT)
    median, n_examples = float(rows.select(pl.median("half_agreement")).item()), rows["n_examples"][0]
    words = (
        f"bases of one half of {n_examples:,} examples fit the other half's by {median:.0%} in the median layer; in "
        f"{unsettled.height} of {rows.height} layers by less than {SETTLED_AGREEMENT:.0%}"
    )
    if unsettled.is_empty():
        yield Finding("curvature", Standing.GOOD, words)
    else:
        yield Finding("curvature", Standing.CAUTION, words, "raise `recipe.kfac_examples`")


def _by_heart(lake: Lake, checkpoint: str) -> Iterator[Finding]:
    for one in learned_by_heart(lake, checkpoint):
        if one.is_noteworthy:
            yield Finding("learned by heart", Standing.CAUTION, one.words, REMEDY)


def _set_aside(lake: Lake, checkpoint: str, query_set: str) -> Iterator[Finding]:
    for stage, what, of_set in (
        ("training_examples", "training data", None),
        ("gradient_factors", "training data at this checkpoint", None),
        ("query_examples", "queries", query_set),
        ("query_scores", "queries at this checkpoint", query_set),
    ):
        if counts := rejected_counts(lake, stage, [checkpoint], of_set):
            yield Finding(what, Standing.CAUTION, rows_set_aside(counts), "`lorif preview` shows such rows")


def _checked(checks: Sequence[CheckOutcome]) -> Iterator[Finding]:
    if not checks:
        remedy = "run the checks in Dagster's UI; `lorif materialize` runs those of what it computes"
        yield Finding("checks", Standing.UNKNOWN, "no outcome of a check is known", remedy)
    for one in checks:
        fault = Standing.CAUTION if one.is_warning else Standing.BAD
        when = f"{one.when:%Y-%m-%d %H:%M}"
        yield Finding(f"check {one.name}", Standing.GOOD if one.passed else fault, f"{one.words} ({when})", one.remedy)
