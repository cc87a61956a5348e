"""What every driver of `peers.py` does alike: read the workload, time building and scoring, report them as JSON.

Runs in the environment of a peer: it needs numpy, torch and transformers, and nothing of this project.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Workload:
    """A model in a folder, and examples [N, T] and queries [Q, T] of token ids, all of one length."""

    folder: Path
    examples: "np.ndarray[tuple[int, int], np.dtype[np.int64]]"
    queries: "np.ndarray[tuple[int, int], np.dtype[np.int64]]"
    layers: list[str]
    projection_factor: int
    projection_width: int
    """Of projections that give every layer p x p numbers: about as many in all as `projection_factor` gives."""
    batch_rows: int

    @classmethod
    def read(cls, folder: Path) -> "Workload":
        """Read what `peers.py` wrote."""
        setting = json.loads((folder / "workload.json").read_text())
        return cls(folder, np.load(folder / "examples.npy"), np.load(folder / "queries.npy"), **setting)

    @property
    def model_folder(self) -> Path:
        """A `save_pretrained` folder."""
        return self.folder / "model"

    def model(self) -> Any:
        """Return the model, in FP32."""
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(self.model_folder, dtype=torch.float32).eval()


class Peer:
    """One implementation: builds what it keeps of examples in a folder, and scores queries with it."""

    distribution: str
    setting: str

    def __init__(self, workload: Workload) -> None:
        self.workload = workload

    def build(self, examples: "np.ndarray[tuple[int, int], np.dtype[np.int64]]", folder: Path) -> None:
        """Keep in a folder what is kept of the examples."""
        raise NotImplementedError

    def stored_bytes(self, _folder: Path) -> int:
        """Return the bytes that are kept of the examples that were built last."""
        return bytes_below(_folder)

    def prepare(self) -> None:
        """Do once what belongs neither to building nor to scoring."""

    def scores(self) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
        """Return the scores [Q, N] of the queries over the examples that were built last."""
        raise NotImplementedError


def run(peer: Callable[[Workload], Peer]) -> None:
    """Build and score, each after a small one unmeasured; print the figures as one line of JSON, and save the scores."""
    torch.set_num_threads(1)
    workload, name = Workload.read(Path(sys.argv[1])), sys.argv[2]
    implementation = peer(workload)
    folder = workload.folder / name
    shutil.rmtree(folder, ignore_errors=True)
    implementation.build(workload.examples[: 2 * workload.batch_rows], folder / "warm")
    loaded = peak_bytes()
    build = seconds(lambda: implementation.build(workload.examples, folder / "store"))
    stored = implementation.stored_bytes(folder / "store")
    implementation.prepare()
    implementation.scores()
    found: list[Any] = []
    score = seconds(lambda: found.append(implementation.scores()))
    np.save(workload.folder / f"{name}.npy", found[0])
    figures = {
        "version": version(implementation.distribution),
        "torch": torch.__version__,
        "setting": implementation.setting,
        "build": build,
        "score": score,
        "stored_bytes": stored,
        "peak_bytes": peak_bytes(),
        "warm_peak_bytes": loaded,
    }
    print(json.dumps(figures))


def seconds(work: Callable[[], object]) -> dict[str, float]:
    """Return the wall and CPU seconds that some work takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def bytes_below(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def peak_bytes() -> int:
    """Return this process's largest resident memory so far, where Linux tells it."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def with_plain_linear_layers(model: Any, layers: Sequence[str]) -> list[str]:
    """Make each layer, which may be GPT-2's `Conv1D`, an `nn.Linear` without bias followed by its bias; return its new names.

    Some peers track `nn.Linear` only, and take a bias for one more input.
    """

    class Biased(torch.nn.Module):
        def __init__(self, layer: Any) -> None:
            super().__init__()
            weight = layer.weight if isinstance(layer, torch.nn.Linear) else layer.weight.detach().mT.contiguous()
            self.linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
            self.linear.weight = torch.nn.Parameter(weight)
            self.bias = layer.bias

        def forward(self, x: torch.Tensor) -> Any:
            return self.linear(x) + self.bias

    for name in layers:
        model.set_submodule(name, Biased(model.get_submodule(name)))
    return [f"{name}.linear" for name in layers]


def summed_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of a batch, summed over its tokens."""
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
