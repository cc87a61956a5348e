"""The picture of quality against bytes in the README, drawn from results/quality_against_bytes.json."""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_RESULTS = Path(__file__).parent / "results"
_COLOURS = {
    "whitened signs": "#0b62a8",
    "whitened int4": "#2fa3d6",
    "SVD form, BF16": "#8a4fb0",
    "paper's form": "#c23d7e",
    "EOGP, axes of other passages": "#c8641b",
    "EOGP, cross-fitted": "#9a7b12",
    "EOGP-R": "#a23b3b",
}
_OTHER = "#5a6472"
_RIVALS = "GPT-2, 1,200 passages"
"""Rivals at equal bytes (`rivals.py`): less data and fewer retrained models, so other heights; named in a legend."""
_PANELS = ("GPT-2", "Llama", _RIVALS)


def drawn(points: list[dict[str, Any]]) -> Figure:
    """Return a panel for each model with a logarithmic axis of bytes; points of one method are joined."""
    figure = Figure(figsize=(13.2, 3.8), layout="constrained")
    for axes, model in zip(figure.subplots(1, len(_PANELS), sharey=True), _PANELS, strict=True):
        of_model = [point for point in points if point["model"] == model]
        for method in dict.fromkeys(point["method"] for point in of_model):
            _draw(axes, method, [point for point in of_model if point["method"] == method], at_its_end=model != _RIVALS)
        if model == _RIVALS:
            axes.legend(fontsize=8, frameon=False, loc="upper right")
        axes.set_title(model, loc="left", fontsize=10)
        axes.set_xscale("log")
        axes.set_xlim(200, 3_000_000)
        axes.set_ylim(0, 0.5)
        axes.set_xlabel("bytes per training example")
        axes.grid(visible=True, color="#e4e7ec", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("LDS, held-out passages")
    return figure


def _draw(axes: Axes, method: str, line: list[dict[str, Any]], *, at_its_end: bool) -> None:
    """Draw one method's points, named where the line ends or in the legend."""
    colour = _COLOURS.get(method, _OTHER)
    axes.plot(
        [point["bytes"] for point in line], [point["lds"] for point in line], marker="o", color=colour, label=method
    )
    for point in line:
        if "low" in point:
            axes.plot([point["bytes"]] * 2, [point["low"], point["high"]], color=colour, linewidth=1, alpha=0.5)
    if not at_its_end:
        return
    end = line[-1]["bytes"], line[-1]["lds"]
    axes.annotate(method, end, xytext=(7, -3), textcoords="offset points", color=colour, fontsize=8)


def main() -> None:
    """Draw the picture beside the figures."""
    mpl.rcParams.update({"svg.hashsalt": "lorif", "svg.fonttype": "none", "font.family": "sans-serif"})
    points = json.loads((_RESULTS / "quality_against_bytes.json").read_text())["points"]
    drawn(points).savefig(_RESULTS / "quality_against_bytes.svg", metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    main()
