"""What an assistant writes, line by line: what cannot be read is answered too, which the protocol's own reader leaves out."""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import mcp_types as types
from pydantic import ValidationError

from lorif_assets.errors import SettingsError
from lorif_assets.explorer.faces import require_characters

_STANDARD_INPUT = 0


class Requests:
    """The lines of standard input that can be read; of any other, who wrote it is told what is wrong with it, by `refuse`.

    Programs that are started meanwhile find no standard input, and leave the requests alone.
    """

    refuse: Callable[[types.JSONRPCError], object]

    def __init__(self) -> None:
        own, nothing = os.dup(_STANDARD_INPUT), os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, _STANDARD_INPUT)
        os.close(nothing)
        self._lines = os.fdopen(own, encoding="utf-8", errors="replace")

    def readline(self) -> str:
        """Return the next line that can be read; an empty text at the end."""
        while line := self._lines.readline():
            refusal = refusal_of(line)
            if refusal is None:
                return line
            self.refuse(refusal)
        return ""


def refusal_of(line: str) -> types.JSONRPCError | None:
    """Return the answer to a line that cannot be read; None of one that can, is empty, or asks for no answer."""
    try:
        types.jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValidationError as error:
        asked = _parsed(line)
        if not line.strip() or (isinstance(asked, Mapping) and "id" not in asked):
            return None
        code = types.PARSE_ERROR if asked is None else types.INVALID_REQUEST
        said = f"this request cannot be read: {error.errors(include_url=False)[0]['msg']}"
        try:
            require_characters(asked)
        except SettingsError as half:
            code, said = types.INVALID_PARAMS, str(half)
        return types.JSONRPCError(jsonrpc="2.0", id=_id(asked), error=types.ErrorData(code=code, message=said))
    return None


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _id(asked: object) -> int | str | None:
    found = asked.get("id") if isinstance(asked, Mapping) else None
    if isinstance(found, str):
        return found if found.isprintable() else None
    return found if isinstance(found, int) and not isinstance(found, bool) else None
