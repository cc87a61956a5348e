"""Ten thousand partitions of gradient factors in Dagster's UI: what its pages ask for, and where there is a browser, the pages.

The project of `dagster_project`, and Dagster's web server as `lorif ui` starts it. What the pages ask for is asked by GraphQL
over HTTP, in queries that reach the same resolvers; `first` is the first time after the server's start. The states
of partitions are counted then, as the sensor `discovery` does; what the first page takes where they are not is one more row.
Pages are opened in headless Chromium by playwright where it is installed, and timed from the address, or the last click, until
what is named shows.
"""

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from copied_shards import shard_name
from dagster_project import CHECKPOINT, project_in_dagster
from dagster_server import WebServer, web_server
from measurements import Seconds, markdown_table, report, setting_and_output

from lorif_assets.assets.graph import ASSETS, EVALUATION
from lorif_assets.automation.registration import MOST_PARTITIONS

FACTORS = {"path": ["gradient_factors"]}
ALL = [{"path": list(asset.key.path)} for asset in (*ASSETS, *EVALUATION)]
STATE = """query ($keys: [AssetKeyInput!]!) {
  assetNodes(assetKeys: $keys, loadMaterializations: true) {
    assetKey { path }
    partitionStats { numMaterialized numMaterializing numPartitions numFailed }
    assetMaterializations(limit: 1) { timestamp runId }
    assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization { status } } } }
  }
  assetsLatestInfo(assetKeys: $keys) { unstartedRunIds inProgressRunIds latestRun { id status } }
}"""
STALENESS = "query ($keys: [AssetKeyInput!]!) { assetNodes(assetKeys: $keys) { staleStatus staleCauses { reason } } }"
PARTITIONS = """query ($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) {
    ... on AssetNode {
      partitionKeysByDimension { name partitionKeys }
      assetPartitionStatuses {
        ... on MultiPartitionStatuses {
          ranges {
            primaryDimStartKey primaryDimEndKey
            secondaryDim {
              ... on DefaultPartitionStatuses { materializedPartitions materializingPartitions failedPartitions }
            }
          }
        }
      }
    }
  }
}"""
PARTITION = """query ($key: AssetKeyInput!, $partitions: [String!]) {
  assetNodeOrError(assetKey: $key) {
    ... on AssetNode { assetMaterializations(partitions: $partitions, limit: 1) { timestamp metadataEntries { label } } }
  }
}"""
LAUNCHERS = """query ($keys: [AssetKeyInput!]!) {
  assetNodes(assetKeys: $keys) { targetingInstigators { ... on Sensor { name sensorState { status } } } }
}"""
STATES = "state of all assets"
QUERIES = {
    STATES: (STATE, {"keys": ALL}),
    "staleness of all assets": (STALENESS, {"keys": ALL}),
    "sensors of all assets": (LAUNCHERS, {"keys": ALL}),
    "state of the factors": (STATE, {"keys": [FACTORS]}),
    "all partitions of the factors": (PARTITIONS, {"key": FACTORS}),
    "one partition of the factors": (PARTITION, {"key": FACTORS, "partitions": [f"{CHECKPOINT}|{shard_name(0)}"]}),
}


@dataclass(frozen=True)
class Setting:
    """Size of the project, and how often everything is asked again."""

    shards: int = 10_000
    checkpoints: int = 1
    repeats: int = 3

    @property
    def partitions(self) -> int:
        """Of the factors, with as many checkpoints as Dagster keeps."""
        return self.shards * min(self.checkpoints, max(1, MOST_PARTITIONS // self.shards))


def timed_on(server: WebServer, work: Callable[[], object]) -> Seconds:
    """Return the time of the clock that some work takes, and the server's processor time."""
    before = server.now()
    work()
    after = server.now()
    return Seconds(after.wall - before.wall, after.cpu - before.cpu)


def timed_in_turn(server: WebServer, works: dict[str, Callable[[], object]], repeats: int) -> list[dict[str, Any]]:
    """Do all works in turn, once and then `repeats` times, and return the first times and the others' medians."""
    rounds = [{name: timed_on(server, work) for name, work in works.items()} for _ in range(1 + repeats)]
    return [
        {
            "what": name,
            "first_seconds": rounds[0][name].wall,
            "first_cpu_seconds": rounds[0][name].cpu,
            "seconds": median(taken[name].wall for taken in rounds[1:]),
            "cpu_seconds": median(taken[name].cpu for taken in rounds[1:]),
        }
        for name in works
    ]


def measure_queries(server: WebServer, setting: Setting) -> list[dict[str, Any]]:
    """Time what the pages ask for."""
    sizes: dict[str, int] = {}

    def work(name: str) -> Callable[[], object]:
        def ask() -> None:
            sizes[name] = len(server.ask(*QUERIES[name]))

        return ask

    rows = timed_in_turn(server, {name: work(name) for name in QUERIES}, setting.repeats)
    refuse_others(json.loads(server.ask(STATE, {"keys": [FACTORS]})), setting.partitions)
    return [{**row, "kind": "query", "kilobytes": f"{sizes[row['what']] / 1_000:.0f}"} for row in rows]


def refuse_others(answer: dict[str, Any], partitions: int) -> None:
    """Refuse an answer that does not count all factors as materialized.

    Raises:
        ValueError: the answer counts others.
    """
    (node,) = answer["data"]["assetNodes"]
    found = node["partitionStats"]
    if (found["numMaterialized"], found["numPartitions"]) != (partitions, partitions):
        raise ValueError(f"expected {partitions} materialized partitions of gradient_factors, found {found}")


def measure_pages(server: WebServer, setting: Setting) -> list[dict[str, Any]]:
    """Time the pages, or say why they are not."""
    if importlib.util.find_spec("playwright") is None:
        print("pages are not measured: playwright is not installed")
        return []
    from dagster_pages import opened_pages

    try:
        with opened_pages(server.address, setting.shards, setting.partitions) as pages:
            rows = timed_in_turn(server, pages, setting.repeats)
    except FileNotFoundError as missing:
        print(f"pages are not measured: {missing}")
        return []
    return [{**row, "kind": "page", "kilobytes": ""} for row in rows]


def measure(setting: Setting) -> list[dict[str, Any]]:
    """Time queries and pages, each on a server that was just started."""
    with project_in_dagster(setting.shards, setting.checkpoints) as (root, _, _):
        with web_server(root) as server:
            work = {f"{STATES}, not counted before": lambda: server.ask(*QUERIES[STATES])}
            (uncounted,) = timed_in_turn(server, work, setting.repeats)
        with web_server(root) as server:
            queries = [{**uncounted, "kind": "query", "kilobytes": ""}, *measure_queries(server, setting)]
        with web_server(root) as server:
            return queries + measure_pages(server, setting)


COLUMNS = {
    "": "{kind}: {what}",
    "first, s": "{first_seconds:.2f}",
    "server, CPU s": "{first_cpu_seconds:.2f}",
    "again, s": "{seconds:.2f}",
    "server again, CPU s": "{cpu_seconds:.2f}",
    "KB": "{kilobytes}",
}


def main() -> None:
    """Run the benchmark, print the table, and write JSON."""
    setting, output = setting_and_output(Setting, __doc__, "dagster_ui")
    output = output.absolute()
    rows = measure(setting)
    report(output, setting, rows, markdown_table(COLUMNS, rows))


if __name__ == "__main__":
    main()
