"""Whatever becomes of checkpoints, the table holds those that are there as they are, and all others are said."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg
from hypothesis import given, settings
from hypothesis import strategies as st

from lorif_assets.api.status import project_status
from lorif_assets.assets.checkpoints import checkpoints
from lorif_assets.assets.graph import ASSETS
from lorif_assets.automation.materialization import bring_up_to_date
from lorif_assets.lake.attribution_tables import CHECKPOINTS as CHECKPOINT_TABLE
from lorif_assets.project import Project
from tests.conftest import CHECKPOINTS, TinyProject

STEPS = st.sampled_from([200, 300, 400])
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("save"), STEPS),
        st.tuples(st.just("train on"), STEPS),
        st.tuples(st.just("lose its weights"), STEPS),
        st.tuples(st.just("remove"), STEPS),
        st.tuples(st.just("call it later"), STEPS),
        st.tuples(st.just("materialize"), st.none()),
    ),
    min_size=1,
    max_size=6,
)


def name_of(step: int) -> str:
    return f"step-{step:06}"


def operate(operation: str, folder: Path, saved: Path, trained: int) -> None:
    """Do to a checkpoint what a trainer, or a person, does."""
    weights = folder / "model.safetensors"
    if operation == "save" and not folder.exists():
        shutil.copytree(saved, folder)
    elif operation == "train on" and weights.exists():
        content = bytearray(weights.read_bytes())
        content[-2] = trained % 256
        weights.write_bytes(content)
    elif operation == "lose its weights" and folder.exists():
        weights.unlink(missing_ok=True)
    elif operation == "remove":
        shutil.rmtree(folder, ignore_errors=True)
    elif operation == "call it later" and folder.exists():
        shutil.rmtree(folder.with_name(name_of(500)), ignore_errors=True)
        folder.rename(folder.with_name(name_of(500)))


@settings(max_examples=10)
@given(operations=OPERATIONS)
def test_after_any_changes_of_checkpoints_each_that_is_whole_is_recorded_as_it_is(
    tiny_project: TinyProject, operations: list[tuple[str, int | None]]
) -> None:
    with TemporaryDirectory() as folder, dg.DagsterInstance.ephemeral() as instance:
        root = Path(folder)
        for name in ("data", "queries"):
            shutil.copytree(tiny_project.root / name, root / name)
        saved = tiny_project.root / "checkpoints" / CHECKPOINTS[0]
        # One is always there: without any, there is nothing to record.
        shutil.copytree(saved, root / "checkpoints" / name_of(100))
        chosen = tiny_project.settings.model_copy(
            update={
                "base": root,
                "active": tiny_project.settings.active.model_copy(update={"checkpoints": "all"}),
                "checkpoints": tiny_project.settings.checkpoints.model_copy(update={"path": str(root / "checkpoints")}),
            }
        )
        project = TinyProject(root, chosen, Project.of(chosen), instance)
        recorded: set[str] = set()

        def materialize() -> None:
            list(bring_up_to_date(instance, ASSETS, project.opened, selection=[checkpoints]))
            recorded.update(project.table(CHECKPOINT_TABLE)["checkpoint"])

        materialize()
        for at, (operation, step) in enumerate(operations):
            if step is None:
                materialize()
            else:
                operate(operation, root / "checkpoints" / name_of(step), saved, at + 1)
        materialize()
        found = {one.name: one for one in project.opened.checkpoints.find()}
        there = {path.name for path in (root / "checkpoints").iterdir()}
        whole = {name for name in there if (root / "checkpoints" / name / "model.safetensors").exists()}
        assert found.keys() == there
        assert {name for name, one in found.items() if one.is_complete()} == whole
        stored = {row["checkpoint"]: row for row in project.table(CHECKPOINT_TABLE).to_dicts()}
        assert stored.keys() == recorded | whole
        assert not set(project.stale("checkpoints")) & whole
        for name in whole:
            assert stored[name]["weights_hash"] == found[name].weights_hash()
            assert stored[name]["uri"] == str(found[name].path)
        said = " ".join(project_status(project.opened).notes)
        for name in (there | recorded) - whole:
            assert name in said
