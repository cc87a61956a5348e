"""Devices and their leases: a step owns a device while it computes, also across processes of one machine."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from filelock import Timeout

from lorif_assets import machine_locks
from lorif_assets.errors import SettingsError
from lorif_assets.machine_locks import WAITS, MachineLock
from lorif_assets.progress import tell_wait

if TYPE_CHECKING:
    import torch

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class DeviceGroup:
    """The devices that a step owns: a checkpoint's weights lie on all of them, results on the first."""

    devices: "tuple[torch.device, ...]"

    @classmethod
    def of(cls, *names: str) -> "DeviceGroup":
        """Return the group of the devices of these names."""
        import torch

        return cls(tuple(torch.device(name) for name in names))

    @property
    def first(self) -> "torch.device":
        """Where batches, gradients, factors and scores are."""
        return self.devices[0]

    @property
    def hardware(self) -> str:
        """What a device of the group is: a GPU's name, or the threads that a CPU computes with."""
        import torch

        if self.first.type == "cuda":
            return torch.cuda.get_device_name(self.first)
        threads = torch.get_num_threads()
        return (
            f"a CPU with {threads} thread{'s' if threads > 1 else ''}" if self.first.type == "cpu" else str(self.first)
        )

    def __len__(self) -> int:
        return len(self.devices)

    def __str__(self) -> str:
        return " + ".join(str(device) for device in self.devices)


def _torch_name(name: str) -> str:
    """Return torch's name of a device: its ROCm build calls AMD's GPUs by CUDA's names."""
    kind, colon, number = name.partition(":")
    return f"cuda{colon}{number}" if kind in ("rocm", "hip") else name


@dataclass(frozen=True, kw_only=True)
class Devices:
    """The devices that steps may use, by torch's names; with none, every CUDA device, else the CPU.

    A checkpoint is spread over a group of `per_checkpoint` of them.
    """

    names: Sequence[str] = ()
    per_checkpoint: int = 1
    project: str = ""
    """Whose they are: projects wait for each other's accelerators, and not for the CPU, of which there is enough."""

    def available(self) -> list[str]:
        """Return the names of the devices, in order.

        Raises:
            SettingsError: a name is not a device's, is repeated, or is that of a CUDA, ROCm or Metal device that this machine
                lacks.
        """
        import torch

        found = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        names = [_torch_name(name) for name in self.names]
        for name in names:
            try:
                kind = torch.device(name).type
            except RuntimeError as error:
                raise SettingsError(
                    f'`devices.devices` names {name!r}, which is not a device; use names such as "cpu" or "cuda:0"'
                ) from error
            if kind == "cuda" and name not in found:
                raise SettingsError(
                    f"`devices.devices` names {name!r}, but this machine has {', '.join(found) or 'no CUDA device'}"
                )
            if kind == "mps" and not torch.backends.mps.is_available():
                raise SettingsError(
                    f"`devices.devices` names {name!r}, but this machine has no Metal device that torch can use; name another"
                )
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            raise SettingsError(f"`devices.devices` names {repeated[0]!r} more than once; name each device once")
        return names or found or ["cpu"]

    def groups(self) -> list[DeviceGroup]:
        """Return the devices in groups of `per_checkpoint`, in order; those too few for another group are left out.

        Raises:
            SettingsError: as `available`; or there is no whole group, or a group of several has a device that is not CUDA's.
        """
        names, size = self.available(), self.per_checkpoint
        others = [name for name in names if not name.startswith("cuda")]
        if size > 1 and others:
            raise SettingsError(
                f"`devices.per_checkpoint` is {size}, but a checkpoint can be spread over CUDA devices only, and {others[0]} "
                "is not one; set it to 1, or name CUDA devices in `devices.devices`"
            )
        if size > len(names):
            raise SettingsError(
                f"`devices.per_checkpoint` is {size}, more than there are devices ({', '.join(names)}); lower it, or name "
                "more in `devices.devices`"
            )
        return [DeviceGroup.of(*names[i : i + size]) for i in range(0, len(names) - size + 1, size)]

    @contextmanager
    def lease(self) -> Iterator[DeviceGroup]:
        """Wait for a group of devices that are all free, and own it inside the `with` block."""
        groups = self.groups()
        locks = {device: MachineLock(self._lock_name(device)) for group in groups for device in group.devices}
        notice = time.monotonic() + machine_locks.NOTICE_SECONDS
        while True:
            for group in groups:
                with ExitStack() as owned:
                    try:
                        for device in group.devices:
                            locks[device].acquire(_POLL_SECONDS / len(groups))
                            owned.callback(locks[device].release)
                    except Timeout:
                        continue
                    yield group
                    return
            if time.monotonic() >= notice:
                # Also a sign of life: a run without one is taken for killed.
                waited_for = " or ".join(str(group) for group in groups)
                holders = ", ".join(sorted({lock.holder for lock in locks.values()}))
                words = f"waiting for {waited_for}, which other processes own ({holders})"
                WAITS.warning(words)
                tell_wait(words)
                notice = time.monotonic() + machine_locks.NOTICE_SECONDS

    def _lock_name(self, device: "torch.device") -> str:
        name = f"device-{str(device).replace(':', '-')}"
        if device.type != "cpu" or not self.project:
            return name
        return f"{name}-{blake2b(self.project.encode(), digest_size=8).hexdigest()}"
