"""Each benchmark runs, at a size that measures nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SMALLEST = {
    "factor_throughput": "--blocks 1 --width 16 --heads 2 --vocabulary 32 --tokens 16 --examples 4 --repeats 1 "
    "--bytes-per-example 400",
    "bases_fit": "--blocks 1 --width 16 --heads 2 --kv-heads 1 --vocabulary 32 --tokens 16 --examples 6 --repeats 1",
    "experts": "--blocks 1 --width 16 --heads 2 --experts 4 --routed 2 --expert-width 8 --vocabulary 32 --tokens 8 "
    "--examples 2 --repeats 1",
    "chat_tokens": "--tokens 500 --repeats 1",
    "checksum_cost": "--examples 64 --shards 2 --width 16 --repeats 2",
    "scan_rate": "--examples 64 --shards 2 --width 16 --repeats 1",
    "gpu_table": "--device cpu --smallest",
    "matrix_products": "--gigaflops 0.001 --repeats 1",
    "dense_scan": "--examples 128 --width 8 --repeats 1",
    "cold_scan": "--mebibytes 1 --width 16 --repeats 1",
    "peak_memory": "--factor-examples 4 --curvature-examples 100 --score-examples 40 --queries 2 --times 2",
    "update_against_rebuild": "--examples 400 --shards 100 --d1 8 --d2 8 --r 4 --repeats 1",
    "trainer_callback": "--blocks 1 --width 8 --tokens 8 --batch 1 --steps 2 --checkpoints 2 --examples 40 --repeats 1",
    "dagster_scale": "--shards 20 --checkpoints 3 --repeats 1",
    "dagster_ui": "--shards 20 --checkpoints 3 --repeats 1",
    "bytes_on_disk": "--blocks 1 --width 64 --examples 64",
    "token_scores": "--blocks 1 --width 16 --examples 2 --tokens 8 --query-tokens 4 --repeats 1",
    "ray_workers": "--shards 2 --rows 2 --tokens 16 --empty-shards 10 --repeats 1",
    "bookkeeping": "--examples 400 --shards 20",
    "scale": "--examples 400 --shards 8 --width 16 --examples-in-shards 100 --most-shards 10",
}

WITHOUT_TABLE = {"gpu_table"}
# Found by every process that Python starts with this folder in its path.
BARE_MACHINE = """
import sys
from importlib.machinery import PathFinder

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        missing = {"polars", "deltalake", "dagster", "llvmlite", "mlflow", "ray"}
        return None if name.partition(".")[0] in missing else PathFinder.find_spec(name, path, target)

sys.meta_path[:] = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_a_benchmark_prints_a_table_and_writes_its_figures(name: str, tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *SMALLEST[name].split(), "--output", str(output)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2_000:]
    assert "| ---" in ran.stdout or name in WITHOUT_TABLE
    assert json.loads(output.read_text())["results"]


@pytest.mark.slow
def test_the_figures_of_an_accelerator_need_no_library_for_tables(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BARE_MACHINE)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(BENCHMARKS.parent), str(tmp_path)])}
    is_bare = subprocess.run([sys.executable, "-c", "import deltalake"], env=env, capture_output=True, check=False)
    assert is_bare.returncode, "expected a Python without Delta Lake's library"
    command = [sys.executable, str(BENCHMARKS / "gpu_table.py"), *SMALLEST["gpu_table"].split()]
    ran = subprocess.run(
        [*command, "--output", str(tmp_path / "figures.json")], env=env, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2_000:]
    rows = json.loads((tmp_path / "figures.json").read_text())["results"]
    assert {row["name"]: row.get("failed") for row in rows} == {row["name"]: None for row in rows}
    assert {row["benchmark"] for row in rows} == {"factor_throughput", "scan_rate"}
