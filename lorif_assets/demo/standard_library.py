"""Docstrings of the standard library, read from its source files without importing them."""

import ast
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from lorif_assets.demo.passages import Entry, gather
from lorif_assets.errors import SourceError

SOURCE = "standard library"

_LEFT_OUT = frozenset({
    # Names that the language reference uses for topics of its own.
    "numbers", "types",
    # Applications, tests, jokes, tables, and packages that many distributions leave out.
    "antigravity", "distutils", "encodings", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "this",
    "tkinter", "turtle", "turtledemo", "venv",
})  # fmt: skip

_PYTHON_TWINS = {"_collections_abc": "collections", "_pydatetime": "datetime", "_pydecimal": "decimal", "_pyio": "io"}
"""Private modules that hold the documented Python form of a public one."""


def standard_library() -> Path:
    """The directory of this Python's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def docstrings(root: Path) -> dict[str, list[list[Entry]]]:
    """Collect the docstrings of public modules, classes and functions below `root`, in source order.

    Before each docstring stands the qualified name (and parameters) of what it documents.

    Args:
        root: a directory laid out as the standard library; only names that belong to it are read.

    Returns:
        Groups of neighbouring entries by top-level module name, modules in alphabetical order.

    Raises:
        SourceError: no docstring was found, as in installations without source files.
    """
    found: dict[str, list[Entry]] = {}
    for name in sorted((sys.stdlib_module_names | _PYTHON_TWINS.keys()) - _LEFT_OUT):
        topic = _PYTHON_TWINS.get(name, name)
        if topic.startswith("_"):
            continue
        for module, path in _module_files(root, name):
            found.setdefault(topic, []).extend(_entries(module.replace(name, topic, 1), path))
    modules = {topic: gather(found[topic]) for topic in sorted(found) if found[topic]}
    if not modules:
        raise SourceError(
            f"no docstrings of the standard library under {root}: the demo's corpus needs its source files (*.py); "
            "use a full CPython installation"
        )
    return modules


def _module_files(root: Path, name: str) -> list[tuple[str, Path]]:
    """Dotted names and files of a module, or of a package's public modules, in the order of the names."""
    if (single := root / f"{name}.py").is_file():
        return [(name, single)]
    dotted = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (root / name).rglob("*.py")
    }
    return [
        (module, path)
        for module, path in sorted(dotted.items())
        if not any(part.startswith("_") or part in {"test", "tests"} for part in module.split(".")[1:])
    ]


def _entries(module: str, path: Path) -> Iterator[Entry]:
    tree = ast.parse(path.read_bytes(), filename=str(path))
    if text := ast.get_docstring(tree):
        yield Entry(module, f"module {module}\n{text}")
    yield from _definitions(tree, module)


def _definitions(scope: ast.AST, prefix: str) -> Iterator[Entry]:
    """Documented public definitions of a scope, looking into `if`, `try` and `with` blocks but not into functions."""
    for node in ast.iter_child_nodes(scope):
        match node:
            case ast.ClassDef(name=name) if _is_public(name):
                yield from _entry(f"{prefix}.{name}", f"class {prefix}.{name}", node)
                yield from _definitions(node, f"{prefix}.{name}")
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if _is_public(name):
                yield from _entry(f"{prefix}.{name}", f"{prefix}.{name}({ast.unparse(node.args)})", node)
            case ast.If() | ast.Try() | ast.ExceptHandler() | ast.With():
                yield from _definitions(node, prefix)


def _entry(title: str, signature: str, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Entry]:
    if text := ast.get_docstring(node):
        yield Entry(title, f"{signature}\n{text}")


def _is_public(name: str) -> bool:
    return name == "__init__" or not name.startswith("_")
