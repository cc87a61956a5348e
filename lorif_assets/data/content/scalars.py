"""Python code that a query names: a function from a model's output to a number, whose hash the query's covers."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorif_assets.data.rows.unusable import UnusableRowError
from lorif_assets.errors import MismatchError, SourceError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from lorif_assets.mathematics.gradients.collector import TokenBatch

Scalar = Callable[[Any, "TokenBatch"], "Float[Tensor, ' B']"]
"""From the output of a model, with its hidden states, and the batch, to a number for each example."""


def scalar_source(named: str, base: Path) -> dict[str, str]:
    """Return what a query stores of `module:function` or `file.py:function`: the name, the file and the hash of its code.

    Raises:
        UnusableRowError: there is no such file or module, or it has no such function.
    """
    where, _, function = named.rpartition(":")
    if not where or not function.isidentifier():
        raise UnusableRowError(f"the scalar {named!r} is not 'module:function' or 'file.py:function'")
    file = _file_of(where, base)
    # Sorted, as they are hashed.
    source = {"file": str(file), "hash": _hash(file), "name": named}
    try:
        load_scalar(source)
    except (MismatchError, SourceError) as error:
        raise UnusableRowError(str(error)) from error
    return source


def load_scalar(source: dict[str, str]) -> Scalar:
    """Return the function.

    Raises:
        MismatchError: its code changed since the query was read, or is gone.
        SourceError: the code raises an error, or has no such function.
    """
    require_unchanged(source)
    name, file = source["name"], Path(source["file"])
    where, _, function = name.rpartition(":")
    try:
        module = _module_of_file(file, source["hash"]) if where.endswith(".py") else importlib.import_module(where)
    except Exception as error:
        raise SourceError(f"the code of the scalar {name!r}, {file}, cannot be imported: {error}") from error
    found = getattr(module, function, None)
    if not callable(found):
        raise SourceError(f"{file} has no function {function!r}, which the scalar {name!r} names")
    return found


def require_unchanged(source: Mapping[str, str]) -> None:
    """Refuse a scalar whose code is no longer what it was when its query was read; none of it is run.

    Raises:
        MismatchError: it is not, or is gone.
    """
    name, file = source["name"], Path(source["file"])
    if not file.is_file() or _hash(file) != source["hash"]:
        raise MismatchError(
            f"the code of the scalar {name!r}, {file}, changed since the query was read, or is gone; write the query file "
            "again (`touch` it) and materialize `query_examples`"
        )


def _file_of(where: str, base: Path) -> Path:
    if where.endswith(".py"):
        file = base / Path(where).expanduser()
        if not file.is_file():
            raise UnusableRowError(
                f"there is no file {file} of the scalar {where!r}; the path starts at lorif.toml's folder"
            )
        return file.resolve()
    try:
        spec = importlib.util.find_spec(where)
    except (ImportError, ValueError) as error:
        raise UnusableRowError(f"the module {where!r} of a scalar cannot be found: {error}") from error
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise UnusableRowError(
            f"there is no module {where!r} of a scalar; install it, or name a file: 'file.py:function'"
        )
    return Path(spec.origin)


def _module_of_file(file: Path, version: str) -> Any:
    """Import a file once in a process for each version of it."""
    name = f"lorif_scalar_{blake2b(f'{file}|{version}'.encode(), digest_size=8).hexdigest()}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise ImportError(f"{file} is no Python file")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[name] = module
    return sys.modules[name]


def _hash(file: Path) -> str:
    return blake2b(file.read_bytes(), digest_size=16).hexdigest()
