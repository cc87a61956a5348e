"""Which matrices of all pairs stay in memory while methods are run: those that other methods build on, and no others."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from lorif_assets.evaluation import methods
from lorif_assets.evaluation.methods import evaluated_scores, lexical, lorif, relatif
from lorif_assets.evaluation.methods.inputs import MethodInputs, MethodScores, Scorable


def empty_inputs() -> MethodInputs:
    nothing = cast("Any", None)
    return MethodInputs(nothing, nothing, nothing, nothing, {}, Scorable([], []))


def test_a_function_is_kept_where_another_one_asks_for_its_scores() -> None:
    asked: set[str] = set()
    for file in Path(*methods.__path__).glob("*.py"):
        for name in re.findall(r"inputs\.scores_of\((\w+)\)", file.read_text()):
            function = getattr(import_module(f"{methods.__name__}.{file.stem}"), name)
            asked.add(f"{function.__module__.rpartition('.')[2]}:{name}")
    assert asked == evaluated_scores._BUILT_ON
    assert asked >= {f"{one.__name__.rpartition('.')[2]}:{name}" for one, name in (
        (lorif, "lorif_scores"), (relatif, "relatif_scores"), (lexical, "bm25_scores")
    )}  # fmt: skip


@pytest.mark.parametrize("is_built_on", [True, False])
def test_all_others_are_let_go(monkeypatch: pytest.MonkeyPatch, is_built_on: bool) -> None:
    calls: list[int] = []

    def scores(_: MethodInputs) -> dict[str, MethodScores]:
        calls.append(1)
        return {"a": MethodScores(np.zeros((1, 1), np.float32), 0, None, 0)}

    inputs = empty_inputs()
    monkeypatch.setattr(evaluated_scores, "scoring_function", lambda _: scores)
    monkeypatch.setattr(evaluated_scores, "_BUILT_ON", frozenset({"a:b"} if is_built_on else ()))
    for _ in range(2):
        evaluated_scores._scores_of(inputs, "a:b")
    assert len(calls) == (1 if is_built_on else 2)
