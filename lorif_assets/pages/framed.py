"""Stored pages within another server's page, as MLflow shows artifacts."""

import re

_RELATIVE_LINK = re.compile(r'href="\.\./([^"]+)"')


def framed_page(page: str, explorer: str) -> str:
    """Return a report for a place where no other page of the lake is beside it: it links to those that the explorer serves.

    Args:
        page: the report.
        explorer: the explorer's address.
    """
    return _RELATIVE_LINK.sub(rf'href="{explorer}/reports/\g<1>"', page)
