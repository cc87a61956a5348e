"""How rows become tokens where trainers differ: what a recipe says of it, for training data and for queries."""

from dataclasses import dataclass
from datetime import date
from typing import Self

from lorif_assets.config.recipe import Recipe
from lorif_assets.config.recipe_fields import TEMPLATE_DATE, TruncationRule


@dataclass(frozen=True)
class TokenRules:
    """How long rows are cut, whether prompt and completion are one text, whether EOS is appended, chat templates' date."""

    truncation: TruncationRule = "keep_start"
    joint: bool = True
    append_eos: bool = False
    template_date: date = TEMPLATE_DATE

    @classmethod
    def of_examples(cls, recipe: Recipe) -> Self:
        """Return the rules for training data."""
        return cls(recipe.truncation, recipe.prompt_completion == "joint", recipe.append_eos, recipe.template_date)

    @classmethod
    def of_queries(cls, recipe: Recipe) -> Self:
        """Return the rules for queries: no EOS is appended, as a query asks about the words that it gives and no others."""
        joint = recipe.prompt_completion == "joint"
        return cls(recipe.query_truncation, joint, append_eos=False, template_date=recipe.template_date)
