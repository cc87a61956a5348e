"""Free memory of devices and of the machine."""

from pathlib import Path

import psutil

from lorif_assets.models import device_map
from lorif_assets.models.devices import DeviceGroup

_CONTROL_GROUP = Path("/sys/fs/cgroup")


def free_memory(devices: DeviceGroup) -> int:
    """Return the free bytes of a group of devices together; of anything but CUDA devices, the machine's."""
    if devices.first.type == "cuda":
        return sum(device_map.free_bytes(device) for device in devices.devices)
    return host_memory()


def host_memory(control_group: Path = _CONTROL_GROUP) -> int:
    """Return the bytes that a process of this machine, or of this container, can still have."""
    free = int(psutil.virtual_memory().available)
    limit, used, files = (control_group / name for name in ("memory.max", "memory.current", "memory.stat"))
    if not limit.is_file() or not (allowed := limit.read_text().strip()).isdecimal():
        return free
    # What files take in memory goes when it is needed.
    cached = sum(int(line.split()[1]) for line in files.read_text().splitlines() if line.startswith("inactive_file "))
    return min(free, max(0, int(allowed) - int(used.read_text()) + cached))
