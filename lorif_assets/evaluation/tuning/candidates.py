"""Which recipes are worth a trial under a budget of bytes per example."""

import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import product

from lorif_assets.attribution.stored.curvatures import CURVATURES
from lorif_assets.config.recipe import Recipe
from lorif_assets.mathematics.gradients.projection import Projection

_PROJECTION_FACTORS = (1, 2, 4, 8, 16)


def candidates(recipe: Recipe, budget: int, head_patterns: Sequence[str] = ()) -> Iterator[list[Recipe]]:
    """Yield groups of recipes that share layers and projections, the current recipe's first.

    No two recipes give the same scores.

    Args:
        recipe: the current one, which gives layers, seeds, lengths and types, and is the first candidate.
        budget: bytes per example; recipes that turn out to need more are tried too, to complete the picture.
        head_patterns: patterns of the tracked layers and the LM head, if the head is worth a trial.
    """
    score_hashes: set[str] = set()
    for projection in _projections(recipe.projection):
        base = recipe.projected(projection)
        first = [recipe] if projection == recipe.projection else []
        groups = [[*first, *_trials(base, budget, wide=projection.keeps_every_width)]]
        if head_patterns and not projection.keeps_every_width:
            groups.append(list(_trials(base.changed(include_layers=tuple(head_patterns)), budget, wide=True)))
        for group in groups:
            if unseen := _unseen(group, score_hashes):
                yield unseen


def patterns_with_head(layers: Iterable[str], head: str | None, exclusions: Sequence[str] = ()) -> tuple[str, ...]:
    """Return patterns of the tracked layers' blocks and the LM head.

    None if the head has no name, is already tracked or matches a pattern that excludes it.
    """
    names = list(layers)
    if head is None or head in names or any(fnmatchcase(head, pattern) for pattern in exclusions):
        return ()
    # Up to the number of the block: `transformer.h.*` for `transformer.h.0.attn.c_attn`.
    blocks = dict.fromkeys(re.sub(r"(^|\.)\d+\..*", r"\1*", name) for name in names)
    return (*blocks, head)


def _projections(own: Projection) -> list[Projection]:
    """Return the projections to try, each once, the recipe's own first."""
    plain = [Projection(factor=factor, seed=own.seed) for factor in _PROJECTION_FACTORS]
    return [own, *(projection for projection in plain if projection != own)]


def _unseen(recipes: Iterable[Recipe], score_hashes: set[str]) -> list[Recipe]:
    """Return the recipes whose score hashes are not in the set yet, and add these to it."""
    found = []
    for recipe in recipes:
        if recipe.score_hash not in score_hashes:
            score_hashes.add(recipe.score_hash)
            found.append(recipe)
    return found


def _trials(base: Recipe, budget: int, *, wide: bool) -> Iterator[Recipe]:
    """Yield a base's recipes of every curvature; where layers are `wide`, of those that can be tried on such layers."""
    for name, kind in CURVATURES.items():
        trials = kind.trials
        if trials is None or (wide and not trials.wide):
            continue
        for values in product(*trials.values.values()):
            fields = {**trials.fixed, **dict(zip(trials.values, values, strict=True))}
            for share in trials.budget_shares or (None,):
                kept = None if share is None else max(1, round(share * budget))
                yield base.changed(curvature=name, bytes_per_example=kept, **fields)


def differing_fields(recipes: Iterable[Recipe]) -> list[str]:
    """Return the fields in which some of the recipes differ."""
    found = [recipe.model_dump() for recipe in recipes]
    return [name for name in Recipe.model_fields if len({repr(one[name]) for one in found}) > 1]
