"""Every module that mutants are made of has tests that are run on it, however they import it."""

from pathlib import Path

import pytest

from tests.mutants.run import _MATHEMATICS, _PARTS, _tests_of

MODULES = [file for part in _PARTS for file in sorted((_MATHEMATICS / part).glob("[!_]*.py"))]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_has_tests_of_its_own_or_of_a_module_that_imports_it(module: Path) -> None:
    assert _tests_of(module)


def test_a_module_that_tests_import_beside_others_has_them() -> None:
    assert _tests_of(_MATHEMATICS / "scores/sign_scores.py")[0].name == "test_sign_scores.py"
