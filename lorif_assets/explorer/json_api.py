"""The JSON API: a path for each question, its schema, and lists as files."""

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

import polars as pl
from pydantic import TypeAdapter
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lorif_assets.data.rows.json_values import parsed_json
from lorif_assets.errors import LorifError, NotStoredError, RefusedError, SettingsError
from lorif_assets.explorer.explorer import Explorer
from lorif_assets.explorer.faces import FACES, Face, read_question, require_characters
from lorif_assets.explorer.questions import InfluencesQuestion, Question
from lorif_assets.influences.listing import InfluenceList

_MOST_EXPORTED = 20_000
_STATUS: Mapping[type[LorifError], int] = {NotStoredError: 404, SettingsError: 400, RefusedError: 403}


def json_routes(explorer: Explorer) -> list[Route]:
    """Return the routes of the API: /api/NAME for each question, /api/openapi.json, /api/influences.csv and .parquet."""
    return [
        *(_route(explorer, face) for face in FACES),
        Route("/api/openapi.json", _schema),
        Route("/api/influences.{kind}", _export(explorer)),
    ]


def parameters(kind: type[Question], given: QueryParams) -> dict[str, Any]:
    """Return the parameters of an address: the last of each, but all of those that are lists."""
    return {
        name: given.getlist(name)
        if name in kind.model_fields and kind.model_fields[name].default == ()
        else given[name]
        for name in given
    }


def error_response(error: LorifError) -> JSONResponse:
    """Return an error as JSON: its kind, and a message that says what to do."""
    return JSONResponse({"error": {"kind": type(error).__name__, "message": str(error)}}, status_code=status_of(error))


def status_of(error: LorifError) -> int:
    """Return the HTTP status of an error: 404: not there, 403: not allowed, 400: a wrong parameter, else 409."""
    return _STATUS.get(type(error), 409)


def _route(explorer: Explorer, face: Face) -> Route:
    async def answer(request: Request) -> Response:
        try:
            given = await _body(request) if face.acts else parameters(face.question, request.query_params)
            return JSONResponse(await run_in_threadpool(face.asked, explorer, given))
        except LorifError as error:
            return error_response(error)

    return Route(f"/api/{face.name}", answer, methods=["POST"] if face.acts else ["GET"])


async def _body(request: Request) -> Mapping[str, Any]:
    # A form of another site cannot send this type without asking the browser, which the guard refuses.
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise SettingsError("send the parameters as a JSON object, with `Content-Type: application/json`")
    try:
        given = parsed_json((await request.body()).decode())
    except ValueError as error:
        raise SettingsError(f"the parameters are no JSON: {error}") from error
    if not isinstance(given, Mapping):
        raise SettingsError(f"the parameters are a JSON object, found a {type(given).__name__}")
    require_characters(given)
    return given


def _export(explorer: Explorer) -> Callable[[Request], Response]:
    def export(request: Request) -> Response:
        try:
            question = read_question(InfluencesQuestion, parameters(InfluencesQuestion, request.query_params))
            whole = question.model_copy(update={"offset": 0, "limit": _MOST_EXPORTED})
            return _file(_table(explorer.influences(whole).listed), request.path_params["kind"])
        except LorifError as error:
            return error_response(error)

    return export


def _table(listed: InfluenceList) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "rank": one.rank,
                "shard": one.shard,
                "example_id": one.example_id,
                "value": one.value,
                "spreads": one.spreads,
                "copies": len(one.copies),
                "text": "".join(part.text for part in one.parts),
                "metadata": TypeAdapter(dict[str, Any]).dump_json(dict(one.metadata)).decode(),
            }
            for one in listed.rows
        ],
        schema={
            "rank": pl.Int64,
            "shard": pl.String,
            "example_id": pl.String,
            "value": pl.Float64,
            "spreads": pl.Float64,
            "copies": pl.Int64,
            "text": pl.String,
            "metadata": pl.String,
        },
    )


def _file(table: pl.DataFrame, kind: str) -> Response:
    content = BytesIO()
    if kind == "csv":
        table.write_csv(content)
    elif kind == "parquet":
        table.write_parquet(content)
    else:
        raise NotStoredError(f"lists are exported as csv or parquet, not as {kind!r}; as JSON, ask /api/influences")
    return Response(
        content.getvalue(),
        media_type="text/csv; charset=utf-8" if kind == "csv" else "application/vnd.apache.parquet",
        headers={"Content-Disposition": f'attachment; filename="influences.{kind}"'},
    )


def _schema(request: Request) -> Response:
    del request
    return JSONResponse(openapi())


def openapi() -> dict[str, Any]:
    """Return the API's description in OpenAPI 3.1."""
    definitions: dict[str, Any] = {}

    def referred(schema: dict[str, Any]) -> dict[str, Any]:
        definitions.update(schema.pop("$defs", {}))
        return schema

    template = "#/components/schemas/{model}"
    paths = {}
    for face in FACES:
        asked = referred(face.question.model_json_schema(ref_template=template))
        answered = referred(TypeAdapter(face.returns).json_schema(ref_template=template, mode="serialization"))
        responses = {"200": {"description": face.summary, "content": {"application/json": {"schema": answered}}}}
        operation: dict[str, Any] = {"operationId": face.name, "summary": face.summary, "responses": responses}
        if face.acts:
            operation["requestBody"] = {"content": {"application/json": {"schema": asked}}}
        else:
            operation["parameters"] = [
                {
                    "name": name,
                    "in": "query",
                    "required": name in asked.get("required", []),
                    "description": schema.get("description", ""),
                    "schema": schema,
                }
                for name, schema in asked.get("properties", {}).items()
            ]
        paths[f"/api/{face.name}"] = {"post" if face.acts else "get": operation}
    return {
        "openapi": "3.1.0",
        "info": {"title": "LoRIF explorer", "version": "1"},
        "paths": paths,
        "components": {"schemas": definitions},
    }
