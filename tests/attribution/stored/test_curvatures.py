"""What differs between curvatures is told in one place."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest

import lorif_assets
from lorif_assets.attribution.stored.curvatures import CURVATURES, curvature_of
from lorif_assets.config.curvature_fields import CURVATURE_FIELDS
from lorif_assets.config.recipe import Recipe
from lorif_assets.lake.tables import TABLES

ROOT = Path(lorif_assets.__file__).parent
NAME = rf"""["'](?:{"|".join(CURVATURES)})["']"""
COMPARED = re.compile(
    rf"\bcurvature\)? *[!=]=|\bcurvature\)? +(?:not +)?in *[(\[{{]|[!=]= *{NAME}|{NAME} *[!=]=|\bmatch .*\bcurvature\b"
)


def test_no_line_of_the_code_compares_a_curvature_with_a_name() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in sorted([*ROOT.rglob("*.py"), *ROOT.rglob("*.jinja")])
        for number, line in enumerate(file.read_text().splitlines(), start=1)
        if COMPARED.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        'if recipe.curvature == "ekfac":',
        "if settings.recipe.curvature != other:",
        'x = 1 if "svd" == name else 2',
        'if recipe.curvature in ("svd", "ekfac"):',
        "match recipe.curvature:",
    ],
)
def test_the_search_finds_comparisons(line: str) -> None:
    assert COMPARED.search(line)


def test_settings_and_lake_know_the_same_curvatures() -> None:
    assert set(CURVATURES) == set(CURVATURE_FIELDS) == set(get_args(Recipe.model_fields["curvature"].annotation))


@pytest.mark.parametrize("name", CURVATURES)
def test_a_curvature_is_stored_in_a_table_with_what_every_such_table_has(name: Any) -> None:
    table = curvature_of(Recipe(curvature=name)).table
    assert TABLES[table.name] == table
    assert {"eigenvalues", "trace", "damping", "state_uri", "ledger", "state_version"} <= set(table.columns.names)


@pytest.mark.parametrize("name", CURVATURES)
def test_every_field_of_a_curvature_is_one_of_the_recipe(name: str) -> None:
    fields = CURVATURE_FIELDS[name]
    assert {*fields.factors, *fields.preconditioners, *fields.scores} <= Recipe.model_fields.keys()
    assert fields.damping in fields.preconditioners
