"""Free memory: the machine's, or what a container still may have."""

from pathlib import Path

import psutil
import pytest

from lorif_assets.models.free_memory import host_memory

GIB = 2**30


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory:
        available = 16 * GIB

    monkeypatch.setattr(psutil, "virtual_memory", Memory)


def control_group(folder: Path, limit: str) -> Path:
    for name, text in (
        ("memory.max", limit),
        ("memory.current", str(3 * GIB)),
        ("memory.stat", f"anon 1\ninactive_file {GIB}\n"),
    ):
        (folder / name).write_text(text + "\n")
    return folder


@pytest.mark.usefixtures("machine")
def test_without_a_limit_it_is_the_machines(tmp_path: Path) -> None:
    assert host_memory(tmp_path / "none") == 16 * GIB
    assert host_memory(control_group(tmp_path, "max")) == 16 * GIB


@pytest.mark.usefixtures("machine")
def test_a_containers_limit_counts_less_what_it_uses_but_not_the_files_it_can_drop(tmp_path: Path) -> None:
    assert host_memory(control_group(tmp_path, str(8 * GIB))) == 6 * GIB
    assert host_memory(control_group(tmp_path, str(100 * GIB))) == 16 * GIB
    assert host_memory(control_group(tmp_path, str(GIB))) == 0
