"""Whether tests notice a mutant: they run in a copy of this process, in which the module is the mutant."""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

_PACKAGES = ("lorif_assets", "tests")


class _Mutated(importlib.abc.MetaPathFinder):
    """Finds one module as the code that it is given."""

    def __init__(self, module: str, path: Path, source: str) -> None:
        self._module, self._path, self._code = module, path, compile(source, str(path), "exec")

    def find_spec(
        self, fullname: str, path: object, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return (
            importlib.util.spec_from_file_location(fullname, self._path, loader=self)
            if fullname == self._module
            else None
        )

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, vars(module))


def notice(tests: Sequence[Path], module: str, path: Path, source: str, cpu_seconds: int) -> bool:
    """Return whether one of the tests fails where a module has this source, or they take longer than they may.

    The process must have one thread: its copy has no other.
    """
    child = os.fork()
    if child == 0:
        _run(tests, module, path, source, cpu_seconds)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) != 0


def _run(tests: Sequence[Path], module: str, path: Path, source: str, cpu_seconds: int) -> None:
    import pytest

    code: int = 1
    try:
        used = resource.getrusage(resource.RUSAGE_SELF)
        most = int(used.ru_utime + used.ru_stime) + cpu_seconds
        resource.setrlimit(resource.RLIMIT_CPU, (most, most + 5))
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        for name in [name for name in sys.modules if name.partition(".")[0] in _PACKAGES]:
            del sys.modules[name]
        sys.meta_path.insert(0, _Mutated(module, path, source))
        # The project in miniature is no part of the mathematics, and takes seconds to import.
        plain = ["-p", "tests.accelerators", "--confcutdir=tests/mathematics", "-p", "no:cacheprovider"]
        code = int(pytest.main([*plain, "-x", "-q", "-m", "not slow", *map(str, tests)]))
    finally:
        os._exit(code)
