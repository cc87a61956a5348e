"""Two processes that bring one lake up to date: the second waits, says so, and does what the first has left."""

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

import dagster as dg
import pytest
from sqlalchemy.exc import IntegrityError

from lorif_assets.assets.graph import ASSETS
from lorif_assets.assets.partitions import add_partitions
from lorif_assets.automation.materialization import bring_up_to_date
from lorif_assets.automation.sole_process import sole_process
from lorif_assets.errors import SettingsError
from lorif_assets.lake.lake import Lake
from tests.conftest import SHARDS, TinyProject

HOLDER = """
import sys
from lorif_assets.automation.sole_process import sole_process
from lorif_assets.lake.lake import Lake
with sole_process(Lake(sys.argv[1]), print):
    print("at work", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_waits_and_computes_nothing_that_the_first_has_done(
    private_project: TinyProject, tmp_path: Path
) -> None:
    private_project.edit_shard(1, 4, "an error closes the file")
    said: Queue[str] = Queue()
    with ThreadPoolExecutor(1) as second, dg.DagsterInstance.local_temp(str(tmp_path)) as other:
        with sole_process(private_project.lake, said.put):
            waiting = second.submit(lambda: list(bring_up_to_date(other, ASSETS, private_project.opened, said.put)))
            message = said.get(timeout=60)
            # What the first does, under the lock.
            private_project.run("training_examples", SHARDS[1])
        done = {update.asset: set(update.partitions) for update in waiting.result(timeout=600) if update.partitions}
    assert message.startswith(f"waiting for process {os.getpid()} on {socket.gethostname()} since ")
    assert f"brings the lake {private_project.lake.root} up to date" in message
    assert "training_examples" not in done
    assert "gradient_factors" in done


def test_a_process_that_is_killed_keeps_nobody_waiting(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, lake.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "at work\n"
    said: list[str] = []

    def kill(message: str) -> None:
        said.append(message)
        process.kill()

    with sole_process(lake, kill):
        pass
    process.wait()
    assert f"process {process.pid} on" in said[0]


def test_lakes_do_not_wait_for_one_another(tmp_path: Path) -> None:
    said: list[str] = []
    with (
        sole_process(Lake(str(tmp_path / "one")), said.append),
        sole_process(Lake(str(tmp_path / "two")), said.append),
        sole_process(Lake("s3://bucket/one"), said.append),
        sole_process(Lake("s3://bucket/two"), said.append),
    ):
        assert said == []


def test_a_lake_that_cannot_be_written_to_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("no folder")
    with pytest.raises(SettingsError, match="cannot be written to"), sole_process(Lake(str(tmp_path / "lake")), print):
        pass


def test_partitions_that_another_process_adds_at_the_same_moment_are_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        add = instance.add_dynamic_partitions
        collisions = iter([IntegrityError("INSERT", None, Exception("UNIQUE constraint failed"))])

        def collide(name: str, keys: list[str]) -> None:
            for error in collisions:
                add(name, keys[:1])
                raise error
            add(name, keys)

        monkeypatch.setattr(instance, "add_dynamic_partitions", collide)
        add_partitions(instance, "shards", ["a", "b"])
        assert set(instance.get_dynamic_partitions("shards")) == {"a", "b"}
