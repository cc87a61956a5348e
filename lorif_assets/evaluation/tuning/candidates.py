"""Which recipes are worth a trial under a budget of bytes per example."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from lorif_assets.config.recipe import Recipe

_PROJECTION_FACTORS = (1, 2, 4, 8, 16)
_SVD: Mapping[str, Sequence[Any]] = {"rank": (1, 4), "r": (64, 256), "damping": (0.1, 1.0, 3.0)}
_EKFAC: Mapping[str, Sequence[Any]] = {"factor_dtype": ("int4", "sign"), "fisher_damping": (0.1,)}
_BUDGET_SHARES = (0.25, 0.5, 1.0)


def candidates(current: Recipe, budget: int, with_head: Sequence[str] = ()) -> Iterator[list[Recipe]]:
    """Yield groups of recipes that share layers and projections, the current recipe's first.

    Args:
        current: what layers, seeds, lengths and types are taken from; it is the first candidate.
        budget: bytes per example; recipes that turn out to need more are tried too, for the sake of the picture.
        with_head: patterns of the tracked layers and the LM head, where that is worth a trial.
    """
    factors = sorted(_PROJECTION_FACTORS, key=lambda f: (f != current.projection_factor, f))
    for factor in factors:
        is_current = factor == current.projection_factor
        base = current if is_current else _changed(current, projection_factor=factor, max_width=None)
        group = [*_svd(base), *_ekfac(base, budget)]
        yield [current, *(recipe for recipe in group if recipe != current)] if is_current else group
        if with_head and _is_projected(base):
            yield list(_ekfac(_changed(base, include_layers=tuple(with_head)), budget))


def patterns_with_head(tracked: Iterable[str], head: str | None) -> tuple[str, ...]:
    """Return patterns of the tracked layers' blocks and the LM head; none where it has no name or is tracked already."""
    names = list(tracked)
    if head is None or head in names:
        return ()
    # Up to the number of the block: `transformer.h.*` for `transformer.h.0.attn.c_attn`.
    blocks = dict.fromkeys(re.sub(r"(^|\.)\d+\..*", r"\1*", name) for name in names)
    return (*blocks, head)


def _is_projected(recipe: Recipe) -> bool:
    return recipe.projection_factor > 1 or recipe.max_width is not None


def _svd(base: Recipe) -> Iterator[Recipe]:
    # Without a projection the eigenvectors of wide layers take gigabytes.
    if not _is_projected(base):
        return
    for rank, r, damping in product(*_SVD.values()):
        yield _changed(
            base,
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
            yield _changed(
                base,
                curvature="ekfac",
                factor_dtype=factor_dtype,
                fisher_damping=damping,
                bytes_per_example=round(share * budget),
            )


def _changed(recipe: Recipe, **fields: object) -> Recipe:
    return Recipe.model_validate({**recipe.model_dump(), **fields})


def differing_fields(recipes: Iterable[Recipe]) -> list[str]:
    """Return the fields in which some of the recipes differ."""
    found = [recipe.model_dump() for recipe in recipes]
    return [name for name in Recipe.model_fields if len({repr(one[name]) for one in found}) > 1]
