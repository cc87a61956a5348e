"""The calls that are made to MLflow, each as plain JSON values, so that one that cannot be made now can be made later."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from lorif_assets.machine_locks import MachineLock
from lorif_assets.scratch_folders import scratch_folder
from lorif_assets.tracking.facts import TrackedDataset
from lorif_assets.tracking.run_tree import Runs

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

Call = dict[str, Any]
Target = Literal["child", "checkpoint", "project"]
"""Which run a call is about: that of the materialization, of its checkpoint, or of the project."""
_CONTEXT = "mlflow.data.context"


def datasets_call(datasets: Sequence[TrackedDataset], target: Target) -> Call:
    """Return the call that lists training data."""
    return {"kind": "datasets", "run": target, "datasets": [asdict(one) for one in datasets]}


def image_call(png: bytes, name: str) -> Call:
    """Return the call that logs a picture."""
    return {"kind": "image", "png": base64.b64encode(png).decode(), "name": name}


def make_call(client: "MlflowClient", runs: Runs, call: Mapping[str, Any], folder: Path) -> None:
    """Make one call; paths are relative to a folder. What is about a run that there is not is left out."""
    run_id = {"child": runs.child, "checkpoint": runs.checkpoint, "project": runs.project}[call.get("run", "child")]
    if not run_id:
        return
    match call["kind"]:
        case "metrics":
            for name, value in call["figures"].items():
                client.log_metric(run_id, name, value, timestamp=call["at"], step=call["step"])
        case "state":
            _log_state(client, run_id, call)
        case "datasets":
            _log_datasets(client, run_id, call["datasets"])
        case "tags":
            for name, value in call["tags"].items():
                client.set_tag(run_id, name, value)
        case "text":
            client.log_text(run_id, call["content"], call["name"])
        case "image":
            path = PurePosixPath(call["name"])
            with scratch_folder() as scratch:
                file = scratch / path.name
                file.write_bytes(base64.b64decode(call["png"]))
                client.log_artifact(run_id, str(file))
        case "folder":
            client.log_artifacts(run_id, str(folder / call["path"]), call["name"])
        case "spent":
            _add_time(client, run_id, call)
        case "end":
            client.set_terminated(run_id, call["status"], call["at"])


def _log_state(client: "MlflowClient", run_id: str, call: Mapping[str, Any]) -> None:
    """Log figures of a state at its step; one that is there already is no second point of a chart."""
    from mlflow.entities import Metric

    run = client.get_run(run_id)
    new = {name: value for name, value in call["figures"].items() if not _is_logged(client, run, name, value, call)}
    if new:
        metrics = [Metric(name, value, call["at"], call["step"]) for name, value in new.items()]
        client.log_batch(run_id, metrics=metrics)


def _is_logged(client: "MlflowClient", run: "Run", name: str, value: float, call: Mapping[str, Any]) -> bool:
    if name not in run.data.metrics:
        return False
    there = [one for one in client.get_metric_history(run.info.run_id, name) if one.step == call["step"]]
    return bool(there) and bool(max(there, key=lambda one: one.timestamp).value == value)


def _log_datasets(client: "MlflowClient", run_id: str, datasets: Sequence[Mapping[str, str]]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    tags = [InputTag(_CONTEXT, "training")]
    client.log_inputs(run_id, datasets=[DatasetInput(Dataset(**one), tags) for one in datasets])


def _add_time(client: "MlflowClient", run_id: str, call: Mapping[str, Any]) -> None:
    """Let a run's duration be the time that its children took, and its state that of the last one."""
    with MachineLock("tracking"):
        info = client.get_run(run_id).info
        end = max(info.end_time or 0, info.start_time) + call["milliseconds"]
        client.set_terminated(run_id, call["status"], end)
