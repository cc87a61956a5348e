"""An explorer of stored influences, with a project that answers by itself."""

import socket
import threading
import time
from threading import Event

import polars as pl
import pytest
import uvicorn
from starlette.testclient import TestClient

from lorif_assets.api.answer import Attribution
from lorif_assets.config.recipe import Recipe
from lorif_assets.errors import CheckpointError, NotStoredError
from lorif_assets.explorer.answers import Answers
from lorif_assets.explorer.application import application
from lorif_assets.explorer.explorer import Explorer
from lorif_assets.lake.remembered_rows import RememberingLake
from lorif_assets.pages.cut_notice import cut_notice
from lorif_assets.progress import Progress
from tests.stored_influences import EXAMPLES, LATE, SHARD, stored_influences


class StandInProject:
    """Answers every question with all examples, in the order of their names; holds the answer back where it is told to."""

    def __init__(self):
        self.asked, self.lines, self.goes_on, self.fails, self.cut = [], [], Event(), False, None
        self.goes_on.set()

    def load(self, checkpoint=None):
        return checkpoint or LATE

    def attribute(self, prompt, completion, *, checkpoint, top_k):
        self.asked.append((prompt, completion, checkpoint, top_k))
        with Progress("scoring", len(EXAMPLES), "examples") as progress:
            progress.advance(2)
            self.goes_on.wait(30)
        if self.fails:
            raise CheckpointError("the checkpoint's files are gone; bring them back")
        scores = [3.0 - rank for rank in range(len(EXAMPLES))]
        table = pl.DataFrame({"example_id": sorted(EXAMPLES), "score": scores}).with_columns(
            side=pl.lit("all"), rank=pl.int_range(1, pl.len() + 1), shard=pl.lit(SHARD), relative_score=-pl.col("score")
        )
        return Attribution(
            prompt=prompt,
            completion=completion,
            checkpoint=checkpoint,
            loss=4.0,
            n_target_tokens=2,
            n_examples=len(EXAMPLES),
            figures={"score_mean": 0.0, "score_std": 1.5, "top_10_share": 1.0, "top_100_share": 1.0},
            table=table,
            relative=table.with_columns(
                side=pl.when(pl.col("score") > 0).then(pl.lit("lowest")).otherwise(pl.lit("highest"))
            ),
            tokens=pl.DataFrame(),
            objective={},
            notice=cut_notice([self.cut] if self.cut else []),
        )

    def attribute_chat(self, chat, *, checkpoint, top_k):
        return self.attribute("", f"chat: {[turn['role'] for turn in chat]}", checkpoint=checkpoint, top_k=top_k)

    def attribute_query(self, query, *, checkpoint, top_k):
        self.lines.append(query)
        return self.attribute(
            query.get("prompt", ""), query.get("completion", "the text"), checkpoint=checkpoint, top_k=top_k
        )

    def attribute_tokens(self, query, shard, example_id, *, checkpoint):
        """Tokens of one character each, by turns for and against; the first carries no loss."""
        self.lines.append(query)
        self.goes_on.wait(30)
        if example_id not in EXAMPLES:
            raise NotStoredError(f"no example {example_id!r}")
        said = {"example": EXAMPLES[example_id].get("text", "text"), "query": query.get("completion", "text")}
        rows = [
            {"side": side, "term": 0, "position": position, "token_id": ord(token), "token": token}
            | {"score": None if position == 0 else float((-1) ** position * position)}
            for side, text in said.items()
            for position, token in enumerate(text)
        ]
        return pl.DataFrame(rows, schema_overrides={"score": pl.Float32}).with_columns(
            exact_score=pl.lit(8.0), cut=pl.lit(self.cut, pl.String)
        )

    def attribute_stored_query(self, query_set, query_id, *, checkpoint, top_k):
        return self.attribute(query_set, query_id, checkpoint=checkpoint, top_k=top_k)


@pytest.fixture(scope="session")
def stored(tmp_path_factory):
    # The two ends do not meet, so that there is more to score.
    return stored_influences(tmp_path_factory.mktemp("explored"), n_listed=2)


@pytest.fixture
def project():
    return StandInProject()


@pytest.fixture
def explorer(stored, project):
    lake = RememberingLake.of(stored)
    explorer = Explorer("my project", Recipe(), lake, Answers(project, lake))
    yield explorer
    project.goes_on.set()
    explorer.answers.close()


@pytest.fixture
def client(explorer):
    with TestClient(application(explorer), base_url="http://127.0.0.1:7411") as client:
        yield client


@pytest.fixture
def address(explorer):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(application(explorer), host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def opened(chromium, address):
    """Opens a page; at the end, no script has failed and nothing was refused by the browser or the server."""
    contexts, faults = [], []

    def open_at(path, **look):
        context = chromium.new_context(base_url=address, **look)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        page.on(
            "request", lambda asked: faults.append(asked.url) if not asked.url.startswith((address, "data:")) else None
        )
        page.goto(path)
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert faults == []
