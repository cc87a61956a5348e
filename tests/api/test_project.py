"""A project asked from Python."""

import math
import shutil

import numpy as np
import polars as pl
import pytest

import lorif_assets
from lorif_assets.api import project as api_project
from lorif_assets.api.project import OpenProject
from lorif_assets.errors import (
    CheckpointError,
    LorifError,
    MismatchError,
    NotStoredError,
    SettingsError,
    SourceError,
)
from lorif_assets.lake.attribution_tables import QUERY_SCORES, QUERY_SUMMARIES, SVD_PRECONDITIONERS
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.lake.lake import Lake
from lorif_assets.models.checkpoints import Checkpoints
from tests.conftest import CHECKPOINTS, QUERY_SET, SHARDS

PROMPT, COMPLETION = "the with statement", " opens a file"
OLDEST, NEWEST = CHECKPOINTS


@pytest.fixture(params=["svd", "ekfac"])
def stored(request):
    return request.getfixturevalue({"svd": "tiny_project", "ekfac": "ekfac_project"}[request.param])


@pytest.fixture
def loads(monkeypatch):
    """The checkpoints that were loaded, one after the other."""
    names, load_model = [], Checkpoints.load_model

    def counted(self, files, dtype, devices, track):
        names.append(files.name)
        return load_model(self, files, dtype, devices, track)

    monkeypatch.setattr(Checkpoints, "load_model", counted)
    return names


def test_an_answer_is_what_the_lake_stores_for_the_same_query(stored):
    with lorif_assets.open(stored.root / "lorif.toml") as project:
        answer = project.attribute(PROMPT, COMPLETION, top_k=5)
    rows = stored.table(QUERY_SCORES, checkpoint=NEWEST, query_id="q0").sort("side", "rank")
    # The query set's other queries, asked together with this one, make matrices of another shape.
    found = answer.table.sort("side", "rank")
    assert found["example_id"].to_list() == rows["example_id"].to_list()
    assert found["score"].to_list() == pytest.approx(rows["score"].to_list(), rel=1e-4)
    (summary,) = stored.table(QUERY_SUMMARIES, checkpoint=NEWEST, query_id="q0").to_dicts()
    assert answer.loss == pytest.approx(summary["loss"], rel=1e-5)
    assert answer.figures["score_std"] == pytest.approx(summary["score_std"], rel=1e-4)
    assert (answer.checkpoint, answer.n_examples, answer.prompt, answer.completion) == (NEWEST, 36, PROMPT, COMPLETION)
    assert answer.loss_per_token == answer.loss / answer.n_target_tokens


def test_a_chat_is_asked_about_through_the_chat_template(tiny_project, monkeypatch):
    load = Checkpoints.load_tokenizer

    def load_with_template(self, files):
        tokenizer = load(self, files)
        tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
        return tokenizer

    monkeypatch.setattr(Checkpoints, "load_tokenizer", load_with_template)
    chat = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": COMPLETION}]
    with lorif_assets.open(tiny_project.root / "lorif.toml") as project:
        whole = project.attribute(PROMPT, COMPLETION)
        answers = [project.attribute_chat(form) for form in (chat, {"messages": chat, "tools": None})]
        with pytest.raises(SourceError, match="the chat: no assistant message with content"):
            project.attribute_chat(chat[:1])
    for answer in answers:
        assert answer.table.equals(whole.table)
        assert (answer.loss, answer.n_target_tokens) == (whole.loss, whole.n_target_tokens)
        assert (answer.prompt, answer.completion) == (f"[user] {PROMPT}\n\n[assistant] ", COMPLETION)


def test_a_chat_template_that_writes_today_is_told_the_date_of_the_recipe(tiny_project, monkeypatch):
    load = Checkpoints.load_tokenizer

    def load_with_template(self, files):
        tokenizer = load(self, files)
        tokenizer.chat_template = "{{ strftime_now('%d %b %Y ') }}{% for m in messages %}{{ m.content }}{% endfor %}"
        return tokenizer

    monkeypatch.setattr(Checkpoints, "load_tokenizer", load_with_template)
    chat = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": COMPLETION}]
    with lorif_assets.open(tiny_project.root / "lorif.toml") as project:
        answer = project.attribute_chat(chat)
        assert answer.table.equals(project.attribute(f"26 Jul 2024 {PROMPT}", COMPLETION).table)


def test_an_answer_has_the_examples_texts_and_metadata(tiny_project):
    with lorif_assets.open(tiny_project.root / "lorif.toml") as project:
        table = project.attribute(PROMPT, COMPLETION, top_k=2).table
    assert table.columns == ["side", "rank", "score", "shard", "example_id", "text", "metadata"]
    texts = dict(tiny_project.table(TRAINING_EXAMPLES).select("example_id", "text").iter_rows())
    assert table["text"].to_list() == [texts[name] for name in table["example_id"]]
    assert set(table["metadata"]) <= {'{"topic": "with"}', '{"topic": "files"}'}


def test_every_example_can_be_asked_for_and_has_two_ends(tiny_project):
    with lorif_assets.open(tiny_project.root / "lorif.toml") as project:
        answer = project.attribute(PROMPT, COMPLETION, top_k="all")
    assert answer.table.height == 36
    assert answer.proponents["score"].is_sorted(descending=True)
    assert answer.opponents["score"].is_sorted()
    assert answer.opponents["rank"][0] == 1


def test_an_answer_shows_itself_in_text_and_html_and_no_text_is_markup(tiny_project):
    with lorif_assets.open(tiny_project.root / "lorif.toml") as project:
        answer = project.attribute("<b>", COMPLETION)
    assert repr(answer).startswith("Attribution of '<b> opens a file'\n  step-000200: loss ")
    assert "proponents:" in repr(answer)
    html = answer._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    assert answer.proponents["example_id"][0] in html


def test_the_model_is_loaded_once_and_again_only_for_another_checkpoint(tiny_project, loads):
    with lorif_assets.open(tiny_project.root / "lorif.toml") as project:
        first = project.attribute(PROMPT, COMPLETION)
        assert project.attribute(PROMPT, COMPLETION).table.equals(first.table)
        project.attribute("", "a file fails")
        assert loads == [NEWEST]
        assert project.attribute(PROMPT, COMPLETION, checkpoint=OLDEST).checkpoint == OLDEST
        assert loads == [NEWEST, OLDEST]


def test_a_second_question_reads_no_factors_and_no_curvature_again(stored, monkeypatch):
    reads = []
    open_factors, load_tensors = Lake.open_factors, Lake._loaded
    monkeypatch.setattr(Lake, "open_factors", lambda *of: reads.append(of) or open_factors(*of))
    monkeypatch.setattr(Lake, "_loaded", lambda *of: reads.append(of) or load_tensors(*of))
    with lorif_assets.open(stored.root / "lorif.toml") as project:
        first = project.attribute(PROMPT, COMPLETION)
        assert reads
        del reads[:]
        assert project.attribute(PROMPT, COMPLETION).table.equals(first.table)
        assert reads == []


def test_nothing_is_kept_where_the_settings_say_so(tiny_project, monkeypatch):
    monkeypatch.setenv("LORIF_BATCH__KEPT_MIB", "0")
    reads, open_factors = [], Lake.open_factors
    monkeypatch.setattr(Lake, "open_factors", lambda *of: reads.append(of) or open_factors(*of))
    with lorif_assets.open(tiny_project.root / "lorif.toml") as project:
        project.attribute(PROMPT, COMPLETION)
        once = len(reads)
        project.attribute(PROMPT, COMPLETION)
    assert len(reads) == 2 * once > 0


@pytest.mark.parametrize(
    ("kept_mib", "kept"), [(None, 25 << 20), (0, 0), (40, 40 << 20), (50, 50 << 20), (4_096, 50 << 20)]
)
def test_what_is_kept_fits_the_memory_that_is_free_when_the_project_is_opened(
    tiny_project, monkeypatch, kept_mib, kept
):
    monkeypatch.setattr(api_project, "host_memory", lambda: 100 << 20)
    if kept_mib is not None:
        monkeypatch.setenv("LORIF_BATCH__KEPT_MIB", str(kept_mib))
    with lorif_assets.open(tiny_project.root / "lorif.toml") as project:
        assert project.project.lake.kept.budget_bytes == kept


def test_what_is_kept_of_an_older_version_of_the_lake_is_let_go_of_at_the_next_question(private_project):
    with lorif_assets.open(private_project.root / "lorif.toml") as project:
        project.attribute(PROMPT, COMPLETION)
        private_project.edit_shard(0, 0, "the with statement opens a file, always and again")
        private_project.update()
        project.attribute(PROMPT, COMPLETION)
        kept = project.project.lake.kept.kept_bytes
    with lorif_assets.open(private_project.root / "lorif.toml") as anew:
        anew.attribute(PROMPT, COMPLETION)
        assert anew.project.lake.kept.kept_bytes == kept > 0


def test_a_closed_project_loads_again_when_it_is_asked(tiny_project, loads):
    project = lorif_assets.open(tiny_project.root / "lorif.toml")
    project.attribute(PROMPT, COMPLETION)
    project.close()
    project.attribute(PROMPT, COMPLETION)
    assert loads == [NEWEST, NEWEST]


def test_the_device_is_free_between_questions(tiny_project):
    with lorif_assets.open(tiny_project.root / "lorif.toml") as project:
        project.attribute(PROMPT, COMPLETION)
        with tiny_project.opened.devices.lease() as group:
            assert len(group) == 1


def test_the_next_answer_has_what_the_lake_was_given_meanwhile(private_project, loads):
    with lorif_assets.open(private_project.root / "lorif.toml") as project:
        before = project.attribute(PROMPT, COMPLETION)
        private_project.edit_shard(0, 0, "the with statement opens a file, always and again")
        private_project.update()
        del loads[:]
        after = project.attribute(PROMPT, COMPLETION)
    assert loads == []
    assert not after.table.equals(before.table)
    with lorif_assets.open(private_project.root / "lorif.toml") as anew:
        assert anew.attribute(PROMPT, COMPLETION).table.equals(after.table)


def test_a_checkpoint_written_again_is_refused_until_it_is_attributed_and_then_loaded(private_project, loads):
    folder = private_project.root / "checkpoints"
    with lorif_assets.open(private_project.root / "lorif.toml") as project:
        project.attribute(PROMPT, COMPLETION)
        shutil.copy(folder / OLDEST / "model.safetensors", folder / NEWEST / "model.safetensors")
        with pytest.raises(MismatchError, match=r"the weights of checkpoint 'step-000200' .* changed since"):
            project.attribute(PROMPT, COMPLETION)
        private_project.update()
        del loads[:]
        found = project.attribute(PROMPT, COMPLETION, checkpoint=NEWEST)
        assert loads == [NEWEST]
        assert found.loss == project.attribute(PROMPT, COMPLETION, checkpoint=OLDEST).loss


def test_an_example_that_was_withdrawn_meanwhile_has_no_text(private_project):
    nothing = TRAINING_EXAMPLES.columns.empty_table()
    for shard in SHARDS:
        private_project.lake.replace(TRAINING_EXAMPLES, {"shard": shard}, nothing)
    with lorif_assets.open(private_project.root / "lorif.toml") as project:
        answer = project.attribute(PROMPT, COMPLETION)
    assert answer.table["text"].null_count() == answer.table.height
    assert "(no longer in the training data)" in repr(answer)
    assert "(no longer in the training data)" in answer._repr_html_()


def test_checkpoints_queries_and_scores_are_those_of_the_lake(tiny_project):
    project = lorif_assets.open(tiny_project.root / "lorif.toml")
    assert project.checkpoints == CHECKPOINTS
    assert project.queries.columns == ["query_set", "query_id", "text", "metadata"]
    assert project.queries["text"].to_list()[0] == PROMPT + COMPLETION
    scores = project.scores(NEWEST, QUERY_SET)
    assert scores.columns == ["query_id", "side", "rank", "score", "shard", "example_id"]
    assert scores.height == tiny_project.table(QUERY_SCORES, checkpoint=NEWEST).height
    with pytest.raises(MismatchError, match=r"no scores of the query set 'none' .*; it has step-000100 questions, "):
        project.scores(NEWEST, "none")


def test_status_says_what_is_out_of_date_and_why(private_project):
    project = lorif_assets.open(private_project.root / "lorif.toml")
    status = project.status()
    assert status["asset"][0] == "training_examples"
    assert status["missing"].sum() == status["stale"].sum() == 0
    private_project.edit_shard(1, 0, "another text")
    (row,) = project.status().filter(pl.col("stale") > 0).to_dicts()
    assert (row["asset"], row["stale"], row["partition"]) == ("training_examples", 1, SHARDS[1])
    assert row["reason"]


@pytest.mark.parametrize("top_k", [0, -1, 2.5, True, None, "some"])
def test_examples_to_list_are_a_positive_number_or_all(tiny_project, loads, top_k):
    with pytest.raises(SettingsError, match=f'`top_k` is a positive whole number or "all", found {top_k!r}'):
        OpenProject(tiny_project.opened).attribute(PROMPT, COMPLETION, top_k=top_k)
    assert loads == []


def test_a_number_of_numpy_is_a_number_of_examples(tiny_project):
    with lorif_assets.open(tiny_project.root) as project:
        assert project.attribute(PROMPT, COMPLETION, top_k=np.int64(2)).proponents.height == 2


def test_a_project_is_opened_by_its_file_or_its_folder_and_home_is_known(tiny_project, monkeypatch):
    monkeypatch.setenv("HOME", str(tiny_project.root.parent))
    monkeypatch.setenv("LORIF_CONFIG", "elsewhere.toml")
    home = f"~/{tiny_project.root.name}"
    for path in (tiny_project.root, str(tiny_project.root / "lorif.toml"), home, f"{home}/lorif.toml"):
        assert lorif_assets.open(path).checkpoints == CHECKPOINTS


def test_a_project_without_settings_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LORIF_CONFIG", raising=False)
    with pytest.raises(
        SettingsError, match=r"no settings file: neither .*lorif\.toml nor the demo's; write one \(`lorif init`\)"
    ):
        lorif_assets.open()
    for path in (tmp_path, "lorif.toml"):
        with pytest.raises(SettingsError) as refused:
            lorif_assets.open(path)
        assert f"{tmp_path / 'lorif.toml'}; write one (`lorif init`) or give another path" in str(refused.value)
    monkeypatch.setenv("LORIF_CONFIG", "gone.toml")
    with pytest.raises(SettingsError, match=r"gone\.toml; write one .* or correct \$LORIF_CONFIG"):
        lorif_assets.open()


def test_what_cannot_be_asked_says_why(tiny_project, private_project, tmp_path):
    with pytest.raises(SettingsError, match="there is no settings file"):
        lorif_assets.open(tmp_path / "lorif.toml")
    project = OpenProject(tiny_project.opened)
    with pytest.raises(SourceError, match="the completion cannot be scored: no target token"):
        project.attribute("", "")
    with pytest.raises(SourceError, match="the completion is a NoneType; expected a text"):
        project.attribute(PROMPT, None)
    with pytest.raises(
        CheckpointError, match=f"'step-9' cannot be asked: .* those that can be: {', '.join(CHECKPOINTS)}"
    ):
        project.attribute(PROMPT, COMPLETION, checkpoint="step-9")
    with pytest.raises(CheckpointError, match="'step-9' cannot be asked"):
        project.attribute_chat([{"role": "assistant", "content": COMPLETION}], checkpoint="step-9")
    shutil.rmtree(private_project.root / "lake" / SVD_PRECONDITIONERS.name)
    empty = OpenProject(private_project.opened)
    assert empty.checkpoints == ()
    with pytest.raises(LorifError, match="no checkpoint is attributed yet"):
        empty.attribute(PROMPT, COMPLETION)


def test_a_stored_query_is_asked_about_again_to_list_every_example(tiny_project):
    with lorif_assets.open(tiny_project.root / "lorif.toml") as project:
        answer = project.attribute_stored_query(QUERY_SET, "q0", top_k="all")
        assert answer.table.height == 36
        assert answer.table.equals(project.attribute(answer.prompt, answer.completion, top_k="all").table)
        with pytest.raises(NotStoredError, match="no query 'x' in the query set 'questions'"):
            project.attribute_stored_query(QUERY_SET, "x")


def test_a_checkpoint_is_loaded_ahead_of_the_first_question(tiny_project, loads):
    with lorif_assets.open(tiny_project.root / "lorif.toml") as project:
        assert project.load() == NEWEST
        assert loads == [NEWEST]
        project.attribute(PROMPT, COMPLETION)
    assert loads == [NEWEST]


def test_tokens_of_leading_pairs_are_scored_where_they_are_asked_for(stored):
    with lorif_assets.open(stored.root / "lorif.toml") as project:
        without = project.attribute(PROMPT, COMPLETION, top_k=4)
        answer = project.attribute(PROMPT, COMPLETION, top_k=4, tokens=2)
    assert without.tokens.is_empty()
    assert answer.table.equals(without.table)
    leading = answer.table.filter(pl.col("rank") <= 2)
    pairs = answer.tokens.select("shard", "example_id", stored_score="stored_score").unique().sort("example_id")
    assert pairs.equals(leading.select("shard", "example_id", stored_score="score").unique().sort("example_id"))
    sums = answer.tokens.group_by("example_id", "side").agg(pl.col("score").sum(), pl.col("exact_score").first())
    assert sums["score"].to_list() == pytest.approx(sums["exact_score"].to_list(), rel=1e-3, abs=1e-4)
    of_query = answer.tokens.filter(pl.col("side") == "query").sort("example_id", "position")
    assert "".join(of_query.head(of_query["position"].max() + 1)["token"]) == PROMPT + COMPLETION


@pytest.mark.parametrize("tokens", [-1, True, 1.5, "all"])
def test_what_is_no_number_of_pairs_is_refused(tiny_project, tokens):
    with (
        lorif_assets.open(tiny_project.root / "lorif.toml") as project,
        pytest.raises(SettingsError, match="`tokens` is a whole number"),
    ):
        project.attribute(PROMPT, COMPLETION, tokens=tokens)


def test_a_query_in_the_form_of_a_query_file_s_line_is_answered(tiny_project):
    row = {"id": "q", "prompt": PROMPT, "completion": COMPLETION}
    with lorif_assets.open(tiny_project.root / "lorif.toml") as project:
        plain = project.attribute(PROMPT, COMPLETION)
        same = project.attribute_query(row)
        contrast = project.attribute_query({**row, "against": " fails by an error"}, tokens=1)
        other = project.attribute(PROMPT, " fails by an error")
        with pytest.raises(SourceError, match=r"the query cannot be used: .* are both set"):
            project.attribute_query({**row, "against": " x", "span": "opens"})
        with pytest.raises(SourceError, match=r"set queries\.allow_scalars"):
            project.attribute_query({**row, "scalar": "os:getcwd"})
    assert same.table.equals(plain.table)
    assert contrast.loss == pytest.approx(plain.loss - other.loss, rel=1e-4)
    assert f"difference of the losses {contrast.loss:.2f} nats, 36 examples scored" in repr(contrast)
    assert "Opponents: training on them made the completion less likely than the other" in contrast._repr_html_()
    assert math.isnan(contrast.loss_per_token)
    assert (plain.as_json(1)["objective"], contrast.as_json(1)["objective"]) == ({}, {"against": " fails by an error"})
    assert contrast.tokens.filter(pl.col("side") == "query")["term"].unique().sort().to_list() == [0, 1]


def test_influence_is_summed_by_a_column_of_the_metadata(tiny_project):
    with lorif_assets.open(tiny_project.root / "lorif.toml") as project:
        answer = project.attribute(PROMPT, COMPLETION, top_k="all")
    by_topic = answer.by("topic")
    assert by_topic["n_examples"].to_list() == [18, 18]
    assert by_topic["score_sum"].sum() == pytest.approx(float(answer.table["score"].sum()), rel=1e-4, abs=1e-4)
    assert (by_topic["low"] < by_topic["score_sum"]).all()


def test_influence_of_the_two_ends_of_a_ranking_is_summed_without_an_interval(tiny_project):
    with lorif_assets.open(tiny_project.root / "lorif.toml") as project:
        by_topic = project.attribute(PROMPT, COMPLETION, top_k=5).by("topic")
    assert by_topic["n_examples"].sum() == 10
    assert by_topic.select("standard_error", "low", "high").null_count().row(0) == (by_topic.height,) * 3


def test_an_answer_says_what_was_cut_of_a_question_that_is_too_long(tiny_project):
    long = "the with statement opens a file and " * 12
    with lorif_assets.open(tiny_project.root / "lorif.toml") as project:
        cut = project.attribute(long, COMPLETION)
        whole = project.attribute(PROMPT, COMPLETION)
        contrast = project.attribute_query({"prompt": PROMPT, "completion": COMPLETION, "against": long})
        (shard, example), *_ = whole.table.select("shard", "example_id").iter_rows()
        tokens = project.attribute_tokens({"prompt": long, "completion": COMPLETION}, shard, example)
    assert cut.notice.startswith("What was asked is too long, and was cut: ")
    assert "at most 48 are kept" in cut.notice
    assert cut.notice in repr(cut)
    assert cut.as_json(1)["notice"] == cut.notice
    assert (whole.notice, whole.as_json(1)["notice"]) == (None, None)
    # Also where the other completion alone is too long.
    assert "at most 48 are kept" in contrast.notice
    said = dict(tokens.select("side", "cut").unique().iter_rows())
    assert "at most 48 are kept" in said["query"]
    assert said["example"] is None
