"""Attribution in memory: the lake's scores without a lake, for examples in any form."""

import json
import shutil

import dagster as dg
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from datasets import Dataset

import lorif_assets
from lorif_assets.api import fitted
from lorif_assets.config.recipe import Recipe
from lorif_assets.errors import SettingsError, SourceError, UnsoundQueryError
from lorif_assets.lake.attribution_tables import QUERY_SCORES
from lorif_assets.models.devices import DeviceGroup
from tests.conftest import CHECKPOINTS, QUERY_SET, SHARDS, TinyProject, tiny_tokenizer
from tests.models.tiny_adapters import with_peft, write_adapter, write_base

NEWEST = CHECKPOINTS[-1]
LAYERS = [f"transformer.h.{n}.{name}" for n in (0, 1) for name in ("attn.c_attn", "mlp.c_fc")]
TEXTS = [
    "the with statement opens a file",
    "a file closes by an error",
    "its block ends",
    "the block fails by an error",
]


def loaded(project):
    """The newest checkpoint, as a caller of transformers has it."""
    checkpoints = project.opened.checkpoints
    files = checkpoints.get(NEWEST)
    return checkpoints.load_model(files, "float32", DeviceGroup.of("cpu")), checkpoints.load_tokenizer(files)


def source_rows(project, *shards):
    """The rows of the source files; the malformed line and the empty row at the end of the last are left out."""
    lines = [line for n in shards for line in (project.root / f"data/{n:05d}.jsonl").read_text().splitlines()[:12]]
    return [json.loads(line) for line in lines]


def queries(project):
    return [json.loads(line) for line in (project.root / f"queries/{QUERY_SET}.jsonl").read_text().splitlines()]


def stored_matrix(project, fitted_model, query_ids):
    """The lake's scores of every pair, as a matrix."""
    with_all = project.with_settings(recipe={"top_k": "all"})
    with_all.run("query_scores", f"{NEWEST}|{QUERY_SET}")
    table = project.table(QUERY_SCORES, checkpoint=NEWEST, query_set=QUERY_SET)
    by_pair = {
        (query, example): score for query, example, score in table.select("query_id", "example_id", "score").iter_rows()
    }
    return np.array([[by_pair[query, example] for example in fitted_model.example_ids] for query in query_ids])


@pytest.fixture(params=["svd", "ekfac"])
def one_shard(request, tmp_path):
    """A project whose data are one shard."""
    stored = request.getfixturevalue({"svd": "tiny_project", "ekfac": "ekfac_project"}[request.param])
    root = tmp_path / "project"
    shutil.copytree(stored.root, root, ignore=shutil.ignore_patterns("dagster", "lake"))
    for n in range(1, len(SHARDS)):
        (root / f"data/{n:05d}.jsonl").unlink()
    with dg.DagsterInstance.ephemeral() as instance:
        project = TinyProject.open(root, instance)
        project = project.with_settings(active={"checkpoints": "newest"})
        project.update()
        yield project


def test_scores_are_those_of_a_lake_of_the_same_data_and_recipe(one_shard, monkeypatch):
    """Factors, bases and eigenvalues are equal bit for bit; what is left is the last digits of FP32.

    A product of a matrix that was read from a file adds in another order than of one that lies column by column, and the lake
    keeps a shard's sums of squares in FP32.
    """
    # Which examples the bases are fitted to, and in which order, is drawn by the shard's name.
    monkeypatch.setattr(fitted, "_EXAMPLES", SHARDS[0])
    found = lorif_assets.fit(*loaded(one_shard), source_rows(one_shard, 0), one_shard.settings.recipe)
    (stored_rows,) = one_shard.lake.stream_factors(one_shard.lake.factor_files(NEWEST), ["example_id", *LAYERS], 100)
    assert stored_rows[1]["example_id"].to_pylist() == list(found.example_ids)
    for layer in LAYERS:
        held = [bytes(row) for row in found._held.factors[layer].numpy()]
        assert stored_rows[1][layer].to_pylist() == held
    asked = queries(one_shard)
    stored = stored_matrix(one_shard, found, [query["id"] for query in asked])
    np.testing.assert_allclose(found.scores(asked), stored, rtol=1e-5, atol=1e-5 * np.abs(stored).max())


def test_scores_are_those_of_a_lake_of_several_shards(private_project):
    """Batches and blocks that end with a shard add the same numbers in another order."""
    rows = [row for n in range(len(SHARDS)) for row in source_rows(private_project, n)]
    found = lorif_assets.fit(*loaded(private_project), rows, private_project.settings.recipe)
    asked = queries(private_project)
    stored = stored_matrix(private_project, found, [query["id"] for query in asked])
    assert len(found.example_ids) == 36
    np.testing.assert_allclose(found.scores(asked), stored, rtol=1e-3, atol=1e-3 * np.abs(stored).max())


def test_answers_list_what_the_scores_rank_highest_and_lowest(tiny_project):
    found = lorif_assets.fit(*loaded(tiny_project), source_rows(tiny_project, 0, 1), tiny_project.settings.recipe)
    scores = found.scores(queries(tiny_project))
    for row, answer in zip(scores, found.attribute(queries(tiny_project), top_k=3), strict=True):
        order = np.argsort(-row)
        assert answer.proponents["example_id"].to_list() == [found.example_ids[at] for at in order[:3]]
        assert answer.opponents["example_id"].to_list() == [found.example_ids[at] for at in order[:-4:-1]]
        assert answer.proponents["score"].to_list() == row[order[:3]].tolist()
        assert answer.n_examples == 24
    whole = found.attribute(queries(tiny_project), top_k="all")[1]
    assert whole.table.height == 24
    assert whole.table["metadata"][0].startswith('{"topic": ')


def test_one_call_does_both_and_memory_for_few_queries_at_a_time_changes_nothing(tiny_project):
    model, tokenizer = loaded(tiny_project)
    little = lorif_assets.BatchSettings(query_mib=1)
    asked = [
        {"prompt": "the with", "completion": f" opens {word}"} for word in ("a file", "its block", "an error")
    ] * 30
    recipe = {"projection_factor": 1, "factor_dtype": "int8", "rank": 2, "rank_by_layer": False}
    some = lorif_assets.attribute(model, tokenizer, TEXTS, asked, recipe, top_k=2, batch=little)
    most = lorif_assets.attribute(model, tokenizer, TEXTS, asked, recipe, top_k=2)
    assert len(some) == len(most) == 90
    for one, other in zip(some, most, strict=True):
        assert one.table["example_id"].to_list() == other.table["example_id"].to_list()
        assert one.table["score"].to_list() == pytest.approx(other.table["score"].to_list(), rel=1e-3)


@pytest.mark.parametrize(
    "form",
    [
        lambda texts: [{"text": text} for text in texts],
        iter,
        lambda texts: pl.DataFrame({"text": texts}),
        lambda texts: pa.table({"text": texts}),
        lambda texts: Dataset.from_dict({"text": texts}),
    ],
    ids=["mappings", "iterator", "polars", "arrow", "datasets"],
)
def test_every_form_of_the_same_texts_gives_the_same_scores(tiny_project, form):
    model, tokenizer = loaded(tiny_project)
    expected = lorif_assets.fit(model, tokenizer, TEXTS, "paper")
    found = lorif_assets.fit(model, tokenizer, form(TEXTS), "paper")
    assert found.example_ids == expected.example_ids == ("0", "1", "2", "3")
    assert np.array_equal(found.scores(TEXTS[:1]), expected.scores(TEXTS[:1]))


def test_chats_prompts_and_token_ids_are_read_as_in_a_source(tiny_project):
    model, tokenizer = loaded(tiny_project)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    chat = [
        {"messages": [{"role": "user", "content": "a file"}, {"role": "assistant", "content": text}]} for text in TEXTS
    ]
    (answer,) = lorif_assets.attribute(model, tokenizer, chat, chat[:1], "paper")
    assert (answer.prompt, answer.completion) == ("[user] a file\n\n[assistant] ", TEXTS[0])
    assert answer.table["text"][0].startswith("[user] a file")
    ids = [{"input_ids": tokenizer(text)["input_ids"], "id": f"n{n}", "topic": "x"} for n, text in enumerate(TEXTS)]
    found = lorif_assets.fit(model, tokenizer, ids, "paper")
    assert found.example_ids == ("n0", "n1", "n2", "n3")
    assert found.attribute(["a file closes"])[0].table["metadata"][0] == '{"topic": "x"}'


def test_eos_follows_the_examples_and_not_the_queries(tiny_project):
    model, tokenizer = loaded(tiny_project)
    ids = [tokenizer(text)["input_ids"] for text in TEXTS]
    ended = [{"input_ids": [*one, tokenizer.eos_token_id]} for one in ids]
    found, expected = (lorif_assets.fit(model, tokenizer, some, "paper") for some in (TEXTS, ended))
    assert np.array_equal(found.scores(TEXTS), expected.scores([{"input_ids": one} for one in ids]))
    assert not np.array_equal(found.scores(TEXTS), found.scores(ended))


def test_columns_of_other_names_are_named_as_in_the_settings(tiny_project):
    rows = [{"key": name, "body": text} for name, text in zip("abcd", TEXTS, strict=True)]
    columns = lorif_assets.Columns(id="key", text="body")
    found = lorif_assets.fit(*loaded(tiny_project), rows, "paper", columns=columns)
    assert found.example_ids == tuple("abcd")


def test_the_model_is_left_as_it_was(tiny_project):
    model, tokenizer = loaded(tiny_project)
    model.train()
    model.lm_head.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lorif_assets.attribute(model, tokenizer, TEXTS, ["a file closes"], "paper")
    assert model.training
    assert not model.lm_head.weight.requires_grad
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    "recipe",
    [{}, {"curvature": "kfac"}, {"curvature": "svd", "factor_dtype": "fp32"}, {"query_rank": 2}],
    ids=["ekfac", "kfac", "svd", "at a rank"],
)
def test_a_model_in_fp64_gives_the_scores_of_the_same_model_in_fp32(tiny_project, recipe):
    model, tokenizer = loaded(tiny_project)
    recipe = {"projection_factor": 2, "rank": 2, "rank_by_layer": False, **recipe}
    expected = lorif_assets.fit(model, tokenizer, TEXTS, recipe).scores(TEXTS)
    found = lorif_assets.fit(model.double(), tokenizer, TEXTS, recipe).scores(TEXTS)
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


def test_examples_that_cannot_be_used_are_set_aside_and_told(tiny_project, caplog):
    # With EOS behind it, one token has another to predict.
    recipe = {"preset": "paper", "append_eos": False}
    found = lorif_assets.fit(*loaded(tiny_project), [*TEXTS, " ", "x"], recipe)
    assert found.rejected.select("example_id", "row").rows() == [("4", 4), ("5", 5)]
    assert len(found.example_ids) == 4
    assert "2 examples are set aside; row 4: text is empty" in caplog.text


def test_a_prompt_that_is_too_long_costs_an_example_its_loss_but_never_a_query(tiny_project):
    model, tokenizer = loaded(tiny_project)
    pair = {"prompt": "the with statement opens a file and closes it " * 5, "completion": " by an error"}
    rows = [{"prompt": "a file", "completion": " closes"}, {"prompt": "its block", "completion": " ends"}, pair]
    recipe = Recipe(max_length=12, curvature="svd", r=1)
    found = lorif_assets.fit(model, tokenizer, rows, recipe)
    assert len(found.example_ids) == 2
    assert "no target token left in the 12 of" in found.rejected["reason"][0]
    assert np.isfinite(found.scores([pair])).all()
    of_the_end = lorif_assets.fit(model, tokenizer, rows, recipe.changed(truncation="keep_end"))
    assert len(of_the_end.example_ids) == 3


def test_what_cannot_be_done_says_why(tiny_project):
    model, tokenizer = loaded(tiny_project)
    with pytest.raises(SettingsError, match="the recipe's recall is 'influcoder', which needs a lake"):
        lorif_assets.fit(model, tokenizer, TEXTS, Recipe(recall="influcoder"))
    with pytest.raises(SourceError, match="the examples are one str; expected a list of texts"):
        lorif_assets.fit(model, tokenizer, TEXTS[0])
    with pytest.raises(SourceError, match="there are no examples"):
        lorif_assets.fit(model, tokenizer, [])
    with pytest.raises(SourceError, match="row 1 of the examples is a int"):
        lorif_assets.fit(model, tokenizer, ["a file", 3])
    with pytest.raises(SourceError, match="no example can be used with this tokenizer; the first: no target token"):
        lorif_assets.fit(model, tokenizer, ["x"], {"append_eos": False})
    found = lorif_assets.fit(model, tokenizer, TEXTS, "paper")
    with pytest.raises(SourceError, match="query 1 cannot be scored: no target token"):
        found.attribute(["a file closes", "x"])
    with pytest.raises(SourceError, match="query 1 cannot be scored: text is empty"):
        found.scores(["a file closes", ""])
    with torch.no_grad():
        model.transformer.wte.weight.fill_(torch.nan)
    with pytest.raises(UnsoundQueryError, match="query '0' is not finite"):
        found.attribute(["a file closes"])


@pytest.mark.parametrize(
    ("recipe", "field"),
    [
        ({"rank": 0}, "rank: .* greater than or equal to 1 .found 0."),
        ({"rnak": 2}, "rnak: there is no such setting; did you mean `rank`"),
        ("papr", "preset: .*'paper'.*'papr'"),
        ({"top_k": 0}, "`top_k` is a positive number"),
        (3, "settings: "),
    ],
)
def test_a_wrong_recipe_names_the_field(tiny_project, recipe, field):
    model, tokenizer = loaded(tiny_project)
    for ask in (lorif_assets.fit, lambda *given: lorif_assets.attribute(*given[:3], TEXTS[:1], given[3])):
        with pytest.raises(SettingsError, match=rf"the recipe has 1 wrong setting\(s\):\n  .*{field}"):
            ask(model, tokenizer, TEXTS, recipe)


def test_a_layer_that_no_pattern_matches_is_an_error_of_the_package(tiny_project):
    with pytest.raises(lorif_assets.LorifError, match="layer pattern 'nothing' matches none"):
        lorif_assets.fit(*loaded(tiny_project), TEXTS, {"include_layers": ["nothing"]})


@pytest.mark.parametrize("top_k", [0, -1, "some"])
def test_examples_to_list_are_a_positive_number_or_all(tiny_project, top_k):
    model, tokenizer = loaded(tiny_project)
    asked = lorif_assets.fit(model, tokenizer, TEXTS, "paper").attribute
    for ask in (asked, lambda queries, top_k: lorif_assets.attribute(model, tokenizer, TEXTS, queries, top_k=top_k)):
        with pytest.raises(SettingsError, match=f'`top_k` is a positive whole number or "all", found {top_k!r}'):
            ask(TEXTS[:1], top_k=top_k)


def test_the_reason_for_too_few_examples_is_that_of_the_rows_set_aside(tiny_project):
    alike = [{"id": "a", "text": text} for text in TEXTS[:2]]
    with pytest.raises(
        SourceError, match=r"only one example can be used, .* row 1: duplicate id: row 0 has it already"
    ):
        lorif_assets.fit(*loaded(tiny_project), alike)


def test_a_pandas_table_gives_the_scores_of_its_texts(tiny_project):
    model, tokenizer = loaded(tiny_project)
    expected = lorif_assets.fit(model, tokenizer, TEXTS, "paper").scores(TEXTS[:2])
    found = lorif_assets.fit(model, tokenizer, pd.DataFrame({"text": TEXTS}), "paper")
    assert np.array_equal(found.scores(pd.DataFrame({"text": TEXTS[:2]})), expected)


def test_it_says_what_it_holds(tiny_project):
    found = lorif_assets.fit(*loaded(tiny_project), TEXTS, tiny_project.settings.recipe)
    assert (
        repr(found)
        == f"FittedModel(GPT2LMHeadModel, 4 examples, 4 layers, svd, {found.bytes_per_example} bytes per example)"
    )
    assert found.bytes_per_example > 0


def test_a_models_adapter_counts_as_merged_or_by_its_own_matrices(tmp_path):
    tokenizer = tiny_tokenizer()
    base = write_base(tmp_path / "base", tokenizer)
    adapter = write_adapter(tmp_path / "adapter", base)
    rows = ["the with statement opens a file", "a file closes", "its block ends or fails", "an error"]
    query = {"prompt": "the with statement", "completion": " opens a file"}
    recipe = {"curvature": "svd", "factor_dtype": "fp32", "r": 2, "projection_factor": 1}

    def scores(model, **fields):
        (answer,) = lorif_assets.attribute(model, tokenizer, rows, [query], {**recipe, **fields}, top_k="all")
        return answer.table.sort("example_id")["score"].to_list()

    merged = scores(with_peft(base, adapter).merge_and_unload())
    assert scores(with_peft(base, adapter)) == pytest.approx(merged, rel=1e-3)
    assert scores(with_peft(base, adapter), track="adapter") != pytest.approx(merged, rel=1e-2)


def test_in_memory_tokens_have_the_shares_that_the_lake_gives(tiny_project):
    project = tiny_project
    model, tokenizer = loaded(project)
    recipe = project.settings.recipe
    fitted_model = lorif_assets.fit(model, tokenizer, source_rows(project, 0, 1, 2), recipe)
    (question, *_) = queries(project)
    (answer,) = fitted_model.attribute([question], top_k=3, tokens=1)
    with lorif_assets.open(project.root / "lorif.toml") as opened:
        stored = opened.attribute(question["prompt"], question["completion"], top_k=3, tokens=1)
    by = ["example_id", "side", "position"]
    found, expected = (one.tokens.sort(by).select(*by, "token", "score") for one in (answer, stored))
    assert found.drop("score").equals(expected.drop("score"))
    np.testing.assert_allclose(found["score"].fill_null(0), expected["score"].fill_null(0), rtol=1e-3, atol=1e-4)


def test_an_answer_in_memory_says_what_was_cut_of_its_query(tiny_project):
    fitted_model = lorif_assets.fit(*loaded(tiny_project), TEXTS, {"max_length": 16})
    cut, whole = fitted_model.attribute(["the with statement opens a file and " * 4, "a file closes by an error"])
    assert "at most 16 are kept" in cut.notice
    assert whole.notice is None
