"""Any source and any store: every format of data reaches the scores, and the lake may be in an object store."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS, QUERY_SCORES, REPORTS
from lorif_assets.lake.data_tables import REJECTED
from lorif_assets.lake.lake import Lake
from lorif_assets.project import Project
from tests.conftest import CHECKPOINTS, QUERY_SET, TinyProject

_SOURCES = """
[[sources]]
name = "chat"
path = "chat.jsonl"
[[sources]]
name = "tokens"
path = "tokens.parquet"
[[sources]]
name = "pairs"
path = "pairs.parquet"
columns = { prompt = "question", completion = "answer" }
[[sources]]
name = "table"
path = "table"
buckets = 2
columns = { id = "id" }
"""
_CHAT_TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}"
    "{% endfor %}"
)


def test_chats_pairs_token_ids_and_delta_tables_are_attributed_side_by_side(private_project: TinyProject) -> None:
    from deltalake import write_deltalake

    root = private_project.root
    turns = [{"role": "user", "content": "why a file"}, {"role": "assistant", "content": "it ends"}]
    (root / "chat.jsonl").write_text(json.dumps({"messages": turns}) + "\n" + json.dumps({"messages": turns[:1]}))
    ids = {"input_ids": [[5, 6, 7, 8], [9, 10, 300_000]], "labels": [[-100, 6, -100, 8], [9, 10, 11]]}
    pq.write_table(pa.table(ids), root / "tokens.parquet")
    pq.write_table(pa.table({"question": ["a file", "its"], "answer": [" ends", " block"]}), root / "pairs.parquet")
    texts = pa.table({"id": [f"row-{i}" for i in range(20)], "text": ["a file fails by an error"] * 20})
    write_deltalake(str(root / "table"), texts)
    for name in CHECKPOINTS:
        (root / "checkpoints" / name / "chat_template.jinja").write_text(_CHAT_TEMPLATE)
    (root / "lorif.toml").write_text(_SOURCES + (root / "lorif.toml").read_text())
    project = TinyProject.open(root, private_project.instance).with_settings(
        active={"checkpoints": "newest"}, data={"max_rejected_share": 0.5}
    )
    project.update()

    rows = project.table(GRADIENT_FACTORS, checkpoint=CHECKPOINTS[1])
    counts = dict(rows.group_by(pl.col("shard").str.extract(r"^([a-z]+)")).len().iter_rows())
    assert counts == {"docs": 36, "chat": 1, "tokens": 1, "pairs": 2, "table": 20}
    (tokens,) = rows.filter(pl.col("shard") == "tokens-00000")["n_target_tokens"]
    assert tokens == 2
    reasons = dict(project.table(REJECTED).select("part", "reason").iter_rows())
    assert "no assistant message" in reasons["chat-00000"]
    assert "token id 300000 does not fit the model" in reasons[f"{CHECKPOINTS[1]}|tokens-00000"]
    summary = project.figures("query_scores", f"{CHECKPOINTS[1]}|{QUERY_SET}")
    assert summary["examples_scanned"] == 60
    assert project.update() == {}


@pytest.mark.slow
def test_a_project_whose_lake_is_in_an_object_store_gives_the_same_scores(
    private_project: TinyProject, object_store: Lake, tmp_path: Path
) -> None:
    def with_lake(root: str, options: dict[str, str]) -> TinyProject:
        lake = private_project.settings.lake.model_copy(update={"root": root, "storage_options": options})
        settings = private_project.settings.model_copy(update={"lake": lake})
        return replace(private_project, settings=settings, opened=Project.of(settings))

    remote, local = with_lake(object_store.root, object_store.storage_options), with_lake(str(tmp_path / "lake"), {})
    updated = remote.update()
    assert "query_scores" in updated
    assert updated == local.update()
    assert remote.update() == {}
    order = ["checkpoint", "query_id", "side", "rank"]
    assert remote.table(QUERY_SCORES).sort(order).equals(private_project.table(QUERY_SCORES).sort(order))
    assert all(uri.startswith("s3://lake/project/reports/") for uri in remote.table(REPORTS)["uri"])
