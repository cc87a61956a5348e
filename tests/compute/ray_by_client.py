"""A head of a Ray cluster with its server for clients, and work that is handed to it by ray://.

`python -m tests.compute.ray_by_client FOLDER` prints what became of each shard, as JSON.
"""

import json
import logging
import subprocess
import sys
import time
from pathlib import Path

from lorif_assets.compute.ray_engine import RayEngine
from lorif_assets.config.compute import ComputeSettings
from lorif_assets.errors import SettingsError
from tests.compute.ray_work import Doubling, Opened
from tests.conftest import free_port

SHARDS = ["a:1", "once:2", "absent:3", "b:4"]
HEAD = """
import sys
from ray.cluster_utils import Cluster
ports = {"ray_client_server_port": int(sys.argv[1]), "runtime_env_agent_port": int(sys.argv[2])}
head = {"num_cpus": 2, "include_dashboard": False, **ports}
cluster = Cluster(initialize_head=True, shutdown_at_exit=False, head_node_args=head)
print("started", flush=True)
sys.stdin.read()
cluster.shutdown()
"""


def engine(address: str) -> RayEngine:
    """The engine of a cluster whose server for clients may not be there yet."""
    found = RayEngine(ComputeSettings(engine="ray", address=address), 1)
    for _ in range(20):
        try:
            found.found()
        except SettingsError as error:
            print(error, file=sys.stderr)
            time.sleep(1)
        else:
            return found
    raise TimeoutError(f"there is no cluster at {address}")


def main(folder: Path) -> None:
    """Start a head, do the work, and stop it."""
    port = free_port()
    command = [sys.executable, "-c", HEAD, str(port), str(free_port())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as head:
        assert head.stdout is not None
        assert head.stdout.readline().strip() == "started"
        with engine(f"ray://127.0.0.1:{port}").workers(Opened(folder), logging.getLogger("client")) as workers:
            outcomes = dict(workers.map_shards(Doubling(), SHARDS, lambda stored: float(stored["numbers"])))
        import ray

        ray.shutdown()
        told = {shard: str(outcome.exception() or outcome.result()) for shard, outcome in outcomes.items()}
        print(json.dumps(told))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main(Path(sys.argv[1]))
