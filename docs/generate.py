"""Writes what the documentation takes from the project itself: tables, settings, assets, checks, and the graph.

A page holds blocks that begin with `<!-- generated: NAME -->` and end with `<!-- end of generated -->`; what lies between is
written here, the rest by hand. `make docs` runs this before it builds the site; with `--check`, which tests/docs runs, nothing
is written, and a block that is not current is an error.
"""

import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import dagster as dg
from graph_picture import graph_picture
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lorif_assets.assets.preconditioners import PRECONDITIONERS
from lorif_assets.attribution.stored.curvatures import curvature_of
from lorif_assets.config.methods import MethodName
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.settings import Settings
from lorif_assets.definitions import defs
from lorif_assets.lake.table_schema import TableSchema
from lorif_assets.lake.tables import TABLES

DOCS = Path(__file__).parent

_BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end of generated -->)", re.DOTALL)
_GROUPS = ("corpus", "checkpoints", "attribution", "influcoder", "evaluation")
_NAMES = {
    "str": "text",
    "int": "whole number",
    "float": "number",
    "bool": "true or false",
    "NoneType": "none",
    "date": "date",
    "FromEnvironment": "`{ env = ... }`",
    "SecretStr": "text",
}


def generated_files() -> Mapping[Path, str]:
    """Return the current content of every file that is generated, in whole or in part."""
    pages = {path: path.read_text() for path in (*sorted(DOCS.glob("*.md")), DOCS.parent / "CONTRIBUTING.md")}
    current = {path: _BLOCK.sub(_current_block, page) for path, page in pages.items()}
    return {
        **{path: text for path, text in current.items() if _BLOCK.search(text)},
        DOCS / "graph.svg": graph_picture(
            _attribution_parents(), [asset.name for asset in PRECONDITIONERS], curvature_of(Recipe()).table.name
        ),
    }


def _current_block(found: re.Match[str]) -> str:
    return f"{found[1]}\n{_BLOCKS[found[2]]()}\n{found[3]}"


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(map(_escaped, line))} |\n" for line in lines)


def _escaped(cell: str) -> str:
    """Return a cell in which no character ends the cell, or opens an HTML tag outside of code."""
    parts = cell.replace("|", "\\|").split("`")
    return "`".join(part if i % 2 else part.replace("<", "&lt;") for i, part in enumerate(parts))


# --- Tables of the lake ------------------------------------------------------------------------------------------


def _tables() -> str:
    overview = _table(
        ("table", "partitioned by", "one row is"),
        ((f"[`{name}`](#{name})", ", ".join(t.partition_by), t.row) for name, t in TABLES.items()),
    )
    return overview + "".join(_one_table(schema) for schema in TABLES.values())


def _one_table(schema: TableSchema) -> str:
    def rows() -> Iterator[tuple[str, ...]]:
        for field in schema.columns:
            yield f"`{field.name}`", f"`{field.type}`", schema.meanings[field.name]
        if schema.open_columns is not None:
            yield "*one per layer*", f"`{schema.open_columns}`", "the bytes of the example's factors in this layer"

    return f"\n## {schema.name}\n\n{schema.row}\n\n{_table(('column', 'type', 'meaning'), rows())}"


# --- Settings ----------------------------------------------------------------------------------------------------


def _settings() -> str:
    return "".join(_section(name, field) for name, field in Settings.model_fields.items() if not field.exclude)


def _section(name: str, field: FieldInfo, path: str = "") -> str:
    model = _model(field.annotation)
    if model is None:
        raise TypeError(f"the setting {name!r} is no section; docs/generate.py shows sections alone")
    fields = {key: value for key, value in model.model_fields.items() if not _is_section(value)}
    rows = ((f"`{key}`", _type(value), _default(value), value.description or "") for key, value in fields.items())
    brackets = "[[sources]]" if name == "sources" else f"[{path}{name}]"
    text = f"\n## {path}{name}\n\n`{brackets}`: {_first_line(model)}\n\n"
    text += _table(("field", "type", "default", "meaning"), rows)
    inner = {key: value for key, value in model.model_fields.items() if _is_section(value)}
    return text + "".join(_section(key, value, f"{path}{name}.") for key, value in inner.items())


def _model(annotation: Any) -> type[BaseModel] | None:
    """Return the model of a section, or of a repeated one (a tuple of models)."""
    if get_origin(annotation) is tuple:
        annotation = get_args(annotation)[0]
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _is_section(field: FieldInfo) -> bool:
    return _model(field.annotation) is not None


def _type(field: FieldInfo) -> str:
    return " or ".join(dict.fromkeys(_type_names(field.annotation))).replace(" or none", "")


def _type_names(annotation: Any) -> Iterator[str]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _type_names(arguments[0])
    elif origin is tuple:
        yield f"list of {' or '.join(_type_names(arguments[0]))}"
    elif origin is dict:
        yield "table"
    elif origin is Annotated:
        yield from _type_names(arguments[0])
    elif hasattr(annotation, "__members__"):
        yield from (f'`"{member.value}"`' for member in annotation)
    elif origin is not None and all(isinstance(argument, str) for argument in arguments):
        yield from (f'`"{argument}"`' for argument in arguments)
    elif arguments:
        for argument in arguments:
            yield from _type_names(argument)
    else:
        yield _NAMES[annotation.__name__]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "" if value is None or value == {} else f"`{json.dumps(value, default=str, ensure_ascii=False)}`"


# --- Assets and checks -------------------------------------------------------------------------------------------


def _assets() -> str:
    graph = defs.resolve_asset_graph()
    nodes = [graph.get(key) for key in graph.toposorted_asset_keys]

    def rows(group: str) -> Iterator[tuple[str, ...]]:
        for node in nodes:
            if node.group_name == group:
                name = node.key.to_user_string()
                yield f"`{name}`", _partitions(node.partitions_def), _first_paragraph(node.description or "")

    head = "asset", "one partition for each", "what it is"
    return "\n".join(f"### Group {group}\n\n{_table(head, rows(group))}" for group in _GROUPS)


def _checks() -> str:
    def rows() -> Iterator[tuple[str, ...]]:
        for definition in defs.asset_checks or ():
            for spec in getattr(definition, "check_specs", ()):
                yield f"`{spec.name}`", f"`{spec.asset_key.to_user_string()}`", spec.description or ""

    return _table(("check", "of", "what holds where it passes"), rows())


def _partitions(definition: dg.PartitionsDefinition[Any] | None) -> str:
    names = {"checkpoints": "checkpoint", "shards": "shard", "query_sets": "query set", "subsets": "subset"}
    if isinstance(definition, dg.MultiPartitionsDefinition):
        return " × ".join(name.replace("_", " ") for name in definition.partition_dimension_names)
    return names.get(getattr(definition, "name", None) or "", "")


def _attribution_parents() -> Mapping[str, tuple[str, list[str]]]:
    """Return, of every asset that attributes, what it has a partition for, and the assets that it is computed from."""
    graph = defs.resolve_asset_graph()
    nodes = {key.to_user_string(): graph.get(key) for key in graph.toposorted_asset_keys}
    return {
        name: (_partitions(node.partitions_def), sorted(key.to_user_string() for key in node.parent_keys))
        for name, node in nodes.items()
        if node.group_name in {"corpus", "checkpoints", "attribution"}
    }


# --- Methods, floors and contracts -------------------------------------------------------------------------------


def _methods() -> str:
    def rows() -> Iterator[tuple[str, ...]]:
        for method in (name.definition for name in MethodName):
            extra = f" (extra `{method.extra}`)" if method.extra else ""
            yield f"`{method.name}`", method.title, method.explanation + extra, "yes" if method.by_default else ""

    return _table(("name", "method", "what it is", "compared by default"), rows())


def _floors() -> str:
    layers = next(contract["layers"] for contract in _import_contracts() if contract["type"] == "layers")
    return "```text\n" + "\n".join(layers) + "\n```\n"


def _contracts() -> str:
    return "".join(f"* {contract['name']}.\n" for contract in _import_contracts())


def _import_contracts() -> list[dict[str, Any]]:
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())
    contracts: list[dict[str, Any]] = project["tool"]["importlinter"]["contracts"]
    return contracts


# --- Notebooks ---------------------------------------------------------------------------------------------------


def _notebooks() -> str:
    """Return a list of the notebooks, by their first headings."""
    found = [path.relative_to(DOCS).as_posix() for path in sorted((DOCS / "notebooks").glob("*.ipynb"))]
    return "".join(f"* [{_heading(name)}]({name})\n" for name in found) or "There are none yet.\n"


def _heading(notebook: str) -> str:
    cells = json.loads((DOCS / notebook).read_text())["cells"]
    lines = "".join(cells[0]["source"]).splitlines() if cells else []
    return next((line.removeprefix("# ") for line in lines if line.startswith("# ")), notebook)


# --- Words -------------------------------------------------------------------------------------------------------


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().splitlines()[0]


def _first_paragraph(text: str) -> str:
    return " ".join(text.split("\n\n", maxsplit=1)[0].split())


_BLOCKS: Mapping[str, Callable[[], str]] = {
    "tables": _tables,
    "settings": _settings,
    "assets": _assets,
    "checks": _checks,
    "methods": _methods,
    "floors": _floors,
    "contracts": _contracts,
    "notebooks": _notebooks,
}


def main() -> None:
    """Bring the generated files up to date, and name those that changed; with `--check`, only name them, and fail."""
    check = sys.argv[1:] == ["--check"]
    old = {path: new for path, new in generated_files().items() if not path.exists() or path.read_text() != new}
    for path, content in old.items():
        if not check:
            path.write_text(content)
        print(f"{'out of date' if check else 'wrote'}: {path.relative_to(DOCS.parent)}")
    sys.exit(check and bool(old))


if __name__ == "__main__":
    main()
