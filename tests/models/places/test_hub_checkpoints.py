"""Checkpoints on the hub: how they are named, what makes them new, what is downloaded when, and what is refused."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import pytest

from lorif_assets.config.sections import CheckpointSettings
from lorif_assets.config.settings import Settings
from lorif_assets.errors import CheckpointError
from lorif_assets.hub.names import HubName
from lorif_assets.hub.snapshots import snapshot_of
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.models.places.hub_checkpoints import HubCheckpoint
from lorif_assets.project import Project
from resources.checkpoints import CheckpointsResource
from tests.hub_stand_in import TOKEN, HubStandIn, bring_cache_without_lists


def checkpoints(path: str, base: Path = Path("/nowhere")) -> Checkpoints:
    return Project.of(Settings(checkpoints=CheckpointSettings(path=path), base=base)).checkpoints


def names_and_steps(path: str) -> list[tuple[str, int | None]]:
    return [(checkpoint.name, checkpoint.step) for checkpoint in checkpoints(path).find()]


def run_of(saved_model: Mapping[str, bytes], folders: Sequence[str]) -> dict[str, bytes]:
    """Files of models in folders, each with weights of its own."""
    files = {f"{folder}{name}": content for folder in folders for name, content in saved_model.items()}
    return files | {
        f"{folder}model.safetensors": saved_model["model.safetensors"] + bytes([k]) for k, folder in enumerate(folders)
    }


def adapters_of(folders: Sequence[str]) -> dict[str, bytes]:
    """Files of adapters in folders, each with weights of its own."""
    return {
        f"{folder}{name}": content + (bytes([k]) if name.endswith(".safetensors") else b"")
        for k, folder in enumerate(folders)
        for name, content in adapter_files("org/base").items()
    }


def test_a_repository_is_a_checkpoint_named_after_it_and_its_revision(
    hub: HubStandIn, saved_model: Mapping[str, bytes]
) -> None:
    commit = hub.model("org/tiny-70m").commit(saved_model)
    hub.model("org/tiny-70m").commit(saved_model, "step3000")
    hub.model("org/tiny-70m").commit(saved_model, "refs/pr/2")
    assert names_and_steps("hf://org/tiny-70m") == names_and_steps("org/tiny-70m") == [("tiny-70m", None)]
    assert names_and_steps("org/tiny-70m@step3000") == [("tiny-70m@step3000", 3000)]
    assert names_and_steps("hf://org/tiny-70m@refs/pr/2") == [("tiny-70m@refs-pr-2", 2)]
    assert names_and_steps(f"hf://org/tiny-70m@{commit}") == [(f"tiny-70m@{commit[:12]}", None)]


def test_a_model_whose_name_is_older_than_organisations_is_a_checkpoint(
    hub: HubStandIn, saved_model: Mapping[str, bytes], tmp_path: Path
) -> None:
    hub.model("gpt2").commit(saved_model)
    assert names_and_steps("hf://gpt2") == names_and_steps("gpt2") == [("gpt2", None)]
    assert checkpoints("gpt2").get("gpt2").weight_files
    with pytest.raises(CheckpointError, match=rf"the checkpoint directory {tmp_path}/llama does not exist"):
        checkpoints("llama", tmp_path).find()


@pytest.mark.parametrize("named", ["org/tiny@step3000", "hf://org/tiny@step3000"])
def test_the_base_model_of_the_settings_has_the_revision_that_they_name(
    hub: HubStandIn, saved_model: Mapping[str, bytes], tmp_path: Path, named: str
) -> None:
    hub.model("org/tiny").commit(saved_model)
    commit = hub.model("org/tiny").commit({**saved_model, "README.md": b"step 3000"}, "step3000")
    (tmp_path / "run/checkpoint-20").mkdir(parents=True)
    for name, content in adapter_files("org/other").items():
        (tmp_path / "run/checkpoint-20" / name).write_bytes(content)
    settings = Settings(checkpoints=CheckpointSettings(path="run", base_model=named), base=tmp_path)
    base, adapter = Project.of(settings).checkpoints.find()
    assert (base.name, base.path.name, adapter.base.path.name) == ("base-tiny", commit, commit)


def test_a_folder_of_a_repository_is_no_base_model(
    hub: HubStandIn, saved_model: Mapping[str, bytes], tmp_path: Path
) -> None:
    hub.model("org/tiny").commit(saved_model)
    settings = Settings(
        checkpoints=CheckpointSettings(path="org/tiny", base_model="hf://org/tiny@main/step-2"), base=tmp_path
    )
    with pytest.raises(
        CheckpointError, match=r"on the hub: hf://org/tiny@main/step-2 is no whole repository of a model"
    ):
        Project.of(settings).checkpoints.find()


def test_folders_of_a_repository_are_checkpoints_in_order_of_step(
    hub: HubStandIn, saved_model: Mapping[str, bytes]
) -> None:
    folders = ("checkpoint-20", "checkpoint-3")
    hub.model("org/run").commit(
        {f"{folder}/{name}": content for folder in folders for name, content in saved_model.items()}
        | {"logs/events.out": b""}
    )
    assert names_and_steps("hf://org/run") == [("checkpoint-3", 3), ("checkpoint-20", 20)]
    assert names_and_steps("hf://org/run/checkpoint-20") == [("checkpoint-20", 20)]


def test_a_model_above_the_steps_of_its_training_is_the_last_of_them(
    hub: HubStandIn, saved_model: Mapping[str, bytes]
) -> None:
    files = run_of(saved_model, ("", "checkpoint-20/", "checkpoint-3/", "onnx/"))
    files["onnx/model.onnx"] = files.pop("onnx/model.safetensors")
    hub.model("org/run").commit(files)
    assert names_and_steps("org/run") == [("checkpoint-3", 3), ("checkpoint-20", 20), ("run", 20)]
    assert all(found.is_complete() for found in checkpoints("org/run").find())


def test_whole_models_beside_one_are_checkpoints_whatever_their_names_but_those_of_hidden_folders(
    hub: HubStandIn, saved_model: Mapping[str, bytes]
) -> None:
    hub.model("org/run").commit(
        run_of(
            saved_model, ("", "epoch_1/", "epoch_2/", "last-checkpoint/", "tmp-checkpoint-9/", "_x/", ".y/", "z.tmp/")
        )
    )
    assert names_and_steps("org/run") == [("epoch_1", 1), ("epoch_2", 2), ("last-checkpoint", 2), ("run", 2)]


def test_an_adapter_that_was_merged_beside_adapters_is_passed_over(
    hub: HubStandIn, saved_model: Mapping[str, bytes]
) -> None:
    adapters = {f"checkpoint-20/{name}": content for name, content in adapter_files("org/base").items()}
    hub.model("org/run").commit(adapters | run_of(saved_model, ("merged/",)))
    found = checkpoints("org/run").look()
    assert [one.name for one in found.checkpoints] == ["checkpoint-20"]
    assert any("merged is passed over: its name says that it is an adapter merged" in note for note in found.notes)


def test_the_adapter_that_a_preference_training_compares_with_is_passed_over_and_said(hub: HubStandIn) -> None:
    folders = ("", "ref/", "checkpoint-20/", "checkpoint-40/")
    commit = hub.model("org/dpo").commit(adapters_of(folders))
    found = checkpoints("org/dpo").look()
    assert [(one.name, one.step) for one in found.checkpoints] == [
        ("checkpoint-20", 20),
        ("checkpoint-40", 40),
        ("dpo", 40),
    ]
    assert found.notes[-1] == (
        f"hf://org/dpo@{commit}/ref is passed over (1 such): its name says that it is the adapter that a preference training "
        "compares with the one beside it"
    )


def test_a_converted_adapter_stands_for_the_one_that_was_saved_at_the_end(hub: HubStandIn) -> None:
    hub.model("org/pissa").commit(adapters_of(("", "pissa_init/", "pissa_converted/", "checkpoint-20/")))
    assert names_and_steps("org/pissa") == [("checkpoint-20", 20), ("pissa_converted", 20)]


def test_folders_whose_names_become_one_or_that_of_the_repository_are_checkpoints_of_their_own(
    hub: HubStandIn, saved_model: Mapping[str, bytes]
) -> None:
    hub.model("org/tiny").commit(run_of(saved_model, ("", "tiny/", "a b/", "a_b/")))
    found = {one.name: one.folder for one in checkpoints("org/tiny").find() if isinstance(one, HubCheckpoint)}
    assert sorted(found.values()) == ["", "a b", "a_b", "tiny"]
    assert (found["tiny"], found["a_b"]) == ("", "a_b")


def test_models_further_down_in_the_folders_of_steps_are_those_of_the_steps(
    hub: HubStandIn, saved_model: Mapping[str, bytes]
) -> None:
    whole = (
        "global_step_20/actor/huggingface/",
        "global_step_3/actor/huggingface/",
        "global_step_3/critic/huggingface/",
    )
    files = {
        **run_of(saved_model, whole),
        "global_step_3/actor/model_world_size_2_rank_0.pt": b"verl's shards",
        "global_step_20/trainer_state.json": b'{"global_step": 7}',
    }
    hub.model("org/verl").commit({f"runs/1/{name}": content for name, content in files.items()})
    found = [one for one in checkpoints("hf://org/verl@main/runs/1").find() if isinstance(one, HubCheckpoint)]
    assert [(one.name, one.step, one.folder) for one in found] == [
        ("global_step_3", 3, "runs/1/global_step_3/actor/huggingface"),
        ("global_step_20", 20, "runs/1/global_step_20/actor/huggingface"),
    ]
    found[0].check()
    assert (found[0].path / "model.safetensors").is_file()


def test_an_adapter_with_a_name_is_that_of_the_folder_in_which_peft_saved_it(hub: HubStandIn) -> None:
    hub.model("org/run").commit(
        adapters_of(("checkpoint-20/mine/", "checkpoint-3/mine/", "checkpoint-3/ref/", "last/mine/"))
        | {"last/trainer_state.json": b'{"global_step": 30}'}
    )
    assert names_and_steps("org/run") == [("checkpoint-3", 3), ("checkpoint-20", 20), ("last", 30)]


def test_what_a_publisher_trained_with_in_a_format_of_its_own_is_no_checkpoint(
    hub: HubStandIn, saved_model: Mapping[str, bytes]
) -> None:
    own = {"original/config.json": b'{"num_hidden_layers": 2}', "original/model.safetensors": b"other names"}
    hub.model("org/oss").commit(dict(saved_model) | own)
    assert names_and_steps("org/oss") == [("oss", None)]


def test_a_repository_of_many_steps_is_looked_at_in_the_time_that_its_files_take(
    hub: HubStandIn, saved_model: Mapping[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each path is read once, however often models are compared."""
    folders = ("", *(f"checkpoint-{step}/" for step in range(1, 21)))
    hub.model("org/run").commit(files := run_of(saved_model, folders))
    n_read = 0

    def counted(*parts: str) -> PurePosixPath:
        nonlocal n_read
        n_read += 1
        return PurePosixPath(*parts)

    for module in ("hub.snapshots", "models.files.hub"):
        monkeypatch.setattr(f"lorif_assets.{module}.PurePosixPath", counted)
    assert len(names_and_steps("org/run")) == len(folders)
    assert n_read <= 10 * len(files), n_read


def test_a_folder_whose_name_says_that_it_is_the_last_comes_last(
    hub: HubStandIn, saved_model: Mapping[str, bytes]
) -> None:
    hub.model("org/run").commit(run_of(saved_model, ("checkpoint-20/", "checkpoint-3/", "llama-3-final/")))
    assert names_and_steps("org/run") == [("checkpoint-3", 3), ("checkpoint-20", 20), ("llama-3-final", 20)]


@pytest.mark.parametrize("equal", ["checkpoint-20/", "checkpoint-3/"])
def test_a_model_above_the_steps_that_is_one_of_them_is_no_further_checkpoint(
    hub: HubStandIn, saved_model: Mapping[str, bytes], equal: str
) -> None:
    files = run_of(saved_model, ("", "checkpoint-20/", "checkpoint-3/"))
    commit = hub.model("org/run").commit({**files, "model.safetensors": files[f"{equal}model.safetensors"]})
    found = checkpoints(f"hf://org/run@{commit}").look()
    assert [one.name for one in found.checkpoints] == ["checkpoint-3", "checkpoint-20"]
    said = f"the model in hf://org/run@{commit} itself is {equal[:-1]}: their weights are the same"
    assert found.notes == [said]
    assert found.same == {f"run@{commit[:12]}": said}
    assert hub.downloads() == [".gitattributes"], "the hub's own hashes say so"


def test_copies_of_a_step_in_other_folders_are_no_further_checkpoints(
    hub: HubStandIn, saved_model: Mapping[str, bytes]
) -> None:
    files = run_of(saved_model, ("checkpoint-20/", "checkpoint-3/", "best/", "final/", "other/"))
    for name in ("best", "other"):
        files[f"{name}/model.safetensors"] = files["checkpoint-3/model.safetensors"]
    files["final/model.safetensors"] = files["checkpoint-20/model.safetensors"]
    files["other/tokenizer.json"] += b"\n"
    commit = hub.model("org/run").commit(files)
    found = checkpoints(f"hf://org/run@{commit}").look()
    assert [(one.name, one.step) for one in found.checkpoints] == [
        ("other", None),
        ("checkpoint-3", 3),
        ("checkpoint-20", 20),
    ]
    assert found.notes == [
        f"hf://org/run@{commit}/final is checkpoint-20: their files are the same",
        f"hf://org/run@{commit}/best is checkpoint-3: their files are the same",
    ]
    assert hub.downloads() == [".gitattributes"]


@pytest.mark.parametrize("links", [True, False])
def test_offline_copies_of_a_step_are_known_without_a_list_of_hashes(
    hub: HubStandIn, saved_model: Mapping[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, links: bool
) -> None:
    files = run_of(saved_model, ("checkpoint-3/", "best/", "other/"))
    files["best/model.safetensors"] = files["checkpoint-3/model.safetensors"]
    commit = hub.model("org/run").commit(files)
    snapshot = snapshot_of(HubName.parse(f"hf://org/run@{commit}"))
    snapshot.fetch(snapshot.files)
    bring_cache_without_lists(tmp_path / "cache", monkeypatch, links=links)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert names_and_steps(f"org/run@{commit}") == [("other", None), ("checkpoint-3", 3)]


def test_a_trainers_state_says_the_step_that_a_name_does_not_say(
    hub: HubStandIn, saved_model: Mapping[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = run_of(saved_model, ("best/", "checkpoint-20/"))
    hub.model("org/run").commit({**files, "best/trainer_state.json": b'{"global_step": 12}'})
    monkeypatch.chdir(tmp_path)
    # A folder of the same name where the program runs has nothing to do with it.
    (tmp_path / "best").mkdir()
    (tmp_path / "best/trainer_state.json").write_text('{"global_step": 30}')
    assert names_and_steps("org/run") == [("best", 12), ("checkpoint-20", 20)]


def test_a_folder_comes_before_a_repository_of_its_name(
    hub: HubStandIn, saved_model: Mapping[str, bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "org/tiny"
    folder.mkdir(parents=True)
    for name, content in saved_model.items():
        (folder / name).write_bytes(content)
    (found,) = checkpoints("org/tiny", tmp_path).find()
    assert found.path == folder
    assert not hub.requests


def test_weights_are_downloaded_when_the_model_is_loaded_and_not_before(
    hub: HubStandIn, saved_model: Mapping[str, bytes]
) -> None:
    hub.model("org/tiny").commit(saved_model)
    here = checkpoints("hf://org/tiny")
    (found,) = here.find()
    assert found.is_complete()
    found.check_description()
    here.skeleton(found)
    here.load_tokenizer(found)
    assert "model.safetensors" not in hub.downloads()
    model = here.load_model(here.get("tiny"), "float32", DeviceGroup.of("cpu"))
    assert model.num_parameters() > 0
    assert hub.downloads().count("model.safetensors") == 1


def test_a_new_commit_is_a_new_version_of_the_checkpoint_and_the_hash_is_of_its_bytes(
    hub: HubStandIn, saved_model: Mapping[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = hub.model("org/tiny").commit(saved_model)
    before, pinned = checkpoints("org/tiny").get("tiny"), checkpoints(f"org/tiny@{first}")
    hub.model("org/tiny").commit({**saved_model, "README.md": b"# Tiny"})
    after = checkpoints("org/tiny").get("tiny")
    assert before.version() != after.version()
    assert before.weights_hash() == after.weights_hash()
    assert before.tokenizer_hash() == after.tokenizer_hash()
    assert pinned.find()[0].version() == before.version()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "of another machine"))
    assert checkpoints("org/tiny").find()[0].version() == after.version()


def test_what_else_the_cache_holds_is_no_part_of_the_checkpoint(
    hub: HubStandIn, saved_model: Mapping[str, bytes]
) -> None:
    hub.model("org/tiny").commit({**saved_model, "consolidated.safetensors": b"the same again"})
    found = checkpoints("org/tiny").get("tiny")
    before = found.weights_hash()
    (found.path / "consolidated.safetensors").write_bytes(b"the same again")
    assert checkpoints("org/tiny").get("tiny").weights_hash() == before


def test_offline_the_cached_snapshot_is_loaded_or_what_is_missing_is_said(
    hub: HubStandIn, saved_model: Mapping[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.model("org/tiny").commit(saved_model)
    hub.model("org/half").commit(saved_model)
    checkpoints("org/tiny").get("tiny")
    checkpoints("org/half").find()[0].check_description()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.requests.clear()
    checkpoints("org/tiny").get("tiny")
    assert "offline mode" in str(checkpoints("org/tiny").look().notes)
    with pytest.raises(
        CheckpointError, match=r"model.safetensors of hf://org/half is not in the cache .*HF_HUB_OFFLINE"
    ):
        checkpoints("org/half").get("half")
    with pytest.raises(
        CheckpointError, match=r"no folder /nowhere/org/none, and on the hub: hf://org/none, revision 'main'"
    ):
        checkpoints("org/none").find()
    assert not hub.requests


def test_a_revision_that_may_move_is_said_and_a_commit_is_not(
    hub: HubStandIn, saved_model: Mapping[str, bytes]
) -> None:
    commit = hub.model("org/tiny").commit(saved_model)
    assert checkpoints("org/tiny").look().notes == [
        f"follows 'main', which may move; hf://org/tiny@{commit} would stay as it is now"
    ]
    assert not checkpoints(f"hf://org/tiny@{commit}").look().notes


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("hf://org/none", r"^http\S+ has no model 'org/none' that can be read without a token"),
        ("org/none", r"^there is no folder /nowhere/org/none, and on the hub: http\S+ has no model 'org/none'"),
        ("hf://org/tiny@v9", r"'org/tiny' has no revision 'v9'"),
        ("hf://org/gated", r"hf://org/gated is gated, and cannot be read without a token: ask for access at"),
        ("hf://datasets/org/tiny", r"is a data set; expected a model"),
        ("hf://org/empty", r"holds no model, and neither do the folders in it: .* has notes.md"),
    ],
)
def test_what_the_hub_does_not_give_is_said(
    hub: HubStandIn, saved_model: Mapping[str, bytes], path: str, message: str
) -> None:
    hub.model("org/tiny").commit(saved_model)
    hub.model("org/empty").commit({"notes.md": b""})
    hub.model("org/gated").commit(saved_model)
    hub.model("org/gated").is_gated = True
    with pytest.raises(CheckpointError, match=message):
        checkpoints(path).find()


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("tokenizer.json", r"hf://org/tiny@\w{40} has no tokenizer"),
        ("model.safetensors", r"has no \*.safetensors weights; found pytorch_model.bin"),
    ],
)
def test_a_repository_without_what_a_checkpoint_needs_is_no_complete_one(
    hub: HubStandIn, saved_model: Mapping[str, bytes], missing: str, message: str
) -> None:
    rest = {name: content for name, content in saved_model.items() if name != missing}
    hub.model("org/tiny").commit({**rest, "pytorch_model.bin": b"pickle"})
    (found,) = checkpoints("org/tiny").find()
    assert not found.is_complete()
    with pytest.raises(CheckpointError, match=message):
        found.check()
    assert not {"pytorch_model.bin", "model.safetensors"} & {*hub.downloads()}


def test_a_repository_whose_tokenizer_needs_no_vocabulary_is_complete(
    hub: HubStandIn, saved_model: Mapping[str, bytes]
) -> None:
    rest = {name: content for name, content in saved_model.items() if name != "tokenizer.json"}
    hub.model("org/bytes").commit({**rest, "tokenizer_config.json": b'{"tokenizer_class": "ByT5Tokenizer"}'})
    (found,) = checkpoints("org/bytes").find()
    assert found.fault() is None
    assert "org/bytes/model.safetensors" not in hub.downloads()


def test_dagster_hands_out_the_same_checkpoints_and_no_token(
    hub: HubStandIn, saved_model: Mapping[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.model("org/tiny").commit(saved_model)
    resource = CheckpointsResource.of(checkpoints("org/tiny"))
    assert resource.create_resource(None) == checkpoints("org/tiny")  # type: ignore[arg-type]
    assert TOKEN not in str(resource)


# --- adapters ---------------------------------------------------------------------------------------------------------


def adapter_files(base: str) -> dict[str, bytes]:
    """What `save_pretrained` of a PEFT model writes; its weights are never loaded here."""
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base}
    empty = len(b"{}").to_bytes(8, "little") + b"{}"
    return {"adapter_config.json": json.dumps(config).encode(), "adapter_model.safetensors": empty}


def test_the_hub_is_asked_for_the_base_model_of_many_adapters_once_in_a_look(
    hub: HubStandIn, saved_model: Mapping[str, bytes], tmp_path: Path
) -> None:
    hub.model("org/tiny").commit(saved_model)

    def n_requests(n_adapters: int) -> int:
        for step in range(n_adapters):
            folder = tmp_path / f"run/checkpoint-{step + 1}"
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in adapter_files("org/tiny").items():
                (folder / name).write_bytes(content)
        settings = Settings(checkpoints=CheckpointSettings(path="run"), base=tmp_path)
        before = len(hub.requests)
        assert len(Project.of(settings).checkpoints.complete()) == n_adapters + 1
        return len(hub.requests) - before

    # The first look downloads what describes it.
    assert n_requests(1) >= n_requests(2) == n_requests(8) <= 2


def test_an_adapter_on_the_hub_is_a_checkpoint_and_its_base_model_on_the_hub_is_step_0(
    hub: HubStandIn, saved_model: Mapping[str, bytes]
) -> None:
    hub.model("org/tiny").commit(saved_model)
    hub.model("org/tuned").commit(adapter_files("org/tiny"))
    base, adapter = checkpoints("org/tuned").find()
    assert (base.name, base.step, adapter.name) == ("base-tiny", 0, "tuned")
    assert adapter.fault() is None
    assert not [path for path in hub.downloads() if path.endswith("safetensors")], "a look needs no weights"
    adapter.check()
    assert [path for path in hub.downloads() if path.endswith("safetensors")]
    assert adapter.base.weight_files
    assert adapter.weights_hash() != base.weights_hash()


@pytest.mark.parametrize("named", ["org/tiny", "gpt2"])
def test_an_adapter_in_a_folder_takes_its_base_model_from_the_hub(
    hub: HubStandIn, saved_model: Mapping[str, bytes], tmp_path: Path, named: str
) -> None:
    hub.model(named).commit(saved_model)
    (tmp_path / "run/checkpoint-20").mkdir(parents=True)
    for name, content in adapter_files(named).items():
        (tmp_path / "run/checkpoint-20" / name).write_bytes(content)
    before = len(hub.downloads())
    found = Checkpoints(path=str(tmp_path / "run"))
    base, adapter = found.find()
    assert (base.name, adapter.step, adapter.fault()) == (f"base-{named.removeprefix('org/')}", 20, None)
    assert not [path for path in hub.downloads()[before:] if path.endswith("safetensors")]
    version = adapter.version()
    found.get(adapter.name)
    assert adapter.base.weight_files
    assert found.get(adapter.name).version() != version, "the base model's files are here now"


def test_an_adapter_whose_base_model_is_nowhere_says_where_it_was_looked_for(hub: HubStandIn) -> None:
    hub.model("org/tuned").commit(adapter_files("org/none"))
    (adapter,) = checkpoints("org/tuned").find()
    fault = str(adapter.fault())
    assert "the base model 'org/none' of the adapter" in fault
    assert "on the hub" in fault
    assert "checkpoints.base_model" in fault
