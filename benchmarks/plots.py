"""Pictures of the results in `results/*.json`, beside them: what is there is drawn."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from lorif_assets.pages.look import LIGHT

RESULTS = Path(__file__).parent / "results"
PARTS = {
    "own floor": "floor with the project's products",
    "hooks": "projections",
    "gradients": "outer products",
    "factorised": "factorising",
    "whole": "rows",
}
OURS = "lorif"


def bars(axes: Axes, names: list[str], values: list[float], title: str, form: str) -> None:
    """Draw one horizontal bar for each name, the first on top, each with its number."""
    colours = [LIGHT.accent if name.startswith(OURS) else LIGHT.series[0] for name in names]
    drawn = axes.barh(names[::-1], values[::-1], color=colours[::-1], height=0.6)
    axes.bar_label(drawn, labels=[form.format(value) for value in values[::-1]], padding=3, fontsize=8, color=LIGHT.ink)
    axes.set_xlim(0, max(values) * 1.25)
    axes.xaxis.set_visible(False)
    styled(axes, title)


def styled(axes: Axes, title: str) -> None:
    """Give axes a title and quiet lines."""
    axes.set_title(title, loc="left", fontsize=9, color=LIGHT.ink)
    axes.tick_params(labelsize=8, colors=LIGHT.ink, length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LIGHT.grid)


def draw_peers(figure: Figure, result: dict[str, Any]) -> None:
    """Building, bytes and scoring, of this project and of its peers."""
    rows = result["results"]["ran"]
    names = [row["peer"] for row in rows]
    left, middle, right = figure.subplots(1, 3, sharey=True)
    bars(left, names, [row["tokens_per_cpu_second"] for row in rows], "built, tokens per CPU second", "{:,.0f}")
    bars(middle, names, [row["stored_bytes_per_example"] / 1e3 for row in rows], "kept, kB per example", "{:,.1f}")
    bars(right, names, [row["score_cpu"] for row in rows], "queries scored, CPU seconds", "{:.2f}")


def draw_scale(figure: Figure, result: dict[str, Any]) -> None:
    """Time and memory by examples, and time by shards."""
    by_examples, by_shards = result["results"]["examples"], result["results"]["shards"]
    left, middle, right = figure.subplots(1, 3)
    millions = [row["examples"] / 1e6 for row in by_examples]
    scanned = [row["looked up"] + row["scanned"] + row["named"] for row in by_examples]
    left.plot(millions, scanned, marker="o", color=LIGHT.series[0])
    left.set_xlabel("million examples", fontsize=8)
    styled(left, "a scan, CPU seconds")
    middle.plot(millions, [row["anonymous_mib"] for row in by_examples], marker="o", color=LIGHT.series[0])
    middle.set_xlabel("million examples", fontsize=8)
    styled(middle, "memory without file pages, MiB")
    shards = [row["shards"] for row in by_shards]
    right.plot(shards, [row["us_per_example"] for row in by_shards], marker="o", color=LIGHT.series[0])
    right.set_xscale("log")
    right.set_xlabel("shards", fontsize=8)
    styled(right, f"{by_shards[0]['examples']:,} examples, us each")
    for axes in (left, middle, right):
        axes.set_ylim(0, 1.1 * max(axes.get_ylim()))


def draw_factors(figure: Figure, result: dict[str, Any]) -> None:
    """Of each recipe, what every part adds to the floor, in times of the bare model."""
    (axes,) = figure.subplots(1, 1, squeeze=False).flat
    recipes = list(dict.fromkeys(row["recipe"] for row in result["results"]))[::-1]
    start = dict.fromkeys(recipes, 0.0)
    for number, (part, title) in enumerate(PARTS.items()):
        added = {row["recipe"]: max(0.0, row["added_to_floor"]) for row in result["results"] if row["part"] == part}
        axes.barh(
            recipes,
            [added[recipe] for recipe in recipes],
            left=[start[recipe] for recipe in recipes],
            color=LIGHT.grid if part == "own floor" else LIGHT.series[number],
            height=0.5,
            label=title,
        )
        start = {recipe: start[recipe] + added[recipe] for recipe in recipes}
    axes.axvline(1 / 0.8, color=LIGHT.accent, linewidth=1, label="0.80 of the bare model's rate")
    axes.legend(fontsize=8, frameon=False, ncols=6, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    styled(axes, "gradient factors, CPU time over that of the bare model")


MEASURES = {"ndcg": "NDCG@20", "sums": "sums over halves", "pearson": "Pearson's correlation"}


def draw_agreement(figure: Figure, result: dict[str, Any]) -> None:
    """Three measures of agreement with exact EK-FAC against LDS, a row for each model; points of one width are joined."""
    models = list(dict.fromkeys(row["model"] for row in result["results"]))
    widths = list(dict.fromkeys(row["widths"] for row in result["results"]))
    panels = figure.subplots(len(models), len(MEASURES), sharey="row", squeeze=False)
    for model, row_of_panels in zip(models, panels, strict=True):
        of_model = [row for row in result["results"] if row["model"] == model]
        for axes, (measure, title) in zip(row_of_panels, MEASURES.items(), strict=True):
            for colour, width in zip(LIGHT.series, widths, strict=False):
                line = [row for row in of_model if row["widths"] == width]
                agreed, lds = [row[measure] for row in line], [row["lds"] for row in line]
                axes.plot(agreed, lds, marker="o", linewidth=1, color=colour, label=f"sides {width}")
                for row in line:
                    at = row[measure], row["lds"]
                    axes.annotate(f"{row['budget'] / 1e3:.1f}", at, (4, -9), textcoords="offset points", fontsize=7)
            axes.set_xlabel(title, fontsize=8)
            styled(axes, f"{model}: LDS" if measure == "ndcg" else "")
    lines, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(lines, names, fontsize=8, frameon=False, ncols=len(names), loc="outside lower center")


DRAWN: dict[str, tuple[Callable[[Figure, dict[str, Any]], None], tuple[float, float]]] = {
    "peers": (draw_peers, (10, 2.6)),
    "scale": (draw_scale, (10, 2.6)),
    "factor_throughput": (draw_factors, (10, 2.2)),
    "agreement_against_lds": (draw_agreement, (10, 5.8)),
}


def main() -> None:
    """Draw every result that is there."""
    for name, (draw, size) in DRAWN.items():
        source = RESULTS / f"{name}.json"
        if not source.is_file():
            continue
        figure = Figure(figsize=size, layout="constrained", facecolor=LIGHT.paper)
        FigureCanvasSVG(figure)
        draw(figure, json.loads(source.read_text()))
        figure.savefig(RESULTS / f"{name}.svg", metadata={"Date": None})
        print(RESULTS / f"{name}.svg")


if __name__ == "__main__":
    main()
