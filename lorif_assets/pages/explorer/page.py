"""The explorer's pages, from what the explorer answered; and the style and script that they share."""

from collections.abc import Mapping
from functools import partial
from importlib.resources import files
from urllib.parse import quote

from lorif_assets.attribution.scores.stored_rankings import WHEN_WHICH
from lorif_assets.pages.addresses import comparison_address, report_address
from lorif_assets.pages.environment import page_environment

PORT = 7411
"""Where `lorif explore` listens on 127.0.0.1, unless it is told otherwise."""

STATIC: Mapping[str, tuple[str, str]] = {
    "page.css": ("lorif_assets.pages", "text/css"),
    "explorer.css": ("lorif_assets.pages.explorer", "text/css"),
    "explorer.js": ("lorif_assets.pages.explorer", "text/javascript"),
    "marking.js": ("lorif_assets.pages.explorer", "text/javascript"),
}
"""The files beside the pages: the package that each is in, and its type."""


def explored_report(address: str, checkpoint: str, query_set: str) -> str:
    """Return where a browser finds a report while the explorer runs at an address."""
    return f"{address}/{quote(report_address(checkpoint, query_set))}"


def explored_comparison(query_set: str) -> str:
    """Return where the explorer has the page that compares checkpoints."""
    return f"/{quote(comparison_address(query_set))}"


def render(name: str, content: Mapping[str, object]) -> str:
    """Return a page: everything that comes from data is escaped, and nothing is loaded but the files of `STATIC`.

    Args:
        name: of the page's template.
        content: its variables.
    """
    return (
        page_environment("lorif_assets.pages.explorer")
        .get_template(f"{name}.html.jinja")
        .render(when_which=WHEN_WHICH, report=partial(explored_report, ""), comparison=explored_comparison, **content)
    )


def static_file(name: str) -> bytes:
    """Return a file of `STATIC`."""
    package, _ = STATIC[name]
    return files(package).joinpath(name).read_bytes()
