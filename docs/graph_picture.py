"""The graph of the assets that attribute, as an SVG: places are chosen here, names, partitions and arrows are the project's."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT = 196, 46
_COLUMN, _ROW, _MARGIN = 228, 92, 20

# Column and row of each box.
_OUTSIDE = {
    "training data": (0.0, 0.0, "training_examples"),
    "checkpoint directory": (1.0, 0.0, "checkpoints"),
    "query files": (2.0, 0.0, "query_examples"),
}
_PLACES = {
    "training_examples": (0.0, 1.0),
    "checkpoints": (1.0, 1.0),
    "query_examples": (2.0, 1.0),
    "kfac_bases": (1.45, 2.0),
    "gradient_factors": (0.5, 3.0),
    "query_scores": (0.65, 5.0),
    "token_scores": (0.0, 6.0),
    "exact_scores": (1.0, 6.0),
    "group_scores": (2.0, 6.0),
    "checkpoint_comparison": (2.45, 7.0),
    "attribution_report": (1.0, 7.0),
}
# The assets of curvatures stand side by side.
_CURVATURE_ROW, _CURVATURE_COLUMN = 4.0, 1.45
# Kept only where the settings ask for them; dashed, as what is not in use.
_OFF = ("token_scores", "exact_scores", "group_scores")
_NOTES = {"svd_preconditioners": "paper", **dict.fromkeys(_OFF, "if asked for")}
_STYLE = """
text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #1f2430; text-anchor: middle }
.small { font: 11.5px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #5a6270 }
.paper { fill: #ffffff } .asset { fill: #eef2fb; stroke: #4a66b0 } .outside { fill: #f4f1ea; stroke: #a08c5b }
.other { stroke-dasharray: 5 4 } path { fill: none; stroke: #6b7488; stroke-width: 1.4 }
#head path { fill: #6b7488; stroke: none }
"""


def graph_picture(parents: Mapping[str, tuple[str, list[str]]], preconditioners: Sequence[str], in_use: str) -> str:
    """Return the SVG.

    Args:
        parents: by asset, what it has a partition for, and the assets that it is computed from.
        preconditioners: the assets of curvatures, from left to right.
        in_use: the one of them that the default recipe uses; the others are dashed.

    Raises:
        ValueError: an asset has no place yet.
    """
    places = _PLACES | {name: (_CURVATURE_COLUMN * at, _CURVATURE_ROW) for at, name in enumerate(preconditioners)}
    if parents.keys() != places.keys():
        odd = sorted(parents.keys() ^ places.keys())
        raise ValueError(f"docs/graph_picture.py has another set of assets than the project, for instance {odd[0]}")
    width = round(max(column for column, _ in places.values()) * _COLUMN + _WIDTH + 2 * _MARGIN)
    unused = ({*preconditioners} - {in_use}) | {*_OFF}
    height = round(max(row for _, row in places.values()) * _ROW + _HEIGHT + 2 * _MARGIN)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
        "<title>From training data, checkpoints and queries to scores and reports</title>",
        f"<style>{_STYLE}</style>",
        '<marker id="head" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z"/></marker>',
        f'<rect class="paper" width="{width}" height="{height}" rx="10"/>',
        *_arrows(parents, places, unused),
        *_boxes(parents, places, unused),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _arrows(
    parents: Mapping[str, tuple[str, list[str]]], places: Mapping[str, tuple[float, float]], unused: set[str]
) -> Iterator[str]:
    for column, row, asset in _OUTSIDE.values():
        yield _arrow((column, row), places[asset], dashed=False)
    for name, (_, upstream) in parents.items():
        for parent in upstream:
            yield _arrow(places[parent], places[name], dashed=bool({parent, name} & unused))


def _arrow(start: tuple[float, float], end: tuple[float, float], *, dashed: bool) -> str:
    x1, y1 = _centre(start)
    x2, y2 = _centre(end)
    y1 += _HEIGHT / 2
    if end[1] - start[1] > 2 and start[0] - end[0] > 1:
        # From far above and aside: down first, and in from the right.
        curve = f"M{x1:g} {y1:g}C{x1:g} {y2 - 40:g} {x1:g} {y2:g} {x2 + _WIDTH / 2:g} {y2:g}"
    else:
        y2 -= _HEIGHT / 2
        bend = (y2 - y1) / 2
        curve = f"M{x1:g} {y1:g}C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}"
    return f'<path{" class=" + chr(34) + "other" + chr(34) if dashed else ""} d="{curve}" marker-end="url(#head)"/>'


def _boxes(
    parents: Mapping[str, tuple[str, list[str]]], places: Mapping[str, tuple[float, float]], unused: set[str]
) -> Iterator[str]:
    for name, (column, row, _) in _OUTSIDE.items():
        yield from _box((column, row), "outside", f'<text class="small" y="4.5">{escape(name)}</text>')
    for name, (partitions, _) in parents.items():
        note = f"{partitions} ({_NOTES[name]})" if name in _NOTES else partitions
        text = f'<text y="-2">{escape(name)}</text><text class="small" y="15">{escape(note)}</text>'
        yield from _box(places[name], "asset other" if name in unused else "asset", text)


def _box(place: tuple[float, float], kind: str, text: str) -> Iterator[str]:
    x, y = _centre(place)
    box = f'<rect class="{kind}" x="{-_WIDTH / 2:g}" y="{-_HEIGHT / 2:g}" width="{_WIDTH}" height="{_HEIGHT}" rx="7"/>'
    yield f'<g transform="translate({x:g} {y:g})">{box}{text}</g>'


def _centre(place: tuple[float, float]) -> tuple[float, float]:
    return _MARGIN + _WIDTH / 2 + place[0] * _COLUMN, _MARGIN + _HEIGHT / 2 + place[1] * _ROW
