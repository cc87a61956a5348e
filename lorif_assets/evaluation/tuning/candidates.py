"""Which recipes are worth a trial under a budget of bytes per example."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import product
from typing import Any

from lorif_assets.config.recipe import Recipe
from lorif_assets.mathematics.gradients.projection import Projection

_PROJECTION_FACTORS = (1, 2, 4, 8, 16)
_SVD: Mapping[str, Sequence[Any]] = {"rank": (1, 4), "r": (64, 256), "damping": (0.1, 1.0, 3.0)}
_EKFAC: Mapping[str, Sequence[Any]] = {"factor_dtype": ("int4", "sign"), "fisher_damping": (0.1,)}
_BUDGET_SHARES = (0.25, 0.5, 1.0)


def candidates(current: Recipe, budget: int, with_head: Sequence[str] = ()) -> Iterator[list[Recipe]]:
    """Yield groups of recipes that share layers and projections, the current recipe's first.

    No two recipes give the same scores.

    Args:
        current: what layers, seeds, lengths and types are taken from; it is the first candidate.
        budget: bytes per example; recipes that turn out to need more are tried too, for the sake of the picture.
        with_head: patterns of the tracked layers and the LM head, where that is worth a trial.
    """
    seen: set[str] = set()
    for projection in _projections(current.projection):
        base = current.projected(projection)
        first = [current] if projection == current.projection else []
        groups = [[*first, *_svd(base), *_ekfac(base, budget)]]
        if with_head and not projection.keeps_every_width:
            groups.append(list(_ekfac(base.changed(include_layers=tuple(with_head)), budget)))
        for group in groups:
            if unseen := _unseen(group, seen):
                yield unseen


def patterns_with_head(tracked: Iterable[str], head: str | None, excluded: Sequence[str] = ()) -> tuple[str, ...]:
    """Return patterns of the tracked layers' blocks and the LM head.

    None where the head has no name, is tracked already or matches a pattern that excludes it.
    """
    names = list(tracked)
    if head is None or head in names or any(fnmatchcase(head, pattern) for pattern in excluded):
        return ()
    # Up to the number of the block: `transformer.h.*` for `transformer.h.0.attn.c_attn`.
    blocks = dict.fromkeys(re.sub(r"(^|\.)\d+\..*", r"\1*", name) for name in names)
    return (*blocks, head)


def _projections(current: Projection) -> list[Projection]:
    """Return the projections to try, each once, the current one first."""
    plain = [Projection(factor=factor, seed=current.seed) for factor in _PROJECTION_FACTORS]
    return [current, *(projection for projection in plain if projection != current)]


def _unseen(recipes: Iterable[Recipe], seen: set[str]) -> list[Recipe]:
    """Return the recipes whose scores none before them has, and count them among those that are seen."""
    found = []
    for recipe in recipes:
        if recipe.score_hash not in seen:
            seen.add(recipe.score_hash)
            found.append(recipe)
    return found


def _svd(base: Recipe) -> Iterator[Recipe]:
    # Without a projection the eigenvectors of wide layers take gigabytes.
    if base.projection.keeps_every_width:
        return
    for rank, r, damping in product(*_SVD.values()):
        yield base.changed(
            curvature="svd",
            rank=rank,
            r=r,
            damping=damping,
            damping_rule="trace",
            curvature_form="tail_corrected",
            refinements=0,
            factor_dtype="bf16",
            bytes_per_example=None,
        )


def _ekfac(base: Recipe, budget: int) -> Iterator[Recipe]:
    for factor_dtype, damping in product(*_EKFAC.values()):
        for share in _BUDGET_SHARES:
            yield base.changed(
                curvature="ekfac",
                factor_dtype=factor_dtype,
                fisher_damping=damping,
                bytes_per_example=max(1, round(share * budget)),
            )


def differing_fields(recipes: Iterable[Recipe]) -> list[str]:
    """Return the fields in which some of the recipes differ."""
    found = [recipe.model_dump() for recipe in recipes]
    return [name for name in Recipe.model_fields if len({repr(one[name]) for one in found}) > 1]
