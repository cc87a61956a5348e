"""What a trainer leaves behind: all of it is taken or named, and nothing vanishes in silence."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorif_assets.errors import CheckpointError
from lorif_assets.models.checkpoints import Checkpoints, Found
from lorif_assets.models.files import same_files
from tests.conftest import CHECKPOINTS, TinyProject


@pytest.fixture
def run(tiny_project: TinyProject, tmp_path: Path) -> Path:
    """A trainer's output directory with three steps, each with other weights."""
    root = tmp_path / "run"
    for step in (20, 40, 60):
        shutil.copytree(tiny_project.root / "checkpoints" / CHECKPOINTS[0], root / f"checkpoint-{step}")
        change_weights(root / f"checkpoint-{step}", float(step))
    return root


def change_weights(folder: Path, number: float) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    name = sorted(tensors)[-1]
    tensors[name] = tensors[name].clone()
    tensors[name].flatten()[-1] = number
    save_file(tensors, file, metadata={"format": "pt"})


def save_at_the_end(run: Path, of: str, *, step: int | None = None) -> None:
    """What `save_model` does: the model's files in the directory itself."""
    for file in (run / of).iterdir():
        shutil.copy(file, run / file.name)
    if step is not None:
        (run / "trainer_state.json").write_text(json.dumps({"global_step": step}))


def written(run: Path, hours: Mapping[str, int]) -> None:
    for name, hour in hours.items():
        os.utime(run / name / "model.safetensors", (1_700_000_000 + 3600 * hour,) * 2)


def look(run: Path) -> Found:
    return Checkpoints(path=str(run)).look()


def names(found: Found) -> list[tuple[str, int | None]]:
    return [(checkpoint.name, checkpoint.step) for checkpoint in found.checkpoints]


STEPS = [("checkpoint-20", 20), ("checkpoint-40", 40), ("checkpoint-60", 60)]


def test_a_model_saved_at_the_end_that_is_the_last_step_is_no_further_checkpoint(run: Path) -> None:
    save_at_the_end(run, "checkpoint-60", step=60)
    found = look(run)
    assert names(found) == STEPS
    assert found.notes == [f"the model in {run} itself is checkpoint-60: their weights are the same"]


def test_a_model_saved_at_the_end_with_other_weights_is_the_last_checkpoint(run: Path) -> None:
    save_at_the_end(run, "checkpoint-60", step=75)
    change_weights(run, 75.0)
    assert names(look(run)) == [*STEPS, ("run", 75)]
    assert not look(run).notes


@pytest.mark.parametrize("name", ["run", "a-run"])
def test_it_comes_last_though_it_has_the_step_of_the_last_checkpoint(run: Path, name: str) -> None:
    save_at_the_end(run, "checkpoint-60", step=60)
    change_weights(run, 75.0)
    assert names(look(run.rename(run.parent / name))) == [*STEPS, (name, 60)]


def test_without_a_state_of_its_own_it_has_the_step_of_the_last_checkpoint(run: Path) -> None:
    save_at_the_end(run, "checkpoint-20")
    change_weights(run, 75.0)
    assert names(look(run)) == [*STEPS, ("run", 60)]


@pytest.mark.parametrize("step", [None, 60])
def test_a_model_saved_at_the_end_that_is_the_best_step_is_no_further_checkpoint(run: Path, step: int | None) -> None:
    save_at_the_end(run, "checkpoint-20", step=step)
    found = look(run)
    assert names(found) == STEPS
    assert found.notes == [f"the model in {run} itself is checkpoint-20: their weights are the same"]


def test_every_checkpoint_of_a_trainers_directory_can_be_loaded(run: Path) -> None:
    save_at_the_end(run, "checkpoint-20", step=60)
    change_weights(run, 75.0)
    checkpoints = Checkpoints(path=str(run))
    assert [checkpoints.get(name).path.name for name, _ in names(look(run))] == [*(name for name, _ in STEPS), "run"]


def test_a_file_larger_than_what_is_compared_of_it_is_compared_all_over(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorif_assets.models.files.same_files._BLOCK", 64)
    monkeypatch.setattr("lorif_assets.models.files.same_files._BLOCKS", 8)
    save_at_the_end(run, "checkpoint-60")
    assert names(look(run)) == STEPS
    file = run / "model.safetensors"
    tensors = {name: tensor + 1e-3 for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    assert names(look(run)) == [*STEPS, ("run", 60)]


def test_a_configuration_without_weights_beside_checkpoints_is_no_checkpoint(run: Path) -> None:
    shutil.copy(run / "checkpoint-20/config.json", run / "config.json")
    found = look(run)
    assert names(found) == STEPS
    assert found.notes == [f"the model in {run} itself is passed over: it has no *.safetensors weights"]


def test_a_tokenizer_that_was_saved_once_for_all_steps_serves_them(run: Path) -> None:
    for file in (run / "checkpoint-60").glob("tokenizer*"):
        shutil.copy(file, run / file.name)
    for step in (20, 40, 60):
        for file in (run / f"checkpoint-{step}").glob("tokenizer*"):
            file.unlink()
    checkpoints = Checkpoints(path=str(run))
    assert all(checkpoint.is_complete() for checkpoint in checkpoints.find())
    assert len(checkpoints.load_tokenizer(checkpoints.get("checkpoint-20"))) == 280


@pytest.mark.parametrize("saved_at_the_end", [False, True])
def test_a_checkpoint_that_is_still_being_written_is_listed_with_what_it_lacks(
    run: Path, saved_at_the_end: bool
) -> None:
    if saved_at_the_end:
        save_at_the_end(run, "checkpoint-20", step=60)
    (run / "checkpoint-40/model.safetensors").unlink()
    (waiting,) = [checkpoint for checkpoint in look(run).checkpoints if not checkpoint.is_complete()]
    assert waiting.name == "checkpoint-40"
    assert f"{run / 'checkpoint-40'} has no *.safetensors weights" in (waiting.fault() or "")


def test_a_trainers_own_state_is_not_taken_for_weights(run: Path) -> None:
    (run / "checkpoint-40/model.safetensors").unlink()
    for step in (40, 80):
        (run / f"checkpoint-{step}").mkdir(exist_ok=True)
        for name in ("optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin"):
            (run / f"checkpoint-{step}" / name).write_bytes(b"")
    found = look(run)
    assert names(found) == STEPS
    assert "pickle" not in (found.checkpoints[1].fault() or "")
    assert found.notes == [f"{run / 'checkpoint-80'} is passed over: it has no model"]


def test_a_folder_named_after_a_step_without_a_model_is_named(run: Path) -> None:
    (run / "checkpoint-80").mkdir()
    (run / "runs").mkdir()
    found = look(run)
    assert names(found) == STEPS
    assert found.notes == [f"{run / 'checkpoint-80'} is passed over: it has no model"]


def test_a_folder_that_may_not_be_read_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "lost+found").mkdir()
    is_allowed, list_folder = os.access, Path.iterdir

    def listed(folder: Path) -> Iterator[Path]:
        if folder.name == "lost+found":
            raise PermissionError(13, "Permission denied", str(folder))
        return list_folder(folder)

    monkeypatch.setattr(Path, "iterdir", listed)
    with pytest.raises(CheckpointError, match=r"run cannot be read now: .*Permission denied: .*lost\+found"):
        look(run)
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != "lost+found" and is_allowed(path, mode))
    found = look(run)
    assert names(found) == STEPS
    assert found.notes == [f"{run / 'lost+found'} is passed over: it may not be read"]


def test_runs_inside_a_directory_of_runs_are_named_with_what_to_do(run: Path) -> None:
    save_at_the_end(run, "checkpoint-20", step=60)
    shutil.copytree(run, run.parent / "runs/a")
    shutil.copytree(run / "checkpoint-20", run.parent / "runs/b/checkpoint-20")
    found = look(run.parent / "runs")
    assert [name for name, _ in names(found)] == ["a"]
    assert found.notes == [
        f"3 checkpoint(s) inside {run.parent / 'runs/a'} are passed over (checkpoint-20 ...): set `checkpoints.path` to it",
        f"1 checkpoint(s) inside {run.parent / 'runs/b'} are passed over (checkpoint-20 ...): set `checkpoints.path` to it",
    ]


def test_an_export_and_an_optimizers_state_beside_a_model_are_no_checkpoints(run: Path) -> None:
    model = run / "checkpoint-60"
    (model / "global_step60").mkdir()
    (model / "global_step60/mp_rank_00_model_states.pt").write_bytes(b"")
    (model / "onnx").mkdir()
    (model / "onnx/config.json").write_text("{}")
    found = look(model)
    assert names(found) == [("checkpoint-60", 60)]
    assert found.notes == [f"{model / 'onnx'} is passed over: it is no whole checkpoint, and its name says no step"]
    assert names(look(run)) == STEPS


def test_epochs_among_steps_are_said_to_be_out_of_order(run: Path) -> None:
    (run / "checkpoint-20").rename(run / "epoch_3")
    (note,) = look(run).notes
    assert note.startswith("epoch_3 is ordered by its epoch and checkpoint-40 by its step")
    (run / "epoch_3/trainer_state.json").write_text(json.dumps({"global_step": 50}))
    found = look(run)
    assert names(found) == [("checkpoint-40", 40), ("epoch_3", 50), ("checkpoint-60", 60)]
    assert not found.notes


def test_steps_that_begin_anew_with_each_stage_are_said_to_be_out_of_order(run: Path) -> None:
    for k, name in enumerate(("stage1-step140000", "stage1-step928646", "stage2-ingredient1-step1000")):
        shutil.copytree(run / "checkpoint-20", run / name)
        change_weights(run / name, k + 1.0)
    for step in (20, 40):
        shutil.rmtree(run / f"checkpoint-{step}")
    assert look(run).notes == [
        "stage2-ingredient1-step1000 comes before stage1-step140000: checkpoints are in the order of their steps, which begin "
        "anew with each stage. Set `checkpoints.path` to a folder of one stage, or give all of them names with steps that go on"
    ]
    (run / "stage2-ingredient1-step1000").rename(run / "stage2-ingredient1-step929000")
    assert look(run).notes == []


def test_adapters_and_the_one_saved_at_the_end_are_told_apart_by_their_own_weights(run: Path) -> None:
    shutil.copytree(run / "checkpoint-20", run.parent / "base")
    shutil.rmtree(run)
    for name, number in (("run/checkpoint-20", 20.0), ("run/checkpoint-40", 40.0), ("run", 40.0)):
        adapter = run.parent / name
        adapter.mkdir(parents=True, exist_ok=True)
        (adapter / "adapter_config.json").write_text(
            json.dumps({"peft_type": "LORA", "base_model_name_or_path": "../base"})
        )
        shutil.copy(run.parent / "base/model.safetensors", adapter / "adapter_model.safetensors")
        (adapter / "adapter_model.safetensors").rename(adapter / "model.safetensors")
        change_weights(adapter, number)
        (adapter / "model.safetensors").rename(adapter / "adapter_model.safetensors")
    assert names(look(run)) == [("base", 0), ("checkpoint-20", 20), ("checkpoint-40", 40)]
    (run / "adapter_model.safetensors").rename(run / "model.safetensors")
    change_weights(run, 41.0)
    (run / "model.safetensors").rename(run / "adapter_model.safetensors")
    assert names(look(run)) == [("base", 0), ("checkpoint-20", 20), ("checkpoint-40", 40), ("run", 40)]


def test_steps_in_shards_beside_a_model_saved_at_the_end_are_named(run: Path) -> None:
    save_at_the_end(run, "checkpoint-60", step=75)
    step = run / "checkpoint-40"
    (step / "model.safetensors").unlink()
    (step / "config.json").unlink()
    (step / "trainer_state.json").write_text(json.dumps({"global_step": 40}))
    for shards in ("optimizer_0", "pytorch_model_fsdp_0"):
        (step / shards).mkdir()
        (step / shards / "__0_0.distcp").write_bytes(b"")
    (note, _) = look(run).notes
    assert note == (
        f"{step} is passed over: its weights are in FSDP's shards: join them by `accelerate merge-weights "
        f"{step / 'pytorch_model_fsdp_0'} {step}`, and keep config.json beside them"
    )


def test_a_model_further_down_in_a_steps_folder_is_that_steps(run: Path) -> None:
    actor = run / "checkpoint-40/actor"
    for file in list((run / "checkpoint-40").iterdir()):
        actor.joinpath("huggingface").mkdir(parents=True, exist_ok=True)
        file.rename(actor / "huggingface" / file.name)
    found = look(run)
    assert names(found) == STEPS
    assert found.checkpoints[1].path == actor / "huggingface"
    assert not found.notes
    (actor / "huggingface/model.safetensors").rename(actor / "model_world_size_2_rank_0.pt")
    (note,) = look(run).notes
    assert f"verl's shards: join them by `python -m verl.model_merger merge --backend fsdp --local_dir {actor} " in note


def test_a_converted_adapter_stands_for_the_one_that_was_saved_at_the_end(run: Path) -> None:
    for folder in ("pissa_init", "pissa_backup", "pissa_converted", "."):
        (run / folder).mkdir(exist_ok=True)
        (run / folder / "adapter_config.json").write_text(
            json.dumps({"base_model_name_or_path": str(run.parent / "x")})
        )
        (run / folder / "adapter_model.safetensors").write_bytes(folder.encode())
    (run / "trainer_state.json").write_text(json.dumps({"global_step": 75}))
    found = look(run)
    assert names(found) == [*STEPS, ("pissa_converted", 75)]
    assert found.notes[-1] == f"the adapter in {run} itself is passed over: pissa_converted is the same as a plain LoRA"


def test_steps_of_weights_alone_beside_a_whole_model_are_named_with_what_they_lack(run: Path) -> None:
    save_at_the_end(run, "checkpoint-60")
    for step in (20, 40):
        shutil.copytree(run / "checkpoint-60", run / f"step_{step}")
        (run / f"step_{step}/config.json").unlink()
    for step in (20, 40, 60):
        shutil.rmtree(run / f"checkpoint-{step}")
    found = look(run)
    assert names(found) == [("run", None)]
    assert found.notes == [
        f"{run / f'step_{step}'} is passed over: it has weights and no config.json; copy {run / 'config.json'} there"
        for step in (20, 40)
    ]


def test_no_file_that_is_not_there_is_said_to_be_what_steps_of_weights_alone_lack(run: Path) -> None:
    for folder in (run, run / "checkpoint-80"):
        folder.mkdir(exist_ok=True)
        (folder / "adapter_model.safetensors").write_bytes(folder.name.encode())
    (run / "adapter_config.json").write_text("{}")
    (run / "checkpoint-60/config.json").unlink()
    assert look(run).notes == [
        f"{run / 'checkpoint-60'} is passed over: it has weights and no config.json",
        f"{run / 'checkpoint-80'} is passed over: it has weights and no adapter_config.json; copy "
        f"{run / 'adapter_config.json'} there",
    ]


def test_links_to_steps_are_no_checkpoints_of_their_own(run: Path) -> None:
    (run / "checkpoint-last").symlink_to("checkpoint-60")
    (run / "best").symlink_to(run / "checkpoint-20")
    found = look(run)
    assert names(found) == STEPS
    assert found.notes == [
        f"{run / 'best'} is passed over: it is a link to checkpoint-20",
        f"{run / 'checkpoint-last'} is passed over: it is a link to checkpoint-60",
    ]


def test_links_that_say_the_steps_of_folders_whose_names_say_none_are_the_checkpoints(run: Path) -> None:
    for name, step in (("first", 20), ("second", 40), ("third", 60)):
        (run / f"checkpoint-{step}").rename(run / name)
        (run / f"checkpoint-{step}").symlink_to(name)
    (run / "best").symlink_to("second")
    found = look(run)
    assert names(found) == STEPS
    assert found.notes[:2] == [
        f"{run / 'best'} is passed over: it is a link to second",
        f"{run / 'first'} is checkpoint-20: their files are the same",
    ]


def test_a_link_to_a_model_elsewhere_is_a_checkpoint(run: Path) -> None:
    (run / "checkpoint-60").rename(run.parent / "elsewhere")
    (run / "checkpoint-60").symlink_to(run.parent / "elsewhere")
    assert names(look(run)) == STEPS


def test_a_copy_of_a_step_under_a_name_without_one_is_no_further_checkpoint(run: Path) -> None:
    shutil.copytree(run / "checkpoint-20", run / "best")
    shutil.copytree(run / "checkpoint-60", run / "final")
    found = look(run)
    assert names(found) == STEPS
    assert found.notes == [
        f"{run / 'final'} is checkpoint-60: their files are the same",
        f"{run / 'best'} is checkpoint-20: their files are the same",
    ]


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_the_weights_of_a_step_with_another_configuration_or_tokenizer_are_a_checkpoint(run: Path, name: str) -> None:
    shutil.copytree(run / "checkpoint-60", run / "other")
    file = run / "other" / name
    file.write_text(f"{file.read_text()}\n")
    assert names(look(run)) == [("other", None), *STEPS]
    (run / "checkpoint-60" / name).unlink()
    assert ("other", None) in names(look(run))


def test_the_weights_of_an_adapter_on_another_base_model_are_a_checkpoint(run: Path) -> None:
    for name, base in (("checkpoint-80", "one"), ("on-other", "other"), ("best", "one")):
        (run / name).mkdir()
        (run / name / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
        (run / name / "adapter_model.safetensors").write_bytes(b"numbers")
    found = look(run)
    assert names(found) == [("on-other", None), *STEPS, ("checkpoint-80", 80)]
    assert found.notes == [f"{run / 'best'} is checkpoint-80: their files are the same"]


def test_a_copy_with_the_state_of_its_trainer_is_no_further_checkpoint(run: Path) -> None:
    for step in (20, 40, 60):
        (run / f"checkpoint-{step}/trainer_state.json").write_text(json.dumps({"global_step": step}))
    shutil.copytree(run / "checkpoint-40", run / "best")
    found = look(run)
    assert names(found) == STEPS
    assert found.notes == [f"{run / 'best'} is checkpoint-40: their files are the same"]


def test_the_base_model_of_the_settings_keeps_its_name_where_a_step_is_a_copy_of_it(run: Path) -> None:
    shutil.copytree(run / "checkpoint-20", run / "start")
    found = Checkpoints(path=str(run), base_model=str(run / "start")).look()
    assert names(found) == [("start", 0), *STEPS]
    assert not found.notes


def test_large_models_that_differ_in_one_small_tensor_are_told_apart(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if a file of more than a kilobyte were large.
    monkeypatch.setattr(same_files, "_BLOCK", 64)
    monkeypatch.setattr(same_files, "_BLOCKS", 16)
    for name, norm in (("checkpoint-80", 1.0), ("norms", 2.0), ("best", 1.0)):
        shutil.copytree(run / "checkpoint-60", run / name)
        tensors = {"a.weight": torch.zeros(1 << 12), "b.norm": torch.full((4,), norm), "c.weight": torch.zeros(1 << 12)}
        save_file(tensors, run / name / "model.safetensors", metadata={"format": "pt"})
    found = look(run)
    assert names(found) == [("norms", None), *STEPS, ("checkpoint-80", 80)]
    assert found.notes == [f"{run / 'best'} is checkpoint-80: their files are the same"]


def test_an_adapter_beside_a_step_whose_weights_are_not_there_is_no_copy_of_it(run: Path) -> None:
    for name in ("checkpoint-80", "final"):
        (run / name).mkdir()
        (run / name / "adapter_config.json").write_text("{}")
    (run / "final/adapter_model.safetensors").write_bytes(b"numbers")
    assert names(look(run)) == [*STEPS, ("final", 60), ("checkpoint-80", 80)]


@pytest.mark.parametrize("name", ["final", "final_model", "checkpoint-last", "a-final", "latest", "last-checkpoint"])
def test_a_model_whose_name_says_that_it_is_the_last_comes_last(run: Path, name: str) -> None:
    shutil.copytree(run / "checkpoint-60", run / name)
    change_weights(run / name, 75.0)
    assert names(look(run)) == [*STEPS, (name, 60)]
    for step in (20, 40, 60):
        shutil.rmtree(run / f"checkpoint-{step}")
    assert names(look(run)) == [(name, None)]


@pytest.mark.parametrize("name", ["final", "."])
def test_a_model_saved_at_the_end_comes_before_steps_that_were_written_long_after_it(run: Path, name: str) -> None:
    shutil.copytree(run / "checkpoint-60", run / name, dirs_exist_ok=True)
    change_weights(run / name, 75.0)
    at_the_end = (run / name).name
    written(run, {"checkpoint-20": 0, "checkpoint-40": 1, name: 1, "checkpoint-60": 2})
    found = look(run)
    assert names(found) == [*STEPS[:2], (at_the_end, 40), STEPS[2]]
    assert found.notes == [
        f"{run / name} is taken for one after step 40: checkpoint-60 was written later, as if training had gone on. If the "
        "times of the files mislead, give it the name of a step"
    ]
    written(run, {name: 2})
    assert names(look(run)) == [*STEPS, (at_the_end, 60)]


@pytest.mark.parametrize("name", ["final", "a-final", "."])
@pytest.mark.parametrize("steps", [(20, 40, 60), (500, 1000, 1500)])
def test_a_model_saved_at_the_end_that_is_older_than_all_steps_is_the_last_and_it_is_said(
    run: Path, name: str, steps: tuple[int, ...]
) -> None:
    for old, new in zip((20, 40, 60), steps, strict=True):
        (run / f"checkpoint-{old}").rename(run / f"checkpoint-{new}")
    shutil.copytree(run / f"checkpoint-{steps[-1]}", run / name, dirs_exist_ok=True)
    change_weights(run / name, 75.0)
    written(run, {name: -1, **{f"checkpoint-{step}": n for n, step in enumerate(steps)}})
    found = look(run)
    assert names(found)[-1] == ((run / name).name, steps[-1])
    assert found.notes == [
        f"{run / name} is taken for the last one, though all steps were written after it, as in a copy. If training began with "
        "it, name it in `checkpoints.base_model`"
    ]
    named = Checkpoints(path=str(run), base_model=str(run / name)).look()
    assert named.checkpoints[0].place == "base"
    assert not named.notes


def test_of_equal_models_at_the_end_one_is_taken_and_nothing_else_is_said_of_them(run: Path) -> None:
    save_at_the_end(run, "checkpoint-60")
    change_weights(run, 75.0)
    shutil.copytree(run / "checkpoint-60", run / "final")
    shutil.copyfile(run / "model.safetensors", run / "final/model.safetensors")
    written(run, {".": 3, "final": -1, "checkpoint-20": 0, "checkpoint-40": 1, "checkpoint-60": 2})
    found = look(run)
    assert names(found) == [*STEPS, ("final", 60)]
    assert [note for note in found.notes if str(run / "final") in note and "taken for" not in note] == []


def test_times_that_do_not_follow_the_steps_say_nothing_of_a_model_saved_at_the_end(run: Path) -> None:
    shutil.copytree(run / "checkpoint-60", run / "final")
    change_weights(run / "final", 75.0)
    written(run, {"checkpoint-40": 0, "final": 1, "checkpoint-20": 2, "checkpoint-60": 3})
    found = look(run)
    assert names(found) == [*STEPS, ("final", 60)]
    assert not found.notes


def test_a_step_that_is_still_being_written_says_nothing_of_when_a_model_was_saved_at_the_end(run: Path) -> None:
    shutil.copytree(run / "checkpoint-60", run / "final")
    change_weights(run / "final", 75.0)
    written(run, {"checkpoint-20": 0, "checkpoint-40": 1, "final": 1, "checkpoint-60": 3})
    (run / "checkpoint-80").mkdir()
    shutil.copy(run / "checkpoint-60/config.json", run / "checkpoint-80/config.json")
    assert names(look(run)) == [*STEPS[:2], ("final", 40), STEPS[2], ("checkpoint-80", 80)]


def test_a_base_model_in_the_trainers_directory_is_no_model_saved_at_the_end(run: Path) -> None:
    save_at_the_end(run, "checkpoint-60")
    change_weights(run, 75.0)
    found = Checkpoints(path=str(run), base_model=str(run)).look()
    assert names(found) == [("run", 0), *STEPS]
    assert not found.notes


def test_a_copy_of_a_step_that_only_a_trainers_state_says_is_no_further_checkpoint(run: Path) -> None:
    for step in (20, 40, 60):
        (run / f"checkpoint-{step}").rename(run / f"saved-{'abc'[step // 20 - 1]}")
        (run / f"saved-{'abc'[step // 20 - 1]}/trainer_state.json").write_text(json.dumps({"global_step": step}))
    shutil.copytree(run / "saved-c", run / "final")
    (run / "final/trainer_state.json").unlink()
    assert names(look(run)) == [("saved-a", 20), ("saved-b", 40), ("saved-c", 60)]
    assert look(run).notes == [f"{run / 'final'} is saved-c: their files are the same"]


def test_models_without_a_step_that_are_the_same_are_one_checkpoint(run: Path) -> None:
    for name in ("best", "final"):
        shutil.copytree(run / "checkpoint-60", run / name)
        change_weights(run / name, 75.0)
    assert names(look(run)) == [*STEPS, ("final", 60)]


def test_of_the_model_saved_at_the_end_and_a_copy_of_it_that_says_no_step_the_first_is_the_last(run: Path) -> None:
    (run / "checkpoint-20").rename(run / "best")
    save_at_the_end(run, "best", step=60)
    found = look(run)
    assert names(found) == [*STEPS[1:], (run.name, 60)]
    assert found.notes == [f"{run / 'best'} is the model in {run} itself: their weights are the same"]


def test_a_copy_of_a_step_under_a_longer_name_with_it_is_no_further_checkpoint(run: Path) -> None:
    shutil.copytree(run / "checkpoint-60", run / "checkpoint-60-last")
    assert names(look(run)) == STEPS


def test_a_step_in_another_form_comes_before_it_and_one_that_was_written_again_behind_it(run: Path) -> None:
    for n, name in enumerate(("checkpoint-60-awq", "checkpoint-60-v1")):
        shutil.copytree(run / "checkpoint-60", run / name)
        change_weights(run / name, 75.0 + n)
    assert names(look(run)) == [*STEPS[:2], ("checkpoint-60-awq", 60), STEPS[2], ("checkpoint-60-v1", 60)]


@pytest.mark.parametrize("name", ["final", "."])
@pytest.mark.parametrize("own", [None, 40])
def test_a_model_saved_at_the_end_comes_after_steps_that_a_trainers_state_says(
    run: Path, name: str, own: int | None
) -> None:
    for step in (20, 40, 60):
        (run / f"checkpoint-{step}").rename(run / f"{'abc'[step // 20 - 1]}-saved")
        (run / f"{'abc'[step // 20 - 1]}-saved/trainer_state.json").write_text(json.dumps({"global_step": step}))
    shutil.copytree(run / "c-saved", run / name, dirs_exist_ok=True)
    change_weights(run / name, 75.0)
    (run / name / "trainer_state.json").unlink()
    if own:
        (run / name / "trainer_state.json").write_text(json.dumps({"global_step": own}))
    assert names(look(run))[-2:] == [("c-saved", 60), ((run / name).name, own or 60)][:: -1 if own else 1]


def test_the_number_in_a_models_name_is_no_step(run: Path) -> None:
    shutil.copytree(run / "checkpoint-60", run / "llama-3-final")
    change_weights(run / "llama-3-final", 75.0)
    assert names(look(run)) == [*STEPS, ("llama-3-final", 60)]


def test_a_model_saved_at_the_end_is_the_last_step_beside_a_model_called_final_too(run: Path) -> None:
    save_at_the_end(run, "checkpoint-60", step=60)
    shutil.copytree(run / "checkpoint-60", run / "final")
    change_weights(run / "final", 75.0)
    found = look(run)
    assert names(found) == [*STEPS, ("final", 60)]
    assert found.notes == [f"the model in {run} itself is checkpoint-60: their weights are the same"]


def test_an_adapter_called_reference_beside_steps_alone_is_a_checkpoint(run: Path) -> None:
    for name in ("checkpoint-80", "checkpoint-100", "reference"):
        (run / name).mkdir()
        (run / name / "adapter_config.json").write_text("{}")
        (run / name / "adapter_model.safetensors").write_bytes(name.encode())
    assert names(look(run)) == [("reference", None), *STEPS, ("checkpoint-80", 80), ("checkpoint-100", 100)]


def test_what_trainers_keep_beside_a_steps_model_is_not_taken_for_it(run: Path) -> None:
    step = (run / "checkpoint-40").rename(run / "global_step_40")
    for file in list(step.iterdir()):
        for part in ("actor", "critic"):
            (step / part / "huggingface").mkdir(parents=True, exist_ok=True)
            shutil.copy(file, step / part / "huggingface" / file.name)
        file.unlink()
    (step / "data.pt").write_bytes(b"")
    (run / "recipe_state").mkdir()
    (run / "recipe_state/recipe_state.pt").write_bytes(b"")
    found = look(run)
    assert names(found) == [STEPS[0], ("global_step_40", 40), STEPS[2]]
    assert found.checkpoints[1].path == step / "actor/huggingface"
    assert not found.notes
    (step / "actor/huggingface/model.safetensors").rename(step / "actor/model_world_size_2_rank_0.pt")
    found = look(run)
    assert names(found) == [STEPS[0], STEPS[2]]
    assert "verl's shards" in found.notes[0]


def test_the_only_model_in_a_steps_folder_is_that_steps(run: Path) -> None:
    step = (run / "checkpoint-40").rename(run / "step=40-consumed_samples=5000.0-last")
    (run / "whole").mkdir()
    step.rename(run / "whole/hf_weights")
    (run / "whole").rename(step)
    found = look(run)
    assert [(one.path, one.step) for one in found.checkpoints][1] == (step / "hf_weights", 40)


@pytest.mark.parametrize("form", ["model.safetensors", "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_refused_with_what_fetches_the_file(run: Path, form: str) -> None:
    pointer = run / "checkpoint-40" / form
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n")
    _, found, _ = look(run).checkpoints
    assert found.fault() == (
        f"{pointer} is a pointer of Git LFS in the place of the file itself: fetch it by `git lfs pull`"
    )


def test_weights_that_were_saved_without_their_numbers_are_refused(run: Path) -> None:
    file = run / "checkpoint-40/model.safetensors"
    tensors = load_file(file)
    name = sorted(name for name in tensors if name.endswith("_proj.weight") or name.endswith("c_attn.weight"))[0]
    tensors[name] = tensors[name].new_zeros(0)
    save_file(tensors, file, metadata={"format": "pt"})
    _, found, _ = look(run).checkpoints
    assert f"{file} has no numbers for {name} (1 such), as where weights are saved under DeepSpeed's ZeRO-3" in (
        found.fault() or ""
    )
