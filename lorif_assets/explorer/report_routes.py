"""The stored reports, with links from each query into the explorer."""

import re
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from lorif_assets.errors import TableError
from lorif_assets.explorer.explorer import Explorer
from lorif_assets.explorer.page_routes import address, error_page
from lorif_assets.explorer.questions import InfluencesQuestion
from lorif_assets.pages.report.page import EXPLORED_QUERY

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def report_routes(explorer: Explorer) -> list[Route]:
    """Return the route of the pages that are stored: reports, comparisons and evaluations, at their places in the lake."""

    def report(request: Request) -> Response:
        folder, name = request.path_params["folder"], request.path_params["name"]
        if {folder, name} & {".", ".."}:
            return error_page(explorer, "Not stored", "a report is at /reports/CHECKPOINT/QUERY_SET.html", 404)
        try:
            page = explorer.lake.read_file(f"reports/{folder}/{name}.html").decode()
        except TableError:
            message = f"there is no report {name!r} of {folder!r}: materialize `attribution_report` for them"
            return error_page(explorer, "Not stored", message, 404)

        def link(found: re.Match[str]) -> str:
            question = InfluencesQuestion(checkpoint=folder, query_set=name, query=unquote(found[1]))
            return f'<a href="{address("/query", question)}">Explore it: filter, group, compare</a>'.replace(
                "&", "&amp;"
            )

        return HTMLResponse(EXPLORED_QUERY.sub(link, page), headers={"Content-Security-Policy": _POLICY})

    return [Route("/reports/{folder}/{name}.html", report)]
