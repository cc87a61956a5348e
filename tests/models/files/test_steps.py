"""Training steps: every way that people write one is read as that number, and what says none is told apart."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from lorif_assets.models.files.steps import counts_epochs, step_in_name, step_in_text, step_of_folder


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("2000", 2000),
        (" 2000 ", 2000),
        ("1e3", 1000),
        ("1E3", 1000),
        ("2.5e3", 2500),
        ("1e+03", 1000),
        ("1000.0", 1000),
        ("1,000", 1000),
        ("1_000_000", 1_000_000),
        ("10k", 10_000),
        ("1.5k", 1500),
        ("2M", 2_000_000),
        ("step-2000", 2000),
        ("step 2000", 2000),
        ("Step: 2000", 2000),
        ("global_step500", 500),
        ("checkpoint-1e3", 1000),
        ("2000 steps", 2000),
        ("0", 0),
    ],
)
def test_a_tag_that_says_a_step_is_that_step(text: str, step: int) -> None:
    assert step_in_text(text) == step


@pytest.mark.parametrize(
    "text", ["last", "", "-5", "1000.5", "epoch-3", "20/40", "nan", "inf", "²", "0x10", "1e99", "1,00", "v2", "step"]
)
def test_a_tag_that_says_no_whole_number_of_steps_is_none(text: str) -> None:
    assert step_in_text(text) is None


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("checkpoint-20", 20),
        ("checkpoint-1e3", 1000),
        ("step_1000", 1000),
        ("step-000100", 100),
        ("global_step500", 500),
        ("epoch=2-step=1000", 1000),
        ("step-200-epoch-1", 200),
        ("epoch-1-step-200", 200),
        ("step_1000-loss=0.35", 1000),
        ("checkpoint-1000-v2", 1000),
        ("checkpoint-10k", 10_000),
        ("0e9e39f249a16976918f6564b8830bc894c89659", None),
        ("iter_0005000", 5000),
        ("ckpt-7", 7),
        ("stage1-step1000-tokens5B", 1000),
        ("epoch_3", 3),
        ("1e3", 1000),
        ("run-7", 7),
        ("final", None),
    ],
)
def test_a_folder_has_the_step_that_its_name_says(tmp_path: Path, name: str, step: int | None) -> None:
    assert step_of_folder(tmp_path / name) == step


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("llama-3-final", None),
        ("gpt2", None),
        ("Qwen2.5-0.5B-chat", None),
        ("epoch-3-loss-0.25", 3),
        ("epoch3-best", 3),
        ("1000", 1000),
    ],
)
def test_a_number_inside_the_name_of_a_model_is_no_step(name: str, step: int | None) -> None:
    assert step_in_name(name) == step


@pytest.mark.parametrize(
    ("names", "steps"),
    [
        (["llama-3-ft-100", "llama-3-ft-200"], [100, 200]),
        (["llama-3-100-lora", "llama-3-200-lora", "llama-3-final"], [100, 200, None]),
        (["olmo2-500B", "olmo2-1000B"], [500, 1000]),
        (["v1", "v2"], [1, 2]),
        (["epoch=1-val_loss=0.41", "epoch=2-val_loss=0.35"], [1, 2]),
        (["epoch=3-val_loss=2.0", "epoch=4-val_loss=1.0"], [3, 4]),
        (["epoch-1-loss-2", "epoch-2-loss-1"], [1, 2]),
        (["phi-2", "phi-2-tuned"], [None, None]),
        (["phi-2", "checkpoint-20", "checkpoint-40"], [None, 20, 40]),
        (["300", "checkpoint-400"], [300, 400]),
        (["run-5", "run-#"], [5, None]),
        (["1000", "2000", "1000-merged"], [1000, 2000, None]),
        (["checkpoint-20", "checkpoint-40", "llama-3-8b"], [20, 40, None]),
        (["checkpoint-20", "final-1", "final-2"], [20, None, None]),
        (["1000", "2000", "final-1"], [1000, 2000, None]),
        (["final-epoch-2", "final-epoch-10", "best"], [2, 10, None]),
        (["opt-125m", "tuned"], [None, None]),
        (["2024-05-01", "2024-05-12", "2024-06-02"], [None, None, None]),
        (["run_20240501_1200", "run_20240502_0900"], [None, None]),
        (["2024-05-01-run-100", "2024-05-02-run-200"], [100, 200]),
        (["2024-11-05 23:59:00.123456", "2024-11-06 00:10:00.023456"], [None, None]),
        (["20241105T235900Z", "20241106T001000Z"], [None, None]),
        (["2024-11-05T23:59:00+01:00", "2024-11-06T00:10:00+01:00"], [None, None]),
        (["241105_2359", "241106_0010"], [None, None]),
        (["Nov05_12-30-00_host", "Nov06_09-10-00_host"], [None, None]),
        (["20241105-1", "20241106-1", "20241105-2"], [None, None, None]),
        (["20241105-1", "20241105-2"], [1, 2]),
        (["sft-100131-1200", "sft-100131-2400"], [1200, 2400]),
        (["exp-110315-2000", "exp-110315-2359", "exp-110315-2360"], [2000, 2359, 2360]),
        (["200101_1000", "200101_2000", "200101_3000"], [1000, 2000, 3000]),
        (["may-10", "may-20", "may-30"], [10, 20, 30]),
        (["run-20240726-500", "run-20240726-1000", "run-20240726-2500"], [500, 1000, 2500]),
        (["2024-11-05_step_100", "2024-11-06_step_50"], [100, 50]),
        (["2024-11-06_epoch_1", "2024-11-05_epoch_2"], [1, 2]),
        (["epoch_1_best", "epoch_1_last", "epoch_2_best", "epoch_2_last"], [1, 1, 2, 2]),
        (["epoch_1", "epoch_2", "epoch_2_final", "checkpoint-900"], [1, 2, None, 900]),
        (["arbiter-7b", "writer-8b", "tuned"], [None, None, None]),
        (["10k", "20k"], [10_000, 20_000]),
    ],
)
def test_a_step_is_the_number_by_which_names_of_one_form_differ(
    names: Sequence[str], steps: Sequence[int | None]
) -> None:
    assert [step_in_name(name, names) for name in names] == steps


@pytest.mark.parametrize(
    ("name", "step"), [("epoch_3", 60), ("best", 60), ("llama-3-final", 60), ("checkpoint-20", 20)]
)
def test_a_name_without_a_step_is_dated_by_the_trainers_state(tmp_path: Path, name: str, step: int) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "trainer_state.json").write_text(json.dumps({"global_step": 60, "epoch": 3.0}))
    assert step_of_folder(tmp_path / name) == step


@pytest.mark.parametrize("state", ["{", "[]", "{}", '{"global_step": "many"}', '{"global_step": -1}'])
def test_a_state_that_says_no_step_leaves_the_name(tmp_path: Path, state: str) -> None:
    (tmp_path / "epoch_3").mkdir()
    (tmp_path / "epoch_3/trainer_state.json").write_text(state)
    assert step_of_folder(tmp_path / "epoch_3") == 3


def test_a_state_that_is_written_again_is_read_again(tmp_path: Path) -> None:
    for step in (60, 1200):
        (tmp_path / "trainer_state.json").write_text(json.dumps({"global_step": step}))
        assert step_of_folder(tmp_path) == step


@pytest.mark.parametrize(("name", "counts"), [("epoch_3", True), ("epoch=2-step=1000", False), ("checkpoint-3", False)])
def test_a_number_of_epochs_is_told_from_one_of_steps(tmp_path: Path, name: str, counts: bool) -> None:
    assert counts_epochs(tmp_path / name) is counts
