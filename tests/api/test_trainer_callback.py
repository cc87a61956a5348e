"""A Trainer's checkpoints: made known to the project as they are saved, and attributed by a process of its own."""

import atexit
import copy
import json
import logging
import pickle
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainerState,
    TrainingArguments,
)

import lorif_assets
from lorif_assets.errors import SettingsError
from lorif_assets.lake.attribution_tables import QUERY_SCORES, REPORTS
from lorif_assets.project import Project
from tests.conftest import tiny_tokenizer

_SETTINGS = """
[[sources]]
name = "docs"
path = "data.jsonl"

[checkpoints]
path = "out"

[recipe]
bytes_per_example = 300
max_length = 16
kfac_examples = 4

[tracking]
uri = "none"
"""
_TEXTS = ["the with statement opens a file", "its block ends or fails", "an error closes the file", "a block ends"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project whose checkpoints are still to be trained."""
    (tmp_path / "lorif.toml").write_text(_SETTINGS)
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in _TEXTS))
    for name in ("first", "second"):
        (tmp_path / f"queries/{name}.jsonl").parent.mkdir(exist_ok=True)
        (tmp_path / f"queries/{name}.jsonl").write_text('{"id": "q", "prompt": "a block", "completion": " ends"}')
    return tmp_path


def trainer(
    root: Path,
    callback: lorif_assets.TrainerCallback,
    out: str = "out",
    *,
    saves_tokenizer: bool = True,
    steps: int = 2,
    limit: int | None = None,
    adapts: bool = False,
) -> Trainer:
    """A Trainer that saves two checkpoints of a model of one layer."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=16, n_embd=8, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=0
    )
    rows = [{"input_ids": ids[:5], "labels": ids[:5]} for ids in tokenizer(_TEXTS)["input_ids"]]
    arguments = TrainingArguments(
        output_dir=str(root / out),
        max_steps=steps,
        save_steps=1,
        save_total_limit=limit,
        per_device_train_batch_size=1,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    given = {"processing_class": tokenizer} if saves_tokenizer else {}
    model = GPT2LMHeadModel(config)
    if adapts:
        from peft import LoraConfig, get_peft_model

        model.save_pretrained(root / "base")
        tokenizer.save_pretrained(root / "base")
        base = GPT2LMHeadModel.from_pretrained(root / "base")
        model = get_peft_model(base, LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    return Trainer(model, arguments, train_dataset=rows, callbacks=[callback], **given)


def registered(root: Path) -> set[str]:
    with dg.DagsterInstance.from_config(str(root / "dagster_home")) as instance:
        return {*instance.get_dynamic_partitions("checkpoints")}


@pytest.mark.slow
def test_checkpoints_are_registered_as_they_are_saved_and_attributed_when_the_training_ends(root: Path) -> None:
    callback = lorif_assets.TrainerCallback(root, query_sets=["first"], wait=True)
    trainer(root, callback).train()
    assert registered(root) == {"checkpoint-1", "checkpoint-2"}
    log = callback.log_file.read_text()
    lake = Project.open(root / "lorif.toml").lake
    scored = lake.read(QUERY_SCORES).select("checkpoint", "query_set").unique()
    assert {*scored.iter_rows()} == {("checkpoint-1", "first"), ("checkpoint-2", "first")}, log
    assert set(lake.read(REPORTS)["query_set"]) == {"first"}
    assert re.search(r"^attribution_report +1 partition$", log, re.MULTILINE)


def test_the_end_of_training_waits_for_every_process_whichever_ends_first(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # The first attributes until after the second has ended, and fails.
    script = root / "attributes"
    script.write_text("#!/bin/sh\nmkdir first 2>/dev/null || exit 0\nsleep 2\ntouch first/ended\nexit 3\n")
    script.chmod(0o755)
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "executable", str(script))
    callback = lorif_assets.TrainerCallback(root, query_sets="all", wait=True)
    with caplog.at_level(logging.WARNING):
        trainer(root, callback).train()
    assert (root / "first/ended").exists()
    assert caplog.text.count("attributing checkpoints failed (exit code 3)") == 1


def _that_writes_its_arguments(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a program in the place of the one that attributes; return the file with the arguments of each of its runs."""
    script, told = root / "attributes", root / "told"
    script.write_text(f'#!/bin/sh\necho "$@" >> {told}\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    return told


def test_a_checkpoint_that_is_removed_before_its_turn_is_left_out_and_told(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = _that_writes_its_arguments(root, monkeypatch)
    callback = lorif_assets.TrainerCallback(root, query_sets=["first"], wait=True)
    # One that was started before goes on until the training ends.
    monkeypatch.setattr(callback, "_running", lambda: True)
    with caplog.at_level(logging.WARNING):
        trainer(root, callback, steps=3, limit=1).train()
    assert "removed before they were attributed, and left out: checkpoint-1, checkpoint-2" in caplog.text
    (line,) = told.read_text().splitlines()
    assert line.endswith("--checkpoint checkpoint-3 --query-set first")


def test_a_resumed_training_has_what_was_saved_before_attributed_too(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer(root, lorif_assets.TrainerCallback(root)).train()
    told = _that_writes_its_arguments(root, monkeypatch)
    callback = lorif_assets.TrainerCallback(root, query_sets=["first"], wait=True)
    trainer(root, callback, steps=3).train(resume_from_checkpoint=True)
    names = [name for name in told.read_text().split() if name.startswith("checkpoint-")]
    assert names == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]


def test_a_checkpoint_that_is_removed_under_the_process_keeps_the_others_from_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer(root, lorif_assets.TrainerCallback(root)).train()
    told = _that_writes_its_arguments(root, monkeypatch)
    removed = root / "out" / "checkpoint-1"
    # As `save_total_limit` may while the libraries are loaded: what is asked for is not there any more.
    with (root / "attributes").open("a") as script:
        script.write(f'case "$*" in *checkpoint-1*) rm -r {removed}; exit 1;; esac\n')
    callback = lorif_assets.TrainerCallback(root, query_sets=["first"], wait=True)
    with caplog.at_level(logging.WARNING):
        trainer(root, callback, steps=3).train(resume_from_checkpoint=True)
    first, second = told.read_text().splitlines()
    assert first.endswith(
        "--checkpoint checkpoint-1 --checkpoint checkpoint-2 --checkpoint checkpoint-3 --query-set first"
    )
    assert second.endswith("lorif.toml --checkpoint checkpoint-2 --checkpoint checkpoint-3 --query-set first")
    assert "removed before they were attributed, and left out: checkpoint-1" in caplog.text
    assert "attributing checkpoints failed" not in caplog.text


@pytest.mark.slow
def test_the_adapters_of_a_training_are_attributed(root: Path) -> None:
    pytest.importorskip("peft")
    callback = lorif_assets.TrainerCallback(root, query_sets=["first"], wait=True)
    trainer(root, callback, adapts=True).train()
    scored = Project.open(root / "lorif.toml").lake.read(QUERY_SCORES)["checkpoint"].unique()
    # With the model that they adapt, which their scores are averaged over.
    assert {*scored} == {"base", "checkpoint-1", "checkpoint-2"}, callback.log_file.read_text()


def test_without_query_sets_checkpoints_are_registered_alone(root: Path) -> None:
    callback = lorif_assets.TrainerCallback(root / "lorif.toml")
    trainer(root, callback).train()
    assert registered(root) == {"checkpoint-1", "checkpoint-2"}
    assert not callback.log_file.exists()
    assert not (root / "lake").exists()


@pytest.mark.slow
def test_of_several_processes_that_train_the_first_alone_registers_and_attributes(root: Path) -> None:
    callback = lorif_assets.TrainerCallback(root, query_sets="all", wait=True)
    one = trainer(root, callback)
    one.args.save_strategy = "no"
    one.train()
    one.save_model(str(root / "out/checkpoint-2"))
    another = TrainerState(global_step=2, is_world_process_zero=False)
    callback.on_train_begin(one.args, another, one.control)
    callback.on_save(one.args, another, one.control)
    callback.on_train_end(one.args, another, one.control)
    assert not callback.log_file.exists()
    assert registered(root) == set()
    callback.on_save(one.args, TrainerState(global_step=2), one.control)
    callback.on_train_end(one.args, TrainerState(global_step=2), one.control)
    assert registered(root) == {"checkpoint-2"}
    assert "attribution_report" in callback.log_file.read_text()


def test_a_trainer_that_saves_elsewhere_is_refused_before_it_trains(root: Path) -> None:
    with pytest.raises(SettingsError, match=r"saves to .*elsewhere, but `checkpoints.path` in .* is .*out: set it to"):
        trainer(root, lorif_assets.TrainerCallback(root), out="elsewhere").train()
    assert not (root / "elsewhere/checkpoint-1").exists()


def test_a_checkpoint_that_cannot_be_attributed_is_told_and_the_training_goes_on(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained = trainer(root, lorif_assets.TrainerCallback(root, query_sets="all"), saves_tokenizer=False)
    with caplog.at_level(logging.WARNING):
        trained.train()
    assert "checkpoint-2 cannot be attributed:" in caplog.text
    assert "tokenizer" in caplog.text
    assert (root / "out/checkpoint-2/model.safetensors").is_file()


def test_a_model_of_another_kind_is_told_and_not_registered_and_the_training_goes_on(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = tiny_tokenizer()
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    config = T5Config(vocab_size=len(tokenizer), decoder_start_token_id=0, pad_token_id=0, eos_token_id=0, **sizes)
    rows = [{"input_ids": ids[:5], "labels": ids[:5]} for ids in tokenizer(_TEXTS)["input_ids"]]
    arguments = Seq2SeqTrainingArguments(str(root / "out"), max_steps=1, save_steps=1, report_to=[], use_cpu=True)
    Seq2SeqTrainer(
        T5ForConditionalGeneration(config),
        arguments,
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=[lorif_assets.TrainerCallback(root)],
    ).train()
    assert "checkpoint-1 cannot be attributed:" in caplog.text
    assert "is not a causal language model" in caplog.text
    assert not (root / "dagster_home").exists(), "nothing is registered"
    assert (root / "out/checkpoint-1/model.safetensors").is_file()


def test_a_place_that_keeps_no_records_is_told_in_a_sentence(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    callback = lorif_assets.TrainerCallback(root)
    (root / "dagster_home").write_text("a file")
    trainer(root, callback, steps=1).train()
    (told,) = [record for record in caplog.records if "could not be registered: Dagster cannot keep" in record.message]
    assert told.exc_info is None


def test_a_failure_to_register_is_logged_and_the_training_goes_on(
    root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    callback = lorif_assets.TrainerCallback(root)
    monkeypatch.setattr(lorif_assets.TrainerCallback, "_register", fail)
    trainer(root, callback).train()
    assert "could not be registered" in caplog.text
    assert (root / "out/checkpoint-2/model.safetensors").is_file()


def test_the_process_that_attributes_takes_no_part_in_the_training(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_training = {"RANK", "WORLD_SIZE", "ACCELERATE_USE_FSDP", "FSDP_VERSION", "TORCHELASTIC_RUN_ID", "ROLE_RANK"}
    for name in of_training:
        monkeypatch.setenv(name, "1")
    environment = lorif_assets.TrainerCallback(root, devices=["cpu"])._environment()
    assert not of_training & environment.keys()
    assert environment["LORIF_DEVICES__DEVICES"] == '["cpu"]'


def test_a_settings_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no settings file"):
        lorif_assets.TrainerCallback(tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"query_sets": "first"}, r'`query_sets` is a list of names, or "all": write \[\'first\'\]'),
        ({"devices": "cpu"}, r"`devices` is a list of names: write \['cpu'\]"),
        ({"devices": ["gpu7"]}, "names 'gpu7', which is not a device"),
    ],
)
def test_arguments_of_another_kind_are_refused(root: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        lorif_assets.TrainerCallback(root, **given)


def test_a_query_set_that_is_not_there_is_refused_before_the_training(root: Path) -> None:
    with pytest.raises(SettingsError, match="there is no query set 'frist'; found first, second"):
        trainer(root, lorif_assets.TrainerCallback(root, query_sets=["frist"])).train()
    assert not (root / "out/checkpoint-1").exists()


def test_a_trainer_of_a_project_of_registered_models_is_refused(root: Path) -> None:
    settings = (root / "lorif.toml").read_text().replace('path = "out"', 'registered_model = "tiny"')
    settings = settings.replace('uri = "none"', f'uri = "sqlite:///{root / "mlflow.db"}"')
    (root / "lorif.toml").write_text(settings)
    with pytest.raises(SettingsError, match=r"are those of `checkpoints.registered_model`: set `checkpoints.path` to"):
        trainer(root, lorif_assets.TrainerCallback(root)).train()


@pytest.mark.parametrize("broken", ["home", "program", "base model"])
def test_what_fails_when_a_training_begins_again_or_ends_is_told_and_stops_neither(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    trainer(root, lorif_assets.TrainerCallback(root)).train()
    _that_writes_its_arguments(root, monkeypatch)
    if broken == "home":
        shutil.rmtree(root / "dagster_home")
        (root / "dagster_home").write_text("a file")
    elif broken == "program":
        (root / "attributes").unlink()
    else:
        settings = (root / "lorif.toml").read_text().replace('path = "out"', 'path = "out"\nbase_model = "gone"')
        (root / "lorif.toml").write_text(settings)
    callback = lorif_assets.TrainerCallback(root, query_sets=["first"], wait=True)
    with caplog.at_level(logging.WARNING):
        trainer(root, callback, steps=3).train(resume_from_checkpoint=True)
    assert (root / "out/checkpoint-3/model.safetensors").is_file()
    assert "could not be" in caplog.text


def test_what_failed_has_one_more_turn(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = _that_writes_its_arguments(root, monkeypatch)
    with (root / "attributes").open("a") as script:
        script.write("exit 2\n")
    trainer(root, lorif_assets.TrainerCallback(root, query_sets="all", wait=True)).train()
    asked = [name for name in told.read_text().split() if name.startswith("checkpoint-")]
    assert Counter(asked) == {"checkpoint-1": 2, "checkpoint-2": 2}


def test_a_failure_is_told_where_a_checkpoint_is_removed_meanwhile(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _that_writes_its_arguments(root, monkeypatch)
    with (root / "attributes").open("a") as script:
        script.write(f'case "$*" in *checkpoint-1*) rm -r {root / "out/checkpoint-1"};; esac\nexit 2\n')
    callback = lorif_assets.TrainerCallback(root, query_sets="all", wait=True)
    with caplog.at_level(logging.WARNING):
        trainer(root, callback, steps=1).train()
    assert (
        "the process that attributed checkpoint-1 ended with the exit code 2, and checkpoint-1 was meanwhile removed; see "
        f"{callback.log_file}"
    ) in caplog.text


def test_a_resumed_training_asks_for_nothing_that_it_will_write_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer(root, lorif_assets.TrainerCallback(root), steps=3).train()
    told = _that_writes_its_arguments(root, monkeypatch)
    callback = lorif_assets.TrainerCallback(root, query_sets=["first"])
    one = trainer(root, callback, steps=3)
    callback.on_train_begin(one.args, TrainerState(global_step=2), one.control)
    callback._start()
    (process,) = callback._processes
    process.wait()
    assert told.read_text().strip().endswith("--checkpoint checkpoint-1 --checkpoint checkpoint-2 --query-set first")


def test_a_checkpoint_that_a_trainer_saved_without_a_word_as_it_ended_is_taken_up(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer(root, lorif_assets.TrainerCallback(root)).train()
    told = _that_writes_its_arguments(root, monkeypatch)
    callback = lorif_assets.TrainerCallback(root, query_sets=["first"], wait=True)
    one = trainer(root, callback)
    callback.on_train_end(one.args, TrainerState(global_step=2), one.control)
    assert "--checkpoint checkpoint-2" in told.read_text()


def test_a_checkpoint_in_shards_is_told_with_what_joins_them(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    callback = lorif_assets.TrainerCallback(root)
    (root / "out/checkpoint-2/pytorch_model_fsdp_0").mkdir(parents=True)
    (root / "out/checkpoint-2/pytorch_model_fsdp_0/__0_0.distcp").write_bytes(b"x")
    one = trainer(root, callback)
    with caplog.at_level(logging.WARNING):
        callback.on_save(one.args, TrainerState(global_step=2), one.control)
    assert "accelerate merge-weights" in caplog.text


def test_a_callback_can_be_copied_while_a_process_attributes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _that_writes_its_arguments(root, monkeypatch)
    callback = lorif_assets.TrainerCallback(root, query_sets="all")
    trainer(root, callback).train()
    callback._processes = callback._processes or {subprocess.Popen(["true"]): ["checkpoint-1"]}
    assert copy.deepcopy(callback)._processes == {}
    assert pickle.loads(pickle.dumps(callback))._processes == {}


def test_the_process_that_attributes_has_all_threads_where_torchrun_gave_the_training_one(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    callback = lorif_assets.TrainerCallback(root)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert callback._environment()["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert "OMP_NUM_THREADS" not in callback._environment()
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert callback._environment()["OMP_NUM_THREADS"] == "4"


def test_where_several_processes_train_the_first_waits_when_it_ends_and_not_before(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _that_writes_its_arguments(root, monkeypatch)
    at_exit: list[Any] = []
    monkeypatch.setattr(atexit, "register", at_exit.append)
    callback = lorif_assets.TrainerCallback(root, query_sets="all", wait=True)
    one = trainer(root, callback)
    one.train()
    assert callback._wait_for_all not in at_exit
    monkeypatch.setattr(TrainingArguments, "world_size", 2)
    callback.on_train_end(one.args, TrainerState(global_step=2), one.control)
    assert callback._wait_for_all in at_exit
