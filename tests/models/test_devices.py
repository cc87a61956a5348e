"""Devices: which are used, and that one process at a time owns one."""

import multiprocessing
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from lorif_assets.errors import SettingsError
from lorif_assets.models.devices import Devices


@pytest.fixture(autouse=True)
def _locks_of_this_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases hold for a machine: other tests and runs on it are to be left alone."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


def with_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_without_names_every_cuda_device_is_used_else_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, 2)
    assert Devices().available() == ["cuda:0", "cuda:1"]
    with_gpus(monkeypatch, 0)
    assert Devices().available() == ["cpu"]


def test_names_are_used_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, 4)
    assert Devices(names=["cuda:2", "cpu"]).available() == ["cuda:2", "cpu"]


def test_a_device_that_is_named_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, 2)
    with pytest.raises(SettingsError, match="names 'cuda:0' more than once"):
        Devices(names=["cuda:0", "cuda:1", "cuda:0"], per_checkpoint=3).groups()


@pytest.mark.parametrize(
    ("name", "gpus", "message"),
    [
        ("cuda:7", 2, "names 'cuda:7', but this machine has cuda:0, cuda:1"),
        ("cuda:0", 0, "names 'cuda:0', but this machine has no CUDA device"),
        ("gpu0", 2, "names 'gpu0', which is not a device; use names such as"),
    ],
)
def test_an_unknown_device_is_named_with_its_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, gpus: int, message: str
) -> None:
    with_gpus(monkeypatch, gpus)
    with pytest.raises(SettingsError, match=f"`devices.devices` {message}"):
        Devices(names=["cpu", name]).available()


@pytest.mark.parametrize(
    ("gpus", "per_checkpoint", "groups"),
    [
        (2, 1, ["cuda:0", "cuda:1"]),
        (4, 2, ["cuda:0 + cuda:1", "cuda:2 + cuda:3"]),
        (5, 2, ["cuda:0 + cuda:1", "cuda:2 + cuda:3"]),
        (3, 3, ["cuda:0 + cuda:1 + cuda:2"]),
        (0, 1, ["cpu"]),
    ],
)
def test_devices_are_leased_in_groups_of_those_that_follow_each_other(
    monkeypatch: pytest.MonkeyPatch, gpus: int, per_checkpoint: int, groups: list[str]
) -> None:
    with_gpus(monkeypatch, gpus)
    assert [str(group) for group in Devices(per_checkpoint=per_checkpoint).groups()] == groups


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cuda:0"], r"is 2, more than there are devices \(cuda:0\); lower it, or name more"),
        (["cpu"], "is 2, but a checkpoint can be spread over CUDA devices only, and cpu is not one"),
        (["cuda:0", "cpu"], "is 2, but a checkpoint can be spread over CUDA devices only, and cpu is not one"),
    ],
)
def test_a_group_that_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch, names: list[str], message: str) -> None:
    with_gpus(monkeypatch, 1)
    with (
        pytest.raises(SettingsError, match=f"`devices.per_checkpoint` {message}"),
        Devices(names=names, per_checkpoint=2).lease(),
    ):
        pass


def test_a_group_is_owned_as_a_whole_and_given_back_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, 4)
    monkeypatch.setattr("lorif_assets.models.devices._POLL_SECONDS", 0.1)
    one, pairs = Devices(), Devices(per_checkpoint=2)
    with Devices(names=["cuda:1"]).lease():
        # The first pair's first device is free, but not the pair.
        with pairs.lease() as pair:
            assert str(pair) == "cuda:2 + cuda:3"
            assert pair.first == torch.device("cuda:2")
            with one.lease() as single:
                assert str(single) == "cuda:0"
        with Devices(names=["cuda:3"]).lease() as single:
            assert str(single) == "cuda:3"
    with pairs.lease() as pair:
        assert str(pair) == "cuda:0 + cuda:1"


def _hold(device: str, events: Any) -> None:
    """Own the device until told otherwise; then say for how long."""
    with Devices(names=[device]).lease():
        events["owned"].set()
        events["release"].wait(60)
        events["released_at"].value = time.time()


def test_a_process_waits_for_the_device_that_another_owns_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("lorif_assets.machine_locks.NOTICE_SECONDS", 0.0)
    monkeypatch.setattr("lorif_assets.models.devices._POLL_SECONDS", 0.1)
    context = multiprocessing.get_context("spawn")
    events = {"owned": context.Event(), "release": context.Event(), "released_at": context.Value("d", 0.0)}
    other = context.Process(target=_hold, args=("cpu", events))
    other.start()
    try:
        assert events["owned"].wait(60)
        with Devices(names=["meta", "cpu"]).lease() as free:
            assert str(free) == "meta", "a free device is taken before one that is owned"
        assert not caplog.records
        started = time.time()
        threading.Timer(0.3, events["release"].set).start()
        with Devices(names=["cpu"]).lease() as group:
            acquired = time.time()
        assert group.first.type == "cpu"
        assert f"waiting for cpu, which other processes own (process {other.pid})" in caplog.text
        assert acquired >= events["released_at"].value > started
    finally:
        events["release"].set()
        other.join(60)


def test_an_error_gives_the_device_back() -> None:
    devices = Devices(names=["cpu"])
    with pytest.raises(ZeroDivisionError), devices.lease():
        raise ZeroDivisionError
    with devices.lease() as group:
        assert group.first.type == "cpu"


def test_locks_are_closed_to_other_users_of_the_machine(tmp_path: Path) -> None:
    with Devices(names=["cpu"]).lease():
        (folder,) = tmp_path.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert all(file.stat().st_mode & 0o022 == 0 for file in folder.iterdir())


def test_projects_wait_for_each_others_accelerators_and_not_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, 1)
    monkeypatch.setattr("lorif_assets.models.devices._POLL_SECONDS", 0.1)
    one, other = (Devices(names=["cpu"], project=project) for project in ("/one/lake", "/other/lake"))
    with one.lease(), other.lease() as free:
        assert free.first.type == "cpu"
    both = [Devices(names=["cuda:0", "meta"], project=project) for project in ("/one/lake", "/other/lake")]
    with both[0].lease() as first, both[1].lease() as second:
        assert (first.first.type, second.first.type) == ("cuda", "meta")
    again = Devices(names=["cpu", "meta"], project="/one/lake")
    with one.lease(), again.lease() as waited:
        assert waited.first.type == "meta", "two steps of one project share the CPU's memory"


def test_amds_devices_may_be_called_by_rocms_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert Devices(names=("rocm:0", "hip:1")).available() == ["cuda:0", "cuda:1"]
    with pytest.raises(SettingsError, match="'cuda:0' more than once"):
        Devices(names=("rocm:0", "cuda:0")).available()
    with pytest.raises(SettingsError, match="'cuda:2', but this machine has cuda:0, cuda:1"):
        Devices(names=("rocm:2",)).available()


def test_metal_is_used_where_it_is_named_and_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert Devices(names=("mps",)).available() == ["mps"]
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(SettingsError, match="no Metal device"):
        Devices(names=("mps",)).available()
