"""The pages of selections: part of the training data by its influence or by name, and the rows that were marked by hand."""

from collections.abc import Mapping

from lorif_assets.explorer.answers import Stage
from lorif_assets.explorer.explorer import Explorer
from lorif_assets.explorer.frame import Frame, address, frame_of
from lorif_assets.explorer.questions import InfluencesQuestion, QuerySetQuestion, SelectionQuestion
from lorif_assets.explorer.selections import output_name
from lorif_assets.influences.catalogue import scored_query
from lorif_assets.influences.set_influence import SET_RANKINGS
from lorif_assets.influences.wanted_rows import IDS_FILE, weighted_set
from lorif_assets.pages.explorer.page import render


def selection_page(explorer: Explorer, question: SelectionQuestion, path: str) -> str:
    """The page of a selection: what it would have, once it is found; until then, how far that is."""
    wanted = explorer.selecting.wanted(question)
    frame = frame_of(explorer, question, path)
    query_set = frame.query_set
    at = question.model_copy(update={"checkpoint": frame.checkpoint, "query_set": query_set})
    is_found = explorer.answers.progress(wanted).stage is Stage.READY
    found = explorer.selecting.selection(at) if is_found else None
    return render(
        "select",
        {
            "frame": frame,
            "to": address,
            "question": at,
            "query": scored_query(explorer.lake, frame.checkpoint, query_set, at.query) if at.query else None,
            "rankings": SET_RANKINGS,
            "columns": [] if at.ids else _metadata_columns(explorer, at),
            "also": dict(map(weighted_set, at.also)),
            "others": {} if at.query or at.ids else _others(frame, at),
            "found": found,
            "output": output_name(wanted),
            "asked": at.model_dump_json(exclude_defaults=True),
            "then": address(path, at),
            "folder": explorer.selecting.folder.path,
            "ids_file": IDS_FILE,
        },
    )


def _others(frame: Frame, question: SelectionQuestion) -> Mapping[str, Mapping[str, str]]:
    """How else a query set may count, by its name: for a row, against it, or as the address has it."""
    asked = {weighted_set(one)[0]: one for one in question.also}
    found = {}
    for name in frame.query_sets:
        ways = {f"{name}=1": "counts for rows", f"{name}=-1": "counts against them"}
        if name in asked and asked[name] not in ways:
            ways[asked[name]] = f"weight {weighted_set(asked[name])[1]:g}"
        found[name] = ways
    return {name: ways for name, ways in found.items() if name != question.query_set}


def _metadata_columns(explorer: Explorer, question: SelectionQuestion) -> list[str]:
    place = {name: getattr(question, name) for name in ("checkpoint", "query_set", "query")}
    return list(explorer.influences(InfluencesQuestion(**place, limit=1)).listed.metadata)


def marked_page(explorer: Explorer, question: QuerySetQuestion, path: str) -> str:
    """The page of rows that were marked; which, the browser knows."""
    frame = frame_of(explorer, question, path)
    return render("marked", {"frame": frame, "to": address})
