"""Whatever is renamed or cut otherwise, each row of the sources is scored once; what stays beside them is said and decided."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorif_assets.api.status import project_status
from lorif_assets.assets.graph import ASSETS
from lorif_assets.assets.training_examples import training_examples
from lorif_assets.automation.jobs import withdrawal
from lorif_assets.automation.materialization import bring_up_to_date
from lorif_assets.automation.withdrawal import keep
from lorif_assets.checks.data import stored_shards_have_sources
from lorif_assets.config.sources import Source
from lorif_assets.freshness.leftovers import Fate, Leftovers, leftover_shards
from lorif_assets.freshness.view import Freshness
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS, QUERY_SUMMARIES
from lorif_assets.lake.data_tables import KEPT_SHARDS, REJECTED, TRAINING_EXAMPLES
from lorif_assets.project import Project
from resources import dagster_resources
from tests.automation.test_re_attribution import evaluate
from tests.conftest import CHECKPOINTS, QUERY_SET, ROWS_PER_SHARD, SHARDS, TinyProject

N_ROWS = len(SHARDS) * ROWS_PER_SHARD


def with_source(project: TinyProject, **changes: object) -> TinyProject:
    """The project with some fields of its source changed, in its settings file."""
    (source,) = project.settings.sources
    changed = project.settings.model_copy(update={"sources": (source.model_copy(update=changes),)})
    return TinyProject(project.root, changed, Project.of(changed), project.instance)


def texts(project: TinyProject) -> Counter[str]:
    return Counter(project.table(TRAINING_EXAMPLES)["text"])


def check(project: TinyProject) -> dg.AssetCheckResult:
    opened = project.opened
    result = stored_shards_have_sources(project.settings, project.lake, opened.checkpoints)
    assert isinstance(result, dg.AssetCheckResult)
    return result


# --- Superseded ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda project: with_source(project, name="texts"), id="another name of the source"),
        pytest.param(lambda project: with_source(project, rows_per_shard=5), id="smaller shards"),
    ],
)
def test_a_source_that_is_renamed_or_cut_otherwise_is_scored_once(
    private_project: TinyProject, change: Callable[[TinyProject], TinyProject]
) -> None:
    before = texts(private_project)
    changed = change(private_project)
    changed.update()
    assert texts(changed) == before
    assert set(changed.table(GRADIENT_FACTORS)["shard"]) == set(changed.freshness.discovered.shards)
    summaries = changed.table(QUERY_SUMMARIES, checkpoint=CHECKPOINTS[-1], query_set=QUERY_SET)
    assert set(summaries["n_examples"]) == {N_ROWS}
    assert set(changed.table(REJECTED, stage="training_examples")["part"]) <= set(changed.freshness.discovered.shards)
    assert changed.update() == {}
    assert project_status(changed.opened).notes == ()


def test_nothing_is_superseded_before_its_successor_is_stored(private_project: TinyProject) -> None:
    renamed = with_source(private_project, name="texts")
    assert {one.fate("superseded") for one in leftover_shards(renamed.freshness)} == {Fate.UNDECIDED}
    (note,) = project_status(renamed.opened).notes
    assert "36 rows are still scored. 3 shard(s) of the sources are to be read first, which may have them" in note
    renamed.register_partitions()
    renamed.run("training_examples", "texts-00000-00000")
    fates = {one.shard: one.fate("superseded") for one in leftover_shards(renamed.freshness)}
    assert fates == {SHARDS[0]: Fate.WITHDRAWN, SHARDS[1]: Fate.UNDECIDED, SHARDS[2]: Fate.UNDECIDED}


def test_of_a_shard_that_stands_elsewhere_in_part_the_other_rows_stay(private_project: TinyProject) -> None:
    file = private_project.root / "data/00001.jsonl"
    file.with_name("00003.jsonl").write_text("\n".join(file.read_text().splitlines()[:4]))
    file.unlink()
    private_project.update()
    assert len(texts(private_project)) == len(set(texts(private_project)))
    assert private_project.table(TRAINING_EXAMPLES, shard=SHARDS[1])["row"].to_list() == list(range(4, ROWS_PER_SHARD))
    assert private_project.table(GRADIENT_FACTORS, shard=SHARDS[1]).height == 2 * (ROWS_PER_SHARD - 4)
    assert private_project.update() == {}


def test_rows_of_a_source_that_left_are_no_edits_of_one_whose_name_begins_its_own(private_project: TinyProject) -> None:
    other = private_project.root / "other"
    other.mkdir()
    ids = [json.loads(line)["id"] for line in (private_project.root / "data/00000.jsonl").read_text().splitlines()]
    (other / "00000.jsonl").write_text("\n".join(json.dumps({"id": name, "text": f"of {name} else"}) for name in ids))
    (docs,) = private_project.settings.sources
    old = docs.model_copy(update={"name": "docs-old", "path": str(other)})
    both = private_project.settings.model_copy(update={"sources": (docs, old)})
    TinyProject(private_project.root, both, Project.of(both), private_project.instance).update()
    (left,) = leftover_shards(private_project.freshness)
    assert (left.shard, left.superseded, left.fate("superseded")) == ("docs-old-00000-00000", (), Fate.UNDECIDED)


def test_a_file_that_comes_back_with_the_time_it_had_is_read_whole(private_project: TinyProject) -> None:
    data = private_project.root / "data"
    shutil.copytree(data, private_project.root / "before")
    (data / "00003.jsonl").write_text("\n".join((data / "00001.jsonl").read_text().splitlines()[:4]))
    (data / "00001.jsonl").unlink()
    list(bring_up_to_date(private_project.instance, ASSETS, private_project.opened, selection=[training_examples]))
    (data / "00003.jsonl").unlink()
    shutil.copy2(private_project.root / "before/00001.jsonl", data / "00001.jsonl")
    list(bring_up_to_date(private_project.instance, ASSETS, private_project.opened, selection=[training_examples]))
    assert sum(texts(private_project).values()) == N_ROWS


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("name"), st.sampled_from(["docs", "texts", "docs-a"])),
        st.tuples(st.just("rows_per_shard"), st.sampled_from([2, 3, 7])),
        st.tuples(st.just("rename a file"), st.sampled_from(["a", "b", "sub/c"])),
        st.tuples(st.just("move a row"), st.integers(0, 5)),
        st.tuples(st.just("edit a row"), st.integers(0, 5)),
        st.tuples(st.just("back to one file"), st.none()),
        st.tuples(st.just("materialize"), st.none()),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=12)
@given(operations=OPERATIONS, has_ids=st.booleans())
def test_after_any_renames_and_cuts_each_row_of_the_sources_is_stored_once(
    tiny_project: TinyProject, operations: list[tuple[str, object]], has_ids: bool
) -> None:
    rows = [{"text": f"the sentence {k} of a file", **({"key": f"k{k}"} if has_ids else {})} for k in range(6)]
    files = {"a": rows[:4], "b": rows[4:]}
    source = Source(name="docs", path="data", rows_per_shard=3, columns={"id": "key" if has_ids else None})
    with TemporaryDirectory() as folder, dg.DagsterInstance.ephemeral() as instance:
        root, n_edits = Path(folder), 0
        (root / "queries").mkdir()

        def materialize() -> TinyProject:
            shutil.rmtree(root / "data", ignore_errors=True)
            for name, content in files.items():
                file = root / f"data/{name}.jsonl"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text("\n".join(map(json.dumps, content)))
            chosen = tiny_project.settings.model_copy(
                update={
                    "base": root,
                    "sources": (source,),
                    "checkpoints": tiny_project.settings.checkpoints.model_copy(
                        update={"path": str(tiny_project.root / "checkpoints")}
                    ),
                }
            )
            project = TinyProject(root, chosen, Project.of(chosen), instance)
            list(bring_up_to_date(instance, ASSETS, project.opened, selection=[training_examples]))
            return project

        materialize()
        for operation, value in operations:
            first, *_, last = files
            if operation == "rename a file":
                files[str(value)] = [*files.pop(first), *files.pop(str(value), [])]
            elif operation == "move a row" and first != last and len(files[first]) > 1:
                files[last].append(files[first].pop(int(str(value)) % len(files[first])))
            elif operation == "edit a row" and has_ids:
                n_edits += 1
                row = files[last][int(str(value)) % len(files[last])]
                row["text"] = f"edited {n_edits}"
            elif operation == "back to one file":
                files = {"a": [row for content in files.values() for row in content]}
            elif operation == "materialize":
                materialize()
            elif operation in {"name", "rows_per_shard"}:
                source = source.model_copy(update={operation: value})
        project = materialize()
        wanted = Counter(str(row["text"]) for content in files.values() for row in content)
        stored = texts(project)
        renamed = {value for operation, value in operations if operation == "name"}
        if n_edits and renamed:
            # An id tells an edited row from a removed one within its source alone.
            assert all(stored[text] == 1 for text in wanted)
        else:
            assert stored == wanted


# --- Kept, withdrawn, said -------------------------------------------------------------------------------------------


@pytest.fixture
def shortened(private_project: TinyProject) -> TinyProject:
    """A project of which a file was removed whose rows stand nowhere else."""
    (private_project.root / "data/00001.jsonl").unlink()
    return private_project


def test_what_left_its_source_and_stands_nowhere_else_stays_and_is_said(shortened: TinyProject) -> None:
    assert shortened.update() == {}
    (note,) = project_status(shortened.opened).notes
    assert note.startswith(
        f"1 stored shard is named by no source any more: {SHARDS[1]}; 12 rows that stand nowhere else"
    )
    assert "`lorif withdraw`" in note
    result = check(shortened)
    assert not result.passed
    assert result.severity is dg.AssetCheckSeverity.WARN
    assert SHARDS[1] in (result.description or "")
    assert SHARDS[1] in str(evaluate(shortened, "withdrawal_sensor").skip_message)


def test_to_keep_it_is_a_decision_that_is_recorded_and_shown_until_the_shard_changes(shortened: TinyProject) -> None:
    keep(shortened.lake, [SHARDS[1]])
    (row,) = shortened.table(KEPT_SHARDS).to_dicts()
    (note,) = Leftovers.of(shortened.freshness).notes(shortened.settings.automation)
    assert f"kept, as was decided on {row['decided'][:10]}" in note
    assert check(shortened).passed
    withdrawing = shortened.with_settings(automation={"on_removed": "withdraw"})
    assert {one.fate("withdraw") for one in leftover_shards(withdrawing.freshness)} == {Fate.KEPT}
    (shortened.root / "data/00001.jsonl").write_text(json.dumps({"id": "new", "text": "another row"}))
    shortened.run("training_examples", SHARDS[1])
    (shortened.root / "data/00001.jsonl").unlink()
    assert [one.decided for one in leftover_shards(shortened.freshness)] == [None]


def test_what_is_kept_by_settings_says_how_many_rows_are_scored_twice(private_project: TinyProject) -> None:
    renamed = with_source(private_project, name="texts").with_settings(automation={"on_removed": "keep"})
    list(bring_up_to_date(renamed.instance, ASSETS, renamed.opened, selection=[training_examples]))
    assert sum(texts(renamed).values()) == 2 * N_ROWS
    (note,) = Leftovers.of(renamed.freshness).notes(renamed.settings.automation)
    assert f"of {N_ROWS} rows {N_ROWS} stand in other shards too and are scored twice" in note
    assert not check(renamed).passed


def test_the_sensors_withdraw_first_and_only_what_the_settings_say(private_project: TinyProject) -> None:
    file = private_project.root / "data/00001.jsonl"
    file.rename(file.with_name("00003.jsonl"))
    two = (private_project.root / "data/00002.jsonl").read_text().splitlines()
    (private_project.root / "data/00002.jsonl").unlink()
    (private_project.root / "data/00004.jsonl").write_text("\n".join(two[:5]))
    private_project.register_partitions()
    private_project.run("training_examples", "docs-00003-00000", "docs-00004-00000")
    assert f"withdrawn first, by withdrawal_sensor: {SHARDS[1]}, {SHARDS[2]}" in str(
        evaluate(private_project, "re_attribution_sensor").skip_message
    )
    (request,) = evaluate(private_project, "withdrawal_sensor").run_requests
    assert request.run_config["ops"]["withdraw_shards"]["config"] == {"shards": [SHARDS[1]], "rows_of": [SHARDS[2]]}
    withdrawal.execute_in_process(
        run_config=request.run_config,
        instance=private_project.instance,
        resources={
            name: dagster_resources(private_project.opened)[name] for name in ("settings", "lake", "model_checkpoints")
        },
    )
    assert SHARDS[1] not in set(private_project.table(TRAINING_EXAMPLES)["shard"])
    assert private_project.table(TRAINING_EXAMPLES, shard=SHARDS[2]).height == ROWS_PER_SHARD - 5
    assert evaluate(private_project, "re_attribution_sensor").run_requests


def test_a_query_set_and_a_checkpoint_that_are_gone_are_said(private_project: TinyProject) -> None:
    (private_project.root / f"queries/{QUERY_SET}.jsonl").rename(private_project.root / "queries/others.jsonl")
    shutil.rmtree(private_project.root / "checkpoints" / CHECKPOINTS[0])
    query_set, checkpoint = project_status(private_project.opened).notes
    assert query_set.startswith(f"1 stored query set is without a file now: {QUERY_SET}")
    assert checkpoint.startswith(f"1 recorded checkpoint is not found any more: {CHECKPOINTS[0]}")


def test_a_file_that_two_sources_read_is_said_to_count_twice(private_project: TinyProject) -> None:
    first = private_project.settings.sources[0]
    second = Source(name="again", path="data/00001.jsonl", columns=first.columns)
    settings_of_both = private_project.settings.model_copy(update={"sources": (first, second)})
    notes = Freshness.of(Project.of(settings_of_both)).discovered.notes
    assert notes == (
        "data/00001.jsonl is read 2 times, as data/00001.jsonl of source 'again' and data/00001.jsonl of source 'docs': its "
        "rows are scored as often. Leave one of them out",
    )
    other = Source(name="again", path="data/00001.jsonl", columns=first.columns.model_copy(update={"text": "topic"}))
    settings_of_both = private_project.settings.model_copy(update={"sources": (first, other)})
    assert Freshness.of(Project.of(settings_of_both)).discovered.notes == ()


def test_a_link_beside_the_file_it_points_to_is_said_to_count_twice(private_project: TinyProject) -> None:
    (private_project.root / "data/linked.jsonl").symlink_to("00001.jsonl")
    (note,) = private_project.freshness.discovered.notes
    assert note.startswith(
        "data/00001.jsonl is read 2 times, as data/00001.jsonl of source 'docs' and data/linked.jsonl"
    )
