"""The environment that renders pages: templates, escaping, and the filters for numbers and passages."""

from collections.abc import Callable
from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from lorif_assets.pages import number_format, passages, token_colours


@cache
def page_environment(package: str, **filters: Callable[..., Any]) -> Environment:
    """Return a page's environment: templates of its package and those that pages share, escaping, and filters.

    A process compiles each template once.

    Args:
        package: of the page.
        filters: of its own, beside those that pages share.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name, package_path="") for name in (package, "lorif_assets.pages")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.filters |= {
        "count": number_format.count,
        "counted": number_format.counted,
        "significant": number_format.significant,
        "score": number_format.score,
        "percent": number_format.percent,
        "bar_width": number_format.bar_width,
        "labels": passages.labels,
        "clip_passage": passages.clip_passage,
        "clip_start": passages.clip_start,
        "first_line": passages.first_line,
        "last_line": passages.last_line,
        "codes": passages.codes,
        "spoken": token_colours.spoken,
        **filters,
    }
    return environment


def _visible(value: Any) -> Any:
    """Applied to every printed expression; markup made by the template's own macros passes as it is."""
    return passages.visible(value) if type(value) is str else value
