"""Placeholders for packages that a machine lacks, so that what needs none of them runs there.

A machine that is lent for its accelerator seldom has Delta Lake's libraries. Modules import them for tables, while products,
factors and scores are tensors alone. Whatever asks a placeholder for data fails, as it cannot be counted, tested or turned
into a number or text.
"""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PACKAGES = ("polars", "deltalake")
"""Those that are imported with modules that need them for tables alone; others are imported where they are called."""


class Placeholder:
    """Anything of a missing package: what modules say of it while they are imported makes another placeholder."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> "Placeholder":
        if name.startswith("__"):
            raise AttributeError(name)
        return Placeholder(f"{self._name}.{name}")

    def __call__(self, *_arguments: object, **_named: object) -> "Placeholder":
        return self

    def __getitem__(self, _item: object) -> "Placeholder":
        return self

    def __or__(self, _other: object) -> "Placeholder":
        return self

    def __ror__(self, _other: object) -> "Placeholder":
        return self

    def __mro_entries__(self, _bases: tuple[object, ...]) -> tuple[type, ...]:
        # An error of a missing package can be a base of one of ours.
        return (Exception,) if self._name.endswith("Error") else ()

    def __bool__(self) -> bool:
        raise ModuleNotFoundError(f"{self._name} was asked for, and its package is not installed on this machine")

    __len__ = __int__ = __float__ = __iter__ = __str__ = __bool__


class _Module(ModuleType):
    __path__: Sequence[str] = ()

    def __getattr__(self, name: str) -> Placeholder:
        if name.startswith("__"):
            raise AttributeError(name)
        return Placeholder(f"{self.__name__}.{name}")


class _Finder(MetaPathFinder, Loader):
    def __init__(self, packages: frozenset[str]) -> None:
        self._packages = packages

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        del path, target
        is_missing = fullname.partition(".")[0] in self._packages
        return ModuleSpec(fullname, self, is_package=True) if is_missing else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        del module


def stand_in_for_missing_packages() -> list[str]:
    """Let `PACKAGES` that are not installed be imported as placeholders; return which these are."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    sys.meta_path.append(_Finder(frozenset(missing)))
    return missing
