"""The engine `ray` by ray://, as from a pod that is no part of the cluster."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compute.ray_by_client import SHARDS

pytest.importorskip("ray", reason="needs ray")
pytest.importorskip("grpc", reason="needs ray[client]")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_a_client_of_a_cluster_has_results_errors_and_the_workers_lines_and_replaces_what_is_lost(
    tmp_path: Path,
) -> None:
    variables = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    found = subprocess.run(
        [sys.executable, "-m", "tests.compute.ray_by_client", str(tmp_path)],
        env={**os.environ, **variables, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not found.returncode, found.stderr[-3_000:]
    told = json.loads(found.stdout.splitlines()[-1])
    assert told.keys() == set(SHARDS)
    assert [told[shard] for shard in ("a:1", "once:2", "b:4")] == ["2.0", "4.0", "8.0"]
    assert re.match(r"the shard is not there \(absent:3, by worker \d+ \(process", told["absent:3"])
    assert "once:2 is handed out again" in found.stderr
    assert re.search(r"worker \d+ \(process \d+ on the node [\d.]+\): b computed", found.stderr)
    assert "4 of 4 shards done" in found.stderr
