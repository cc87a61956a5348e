"""This project beside bergson, dattri's LoGRA, dattri-llm and kronfluence: the same model, data and machine, in one run.

Each peer gets an environment of its own from the package index, in `benchmarks/.peers`, and runs in processes of its own,
one after the other, again in every round (`peer_*.py`; each program says which settings it uses). A peer that cannot be
installed, or does not run on this machine, is listed with the reason.

The model is of GPT-2's shape with random weights, its LM head untied; examples are random tokens of one length, so that no
batch has padding. All project to about as many numbers: by a factor per side here, to p x p numbers per layer in bergson,
dattri and dattri-llm. Timed are building the store, without loading the model, and scoring the queries: their gradients, and
products with everything stored. Nobody applies a preconditioner, but kronfluence, which has nothing but one: its EK-FAC factors
are what it builds, and it goes over the data again for its scores. `agrees` is the correlation of a query's scores with exact
dot products of whole gradients, the mean over queries; of kronfluence it says nothing, since its scores are other ones.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from measurements import markdown_table, report, setting_and_output
from peer_lorif import RECIPES, attributed_model, dense_gradients
from peer_workload import Workload

from lorif_assets.config.recipe import Recipe
from lorif_assets.mathematics.gradients.projection import Projection

LOG = logging.getLogger("benchmark")
HERE = Path(__file__).parent
TORCH, TORCH_INDEX = "torch==2.13.0+cpu", "https://download.pytorch.org/whl/cpu"
REQUIREMENTS = {
    "bergson": ("bergson==2.5.1", "transformers==5.23.0"),
    "dattri": ("dattri==0.3.0", "transformers==5.23.0"),
    "dattri-llm": ("dattri-llm==0.1.0", "dattri==0.3.0", "transformers==5.23.0", "accelerate==1.15.0"),
    "kronfluence": ("kronfluence==1.0.1", "transformers==5.23.0"),
}
# Not used for text, and not at hand everywhere as built for the CPU: a build for CUDA breaks the import of transformers.
UNUSED = ("torchvision", "torchaudio")
NO_CORRELATION = ("kronfluence",)


@dataclass(frozen=True)
class Setting:
    """Size of the model and of the data."""

    blocks: int = 2
    width: int = 256
    heads: int = 4
    vocabulary: int = 4_096
    tokens: int = 256
    examples: int = 64
    queries: int = 8
    batch_rows: int = 8
    projection_factor: int = 4
    repeats: int = 3
    peers: str = " ".join(REQUIREMENTS)
    environments: str = ".peers"


def environment(name: str, folder: Path) -> Path:
    """Return the Python of a peer's environment, made where it is not there.

    Raises:
        subprocess.CalledProcessError: pip failed.
    """
    python, wanted = folder / name / "bin/python", "\n".join((TORCH, *REQUIREMENTS[name]))
    marker = folder / name / "requirements"
    if marker.is_file() and marker.read_text() == wanted:
        return python
    LOG.info("installing %s", wanted.split())
    venv.create(folder / name, clear=True, with_pip=True)
    # Torch by itself: where its index is out of reach but pip has the wheel otherwise, each package would wait for it.
    for command in (
        ["install", "--retries", "0", "--extra-index-url", TORCH_INDEX, TORCH],
        ["install", *wanted.split()],
        ["uninstall", "--yes", *UNUSED],
    ):
        pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", *command]
        subprocess.run(pip, check=True, capture_output=True, text=True)
    marker.write_text(wanted)
    return python


def write_workload(setting: Setting, folder: Path) -> Workload:
    """Write the model, the examples and the queries."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=setting.blocks,
        n_embd=setting.width,
        n_head=setting.heads,
        vocab_size=setting.vocabulary,
        bos_token_id=0,
        eos_token_id=0,
        n_positions=setting.tokens,
        tie_word_embeddings=False,
    )
    model = GPT2LMHeadModel(config)
    model.save_pretrained(folder / "model")
    rng = np.random.default_rng(0)
    for name, rows in (("examples", setting.examples), ("queries", setting.queries)):
        np.save(folder / f"{name}.npy", rng.integers(0, setting.vocabulary, (rows, setting.tokens)))
    d, projection = setting.width, Projection(factor=setting.projection_factor, seed=0)
    widths = {"attn.c_attn": (d, 3 * d), "attn.c_proj": (d, d), "mlp.c_fc": (d, 4 * d), "mlp.c_proj": (4 * d, d)}
    numbers = [projection.width(i) * projection.width(o) for i, o in widths.values()]
    workload = {
        "layers": [f"transformer.h.{block}.{layer}" for block in range(setting.blocks) for layer in widths],
        "projection_factor": setting.projection_factor,
        "projection_width": round((sum(numbers) / len(numbers)) ** 0.5),
        "batch_rows": setting.batch_rows,
    }
    (folder / "workload.json").write_text(json.dumps(workload))
    return Workload.read(folder)


def exact_scores(workload: Workload, setting: Setting) -> torch.Tensor:
    """Return the dot products [Q, N] of whole gradients of the layers."""
    whole, tokens = attributed_model(workload, Recipe(projection_factor=1)), setting.batch_rows * setting.tokens
    queries = dense_gradients(whole, workload.queries, tokens)
    scores = []
    for start in range(0, setting.examples, setting.batch_rows):
        rows = dense_gradients(whole, workload.examples[start : start + setting.batch_rows], tokens)
        scores.append(sum(queries[layer] @ rows[layer].mT for layer in queries))
    return torch.cat(scores, dim=1)  # type: ignore[arg-type]


def correlation(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the mean over queries of the correlation of two sets of scores."""
    pairs = zip(found, exact, strict=True)
    return float(torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs]).mean())


def run_peer(python: Path, program: str, name: str, folder: Path) -> dict[str, Any]:
    """Run a driver, and return its figures, or the reason why there are none."""
    one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    # A peer sees nothing of this project; no driver may use a GPU that others do not.
    passed = {key: value for key, value in os.environ.items() if key != "PYTHONPATH" or program == "peer_lorif.py"}
    command = [str(python), "-W", "ignore", str(HERE / program), str(folder), name]
    env = {**passed, **one_thread, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"reason": last_line(done.stderr)}
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def last_line(text: str) -> str:
    """Return the last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")[:300]


def measure(setting: Setting, folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Run all in turn, round after round, and return their rows, and those of peers that did not run."""
    workload = write_workload(setting, folder)
    exact = exact_scores(workload, setting)
    programs = {name: (Path(sys.executable), "peer_lorif.py") for name in RECIPES}
    absent = []
    for name in setting.peers.split():
        try:
            programs[name] = (environment(name, HERE / setting.environments), f"peer_{name.replace('-', '_')}.py")
        except subprocess.CalledProcessError as error:
            absent.append({"peer": name, "reason": f"pip: {last_line(error.stderr)}"})
    taken: dict[str, list[dict[str, Any]]] = {name: [] for name in programs}
    for _ in range(setting.repeats):
        for name, (python, program) in programs.items():
            if taken[name] and "reason" in taken[name][-1]:
                continue
            taken[name].append(run_peer(python, program, name, folder))
            LOG.info("%s: %s", name, taken[name][-1])
    rows = []
    for name, runs in taken.items():
        if "reason" in runs[-1]:
            absent.append({"peer": name, "reason": runs[-1]["reason"]})
            continue
        scores = torch.from_numpy(np.load(folder / f"{name}.npy")).double()
        seconds = {
            f"{phase}_{clock}": median(run[phase][clock] for run in runs)
            for phase in ("build", "score")
            for clock in ("cpu", "wall")
        }
        rows.append(
            {
                "peer": name,
                "version": runs[-1]["version"],
                "setting": runs[-1]["setting"],
                **seconds,
                "tokens_per_cpu_second": setting.examples * setting.tokens / seconds["build_cpu"],
                "stored_bytes_per_example": runs[-1]["stored_bytes"] / setting.examples,
                "stored_bytes": runs[-1]["stored_bytes"],
                "peak_bytes": median(run["peak_bytes"] for run in runs),
                "agrees": "" if name in NO_CORRELATION else f"{correlation(scores, exact.double()):.3f}",
            }
        )
    return rows, absent


COLUMNS = {
    "": "{peer} {version}",
    "built, CPU s": "{build_cpu:.2f}",
    "tokens per CPU s": "{tokens_per_cpu_second:,.0f}",
    "bytes / example": "{stored_bytes_per_example:,.0f}",
    "queries scored, CPU s": "{score_cpu:.2f}",
    "agrees": "{agrees}",
    "peak memory, MB": "{peak_mb:,.0f}",
    "setting": "{setting}",
}
ABSENT_COLUMNS = {"did not run": "{peer}", "reason": "{reason}"}


def main() -> None:
    """Run the benchmark, print the tables, and write JSON."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    setting, output = setting_and_output(Setting, __doc__, "peers")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows, absent = measure(setting, Path(folder))
    shown = [{**row, "peak_mb": row["peak_bytes"] / 1e6} for row in rows]
    tables = [markdown_table(COLUMNS, shown)] + ([markdown_table(ABSENT_COLUMNS, absent)] if absent else [])
    report(output, setting, {"ran": rows, "did_not_run": absent}, "\n\n".join(tables))


if __name__ == "__main__":
    main()
