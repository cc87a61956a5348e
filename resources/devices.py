"""Devices and their leases: a step owns a device while it computes, also across processes of one machine."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dagster import ConfigurableResource, get_dagster_logger
from filelock import Timeout
from pydantic import Field

from lorif_assets.errors import SettingsError
from resources.machine_locks import machine_lock

if TYPE_CHECKING:
    import torch

_POLL_SECONDS = 0.5
_NOTICE_SECONDS = 10.0


class Devices(ConfigurableResource):  # type: ignore[type-arg]
    """The devices that steps may use."""

    names: list[str] = Field(
        default_factory=list, description="Torch device names; empty: every CUDA device, else CPU."
    )

    def available(self) -> list[str]:
        """Return the names of the devices, in order.

        Raises:
            SettingsError: a name is none of a device, or of a CUDA device that is not on this machine.
        """
        import torch

        found = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        for name in self.names:
            try:
                kind = torch.device(name).type
            except RuntimeError as error:
                raise SettingsError(
                    f'`devices.devices` names {name!r}, which is no device; use names such as "cpu" or "cuda:0"'
                ) from error
            if kind == "cuda" and name not in found:
                raise SettingsError(
                    f"`devices.devices` names {name!r}, but this machine has {', '.join(found) or 'no CUDA device'}"
                )
        return self.names or found or ["cpu"]

    @contextmanager
    def lease(self) -> "Iterator[torch.device]":
        """Wait for a free device and own it inside the `with` block."""
        import torch

        locks = {name: machine_lock(f"device-{name.replace(':', '-')}") for name in self.available()}
        notice = time.monotonic() + _NOTICE_SECONDS
        while True:
            for name, lock in locks.items():
                try:
                    lock.acquire(timeout=_POLL_SECONDS / len(locks))
                except Timeout:
                    continue
                try:
                    yield torch.device(name)
                finally:
                    lock.release()
                return
            if time.monotonic() >= notice:
                # Also a sign of life: a run without any is taken for killed.
                get_dagster_logger().warning(f"waiting for {' or '.join(locks)}, which other processes own")
                notice = time.monotonic() + _NOTICE_SECONDS
