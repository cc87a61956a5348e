"""The stored reports, with links from each query into the explorer."""

import re
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from lorif_assets.errors import TableError
from lorif_assets.explorer.explorer import Explorer
from lorif_assets.explorer.frame import address
from lorif_assets.explorer.page_routes import error_page
from lorif_assets.explorer.questions import InfluencesQuestion
from lorif_assets.pages.addresses import report_address
from lorif_assets.pages.report.page import EXPLORED_QUERY

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    # MLflow shows reports in a frame, and their links lead to these; they have no script, and nothing to press.
    "frame-ancestors http://127.0.0.1:* http://localhost:*"
)


def report_routes(explorer: Explorer) -> list[Route]:
    """Return the route of the pages that are stored: reports, comparisons and evaluations, at their places in the lake."""

    policy = f"{_POLICY} {explorer.framed_by}".rstrip()

    def report(request: Request) -> Response:
        folder, name = request.path_params["folder"], request.path_params["name"]
        if {folder, name} & {".", ".."}:
            return error_page(explorer, "Not stored", "a report is at /reports/CHECKPOINT/QUERY_SET.html", 404)
        try:
            page = explorer.lake.read_file(f"reports/{folder}/{name}.html").decode()
        except TableError:
            message = f"there is no report {name!r} of {folder!r}: materialize `attribution_report` for them"
            return error_page(explorer, "Not stored", message, 404)

        # Pages with scripts are shown in no frame.
        if request.headers.get("sec-fetch-dest") == "iframe":
            return HTMLResponse(page, headers={"Content-Security-Policy": policy})

        checkpoint, query_set = _reported(explorer, folder, name)

        def link(found: re.Match[str]) -> str:
            question = InfluencesQuestion(checkpoint=checkpoint, query_set=query_set, query=unquote(found[1]))
            return f'<a href="{address("/query", question)}">Explore it: filter, group, compare</a>'.replace(
                "&", "&amp;"
            )

        return HTMLResponse(EXPLORED_QUERY.sub(link, page), headers={"Content-Security-Policy": policy})

    return [Route("/reports/{folder}/{name}.html", report)]


def _reported(explorer: Explorer, folder: str, name: str) -> tuple[str, str]:
    """The checkpoint and the query set of a report; its address has other names where they have capitals."""
    places = ((one.name, query_set) for one in explorer.overview().checkpoints for query_set in one.query_sets)
    address_of_report = f"reports/{folder}/{name}.html"
    return next((place for place in places if report_address(*place) == address_of_report), (folder, name))
