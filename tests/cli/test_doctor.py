"""`lorif doctor`: all that is there, missing or wrong is shown at once."""

import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, StepMaterializationData
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, MixtralConfig, RecurrentGemmaConfig

from lorif_assets.automation.dagster_home import make_home
from lorif_assets.cli.doctor import diagnose
from lorif_assets.tracking.tracked_run import RECORD_FILE
from tests.conftest import CHECKPOINTS, TinyProject


@pytest.fixture
def diagnosis(private_project: TinyProject, monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[bool, str]]:
    monkeypatch.setenv("LORIF_CONFIG", str(private_project.root / "lorif.toml"))

    def run() -> tuple[bool, str]:
        console = Console(file=io.StringIO(), width=250)
        sound = diagnose(console)
        assert isinstance(console.file, io.StringIO)
        return sound, console.file.getvalue()

    return run


_MATERIALIZED = dg.DagsterEventType.ASSET_MATERIALIZATION.value

Diagnosis = Callable[[], tuple[bool, str]]


def test_a_sound_project_shows_what_was_found_and_what_it_costs(
    diagnosis: Diagnosis, private_project: TinyProject
) -> None:
    sound, said = diagnosis()
    assert sound
    assert "fault" not in said
    assert "2 of 38 rows looked at would be set aside: malformed JSON" in said
    assert f"{private_project.root}/lake" in said
    assert "38 rows in 3 shards, data" in said
    assert "2: step-000100 to step-000200" in said
    assert "4 tracked: transformer.h.0.attn.c_attn to transformer.h.1.mlp.c_fc" in said
    assert "cost of a checkpoint like step-000200, 38 examples" in said
    assert re.search(
        r"factors beside the bare passes [^\n]*\d\.\d\d x products, \d+\.\d\d x bytes; \d+% of their rate", said
    )
    assert "block of a scan" in said
    assert "288 B" in said
    assert "1 + 1" in said
    assert "local, on cpu" in said
    assert "7 and 7" in said, "files and commits: three shards and four layers"


def test_what_is_looked_at_is_told_before_it_is_found(diagnosis: Diagnosis, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("rich.status.Status.update", lambda _status, words: told.append(words))
    diagnosis()
    expected = ["source docs", "query sets", "checkpoints", "tokenizer", "layers", "memory"]
    assert [words for words in told if words.removeprefix("looking at ") in expected] == [
        f"looking at {label}" for label in expected
    ]


def _record(home: Path, run: str, shard: str, recipe: str, **figures: float | str) -> None:
    """Leave what a run records of a shard's factors in Dagster's home."""
    make_home(home)
    known = {"device": "cpu", "hardware": "a CPU with 2 threads", "dagster/row_count": 10, "recipe": recipe}
    event = dg.AssetMaterialization("gradient_factors", partition=f"step-000100|{shard}", metadata={**known, **figures})
    with dg.DagsterInstance.from_config(str(home)) as instance:
        data = StepMaterializationData(event)
        instance.report_dagster_event(DagsterEvent(_MATERIALIZED, "job", event_specific_data=data), run)


def test_the_time_of_factors_is_that_which_the_newest_run_of_the_recipe_took(
    diagnosis: Diagnosis, private_project: TinyProject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    _, said = diagnosis()
    assert not home.exists(), "nothing is made for the question"
    assert re.search(
        r"time of the factors[ │]+less than 1 GPU second[ │]+no measured rate is known: counted for an H200", said
    )
    recipe = private_project.settings.recipe.factor_hash
    _record(home, "old", "a", recipe, tokens=10, seconds=100.0)
    _record(home, "new", "a", recipe, tokens=300, seconds=3_600.0)
    _record(home, "new", "b", recipe, tokens=500, seconds=4_400.0)
    _record(home, "newest", "a", "of another recipe", tokens=1_000_000, seconds=1.0)
    _, said = diagnosis()
    # 38 examples of 40 tokens at 0.1 tokens a second.
    assert re.search(
        r"time of the factors[ │]+4.22 CPU hours[ │]+measured: 0.1 tokens/s of a worker on a CPU with 2 threads", said
    )
    assert "2 shards of step-000100 on 20" in said
    assert re.search(r"all 2 active checkpoints [^\n]*8.44 CPU hours for the factors; 14 files and 14 commits", said)
    _record(home, "on GPUs", "a", recipe, tokens=800, seconds=400.0, device="cuda:0 + cuda:1", hardware="NVIDIA H200")
    _, said = diagnosis()
    assert re.search(r"50.7 GPU minutes[ │]+measured: 2 tokens/s of a worker on 2 x NVIDIA H200, 1 shards", said)
    (home / "dagster.yaml").write_text("storage: {postgres: {postgres_url: {env: NO_SUCH_VARIABLE}}}")
    sound, said = diagnosis()
    assert sound
    assert "no measured rate is known" in said


def _fitting(root: Path) -> None:
    """Leave widths and ranks of the project to the model."""
    file = root / "lorif.toml"
    by_hand = 'curvature = "svd"\nfactor_dtype = "bf16"\nrank = 1\nprojection_factor = 2\n'
    assert by_hand in file.read_text()
    file.write_text(file.read_text().replace(by_hand, ""))


def test_what_is_left_to_the_model_is_shown_as_numbers(diagnosis: Diagnosis, private_project: TinyProject) -> None:
    _fitting(private_project.root)
    sound, said = diagnosis()
    assert sound
    assert (
        "fitted to the model: sides of 16 to 64 numbers, no layer projected, about 15 components of a layer in sign"
        in said
    )
    # 15 of 16 components of 16 x 48 and 16 x 64: 4 + 2 + 6 and 4 + 2 + 8 bytes each.
    assert f"{15 * 2 * (12 + 14)} B" in said
    assert "fewer than 64 numbers" not in said
    assert "expected agreement" not in said
    assert "the width is measured on a sample when bases are fitted" in said


def test_what_became_of_it_is_shown_once_there_are_bases(diagnosis: Diagnosis, private_project: TinyProject) -> None:
    _fitting(private_project.root)
    fitting = TinyProject.open(private_project.root, private_project.instance)
    fitting.run("checkpoints", CHECKPOINTS[-1])
    fitting.run("kfac_bases", f"{CHECKPOINTS[-1]}|transformer.h.0.attn.c_attn")
    said = " ".join(diagnosis()[1].split())
    size = f"{15 * 2 * (12 + 14)} bytes"
    assert f"at {CHECKPOINTS[-1]} sides of up to 64 numbers, ranks of 15 to 15, {size}" in said
    assert "expected agreement with exact EK-FAC 0." in said


def test_of_a_configuration_without_weights_recipe_and_cost_are_shown_all_the_same(
    diagnosis: Diagnosis, private_project: TinyProject
) -> None:
    for weights in (private_project.root / "checkpoints").glob("*/*.safetensors"):
        weights.unlink()
    sound, said = diagnosis()
    assert not sound
    assert re.search(r"fault +checkpoints .*has no \*.safetensors weights", said)
    assert re.search(r"ok +layers +4 tracked", said)
    assert re.search(r"ok +recipe +as set", said)
    assert "cost of a checkpoint like step-000200, 38 examples" in said


def test_of_a_configuration_without_weights_and_data_that_cannot_be_read_both_are_said(
    diagnosis: Diagnosis, private_project: TinyProject
) -> None:
    for weights in (private_project.root / "checkpoints").glob("*/*.safetensors"):
        weights.unlink()
    shutil.rmtree(private_project.root / "data")
    sound, said = diagnosis()
    assert not sound
    assert re.search(r"fault +checkpoints ", said)
    assert re.search(r"fault +source ", said)


def test_a_model_whose_passes_take_no_time_to_speak_of_is_not_told_in_millionths_of_an_hour(
    diagnosis: Diagnosis, private_project: TinyProject
) -> None:
    _, said = diagnosis()
    assert "less than 1 s at 100 TFLOP/s" in said


def test_what_a_recipe_by_hand_wastes_is_noted(diagnosis: Diagnosis, private_project: TinyProject) -> None:
    sound, said = diagnosis()
    assert sound
    assert "as set: sides of 8 to 32 numbers, 4 of 4 layers projected, rank 1 in bf16" in said
    assert "at f = 2 sides are projected to fewer than 64 numbers (16 to 8)" in " ".join(said.split())


def test_what_lies_beside_the_data_and_is_not_read_is_listed(
    diagnosis: Diagnosis, private_project: TinyProject
) -> None:
    (private_project.root / "data/more.csv").write_text("text\na\n")
    (private_project.root / "data/linked").symlink_to(private_project.root / "queries")
    sound, said = diagnosis()
    assert sound
    assert (
        "38 rows in 3 shards, data; passed over in data: linked (a linked folder), more.csv. Where that is data"
        in " ".join(said.split())
    )


def test_a_folder_of_plain_text_is_counted(diagnosis: Diagnosis, private_project: TinyProject) -> None:
    root = private_project.root
    (root / "notes").mkdir()
    for name in ("a.txt", "b.TXT"):
        (root / "notes" / name).write_text("one\n\ntwo")
    settings = root / "lorif.toml"
    source = '[[sources]]\nname = "{0}"\npath = "notes"\npassages = "{0}"\n'
    settings.write_text(source.format("file") + source.format("paragraph") + settings.read_text())
    sound, said = diagnosis()
    assert sound
    assert "2 rows in 1 shard, notes" in said
    assert "4 rows in 2 shards, notes" in said


def _without_tokenizer(root: Path) -> None:
    (root / "checkpoints" / CHECKPOINTS[0] / "tokenizer.json").unlink()


def _setting(line: str) -> Callable[[Path], Any]:
    def write(root: Path) -> None:
        file = root / "lorif.toml"
        file.write_text(file.read_text().replace("[recipe]\n", f"[recipe]\n{line}\n"))

    return write


WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no data": (lambda root: shutil.rmtree(root / "data"), "nothing is at"),
    "no queries": (lambda root: shutil.rmtree(root / "queries"), "correct `queries.path`"),
    "no checkpoint directory": (lambda root: shutil.rmtree(root / "checkpoints"), "correct `checkpoints.path`"),
    "no checkpoint yet": (
        lambda root: [shutil.rmtree(root / "checkpoints" / name) for name in CHECKPOINTS],
        "has no checkpoint yet",
    ),
    "a checkpoint without tokenizer": (_without_tokenizer, "has no tokenizer"),
    "a layer pattern that matches nothing": (
        _setting('exclude_layers = ["*.router"]'),
        "pattern '*.router' matches none",
    ),
    "no sources": (
        lambda root: (root / "lorif.toml").write_text('[tracking]\nuri = "none"'),
        "names no [[sources]]: nothing to attribute to",
    ),
}


def test_a_fault_that_several_findings_stumble_over_is_told_once(
    diagnosis: Diagnosis, private_project: TinyProject
) -> None:
    shutil.rmtree(private_project.root / "checkpoints")
    sound, said = diagnosis()
    assert not sound
    assert said.count("does not exist; correct `checkpoints.path`") == 1
    assert re.search(r"fault +layers +see checkpoints", said)


def pickled(root: Path) -> None:
    """Leave the newest checkpoint its weights in a pickle alone."""
    newest = root / "checkpoints" / CHECKPOINTS[-1]
    (newest / "model.safetensors").rename(newest / "pytorch_model.bin")


def test_beside_a_newest_checkpoint_that_cannot_be_read_the_one_that_is_attributed_is_looked_at(
    diagnosis: Diagnosis, private_project: TinyProject
) -> None:
    pickled(private_project.root)
    sound, said = diagnosis()
    assert not sound
    assert re.search(r"fault +checkpoints .*only pytorch_model.bin, which is a pickle", said)
    for label in ("tokenizer", "layers", "recipe", "memory"):
        assert re.search(rf"ok +{label} ", said)


def test_of_a_file_that_cannot_be_read_its_source_says_so_once(
    diagnosis: Diagnosis, private_project: TinyProject
) -> None:
    (private_project.root / "wide.csv").write_bytes("text\na file\n".encode("utf-16"))
    settings = private_project.root / "lorif.toml"
    settings.write_text('[[sources]]\nname = "wide"\npath = "wide.csv"\n' + settings.read_text())
    _, said = diagnosis()
    assert said.count("it is UTF-16: save it as UTF-8") == 1


def test_of_text_that_is_set_aside_the_file_is_named(diagnosis: Diagnosis, private_project: TinyProject) -> None:
    (private_project.root / "notes").mkdir()
    for name, content in (("a.txt", b"a file"), ("b.txt", "Maß".encode("latin-1"))):
        (private_project.root / "notes" / name).write_bytes(content)
    settings = private_project.root / "lorif.toml"
    settings.write_text('[[sources]]\nname = "notes"\npath = "notes"\n' + settings.read_text())
    _, said = diagnosis()
    assert "The first is notes/b.txt;" in said


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_and_the_rest_is_shown_all_the_same(
    diagnosis: Diagnosis, private_project: TinyProject, what: str
) -> None:
    damage, message = WRONG[what]
    damage(private_project.root)
    sound, said = diagnosis()
    assert not sound
    assert message in said
    assert "cost of a checkpoint" not in said
    assert "devices" in said


def test_every_fault_is_shown_in_one_go(diagnosis: Diagnosis, private_project: TinyProject) -> None:
    shutil.rmtree(private_project.root / "data")
    shutil.rmtree(private_project.root / "queries")
    _, said = diagnosis()
    assert "nothing is at" in said
    assert "correct `queries.path`" in said


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "postgresql://lorif:sesame@127.0.0.1:9/mlflow"])
def test_a_tracking_server_that_is_away_and_what_waits_for_it_are_notes(
    diagnosis: Diagnosis, private_project: TinyProject, address: str
) -> None:
    toml = private_project.root / "lorif.toml"
    toml.write_text(re.sub('(?<=\\[tracking\\]\nuri = ")[^"]*', address, toml.read_text()))
    (private_project.root / "tracking_queue/1-a").mkdir(parents=True)
    (private_project.root / "tracking_queue/1-a" / RECORD_FILE).write_text("{}")
    sound, said = diagnosis()
    assert sound
    assert re.search(r"note +tracking +MLflow does not answer \(.*refused.*\): attribution goes on", said)
    assert "sesame" not in said
    assert re.search(r"note +tracking +what is to be tracked of 1 run is kept until MLflow takes it", said)


def test_text_in_brackets_is_shown_and_not_taken_for_markup(diagnosis: Diagnosis, private_project: TinyProject) -> None:
    (private_project.root / "lorif.toml").write_text('[queries]\npath = "[red]q"\n[tracking]\nuri = "none"')
    _, said = diagnosis()
    assert "[red]q" in said


def test_the_memory_of_the_first_batch_is_said_by_its_parts(diagnosis: Diagnosis) -> None:
    _, said = diagnosis()
    line = next(line for line in said.splitlines() if "free GiB of cpu" in line)
    assert all(part in said for part in ("weights 0.0", "passes over", "projections"))
    assert line.split()[0] == "ok"


def test_a_checkpoint_that_does_not_fit_is_a_fault_with_what_helps(
    diagnosis: Diagnosis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorif_assets.attribution.recipes.memory_verdict.free_memory", lambda devices: 100_000)
    sound, said = diagnosis()
    assert not sound
    assert "the checkpoint 'step-000200' does not fit cpu: its gradient factors would take about" in " ".join(
        said.split()
    )


# --- Architectures, tried before anything runs ----------------------------------------------------------------------

_SIZES = {"hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}


def _as_newest_checkpoint(root: Path, config: Any) -> None:
    """A random model of this kind in place of the newest checkpoint's, its tokenizer kept, with the default layers."""
    folder = root / "checkpoints" / CHECKPOINTS[-1]
    config.vocab_size = json.loads((folder / "config.json").read_text())["vocab_size"]
    for file in folder.glob("*.safetensors"):
        file.unlink()
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    settings = root / "lorif.toml"
    settings.write_text(settings.read_text().replace('include_layers = ["*.attn.c_attn", "*.mlp.c_fc"]\n', ""))


def test_an_encoder_is_a_fault(diagnosis: Diagnosis, private_project: TinyProject) -> None:
    _as_newest_checkpoint(private_project.root, BertConfig(**_SIZES))
    sound, said = diagnosis()
    assert not sound
    assert "BertLMHeadModel is no causal language model" in said


def test_a_mixture_of_experts_is_tracked_with_its_share_said(
    diagnosis: Diagnosis, private_project: TinyProject
) -> None:
    _as_newest_checkpoint(private_project.root, MixtralConfig(**_SIZES, num_key_value_heads=2, num_local_experts=4))
    sound, said = diagnosis()
    assert sound
    assert "26 tracked: model.layers.0.self_attn.q_proj to model.layers.1.mlp.experts.3.down_proj" in said
    assert "99.8% of the blocks' parameters" in " ".join(said.split())


def test_what_is_not_linear_is_said_to_be_left_out(diagnosis: Diagnosis, private_project: TinyProject) -> None:
    sizes = {**_SIZES, "num_key_value_heads": 1, "lru_width": 32, "num_hidden_layers": 3}
    _as_newest_checkpoint(private_project.root, RecurrentGemmaConfig(**sizes, attention_window_size=16))
    sound, said = diagnosis()
    assert sound
    assert "not linear, hence left out: model.layers.*.temporal_block.rg_lru." in said


def test_a_token_beyond_the_embeddings_is_a_remark_as_long_as_no_row_has_it(
    diagnosis: Diagnosis, private_project: TinyProject
) -> None:
    folder = private_project.root / "checkpoints" / CHECKPOINTS[-1]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<image_soft_token>"])
    tokenizer.save_pretrained(folder)
    sound, said = diagnosis()
    assert sound
    assert "rows with such tokens are set aside" in " ".join(said.split())


def test_what_exact_re_ranking_takes_is_said_where_it_is_asked_for(
    diagnosis: Diagnosis, private_project: TinyProject
) -> None:
    assert "exact re-ranking" not in diagnosis()[1]
    config = private_project.root / "lorif.toml"
    config.write_text(config.read_text() + '\n[exact_scores]\nenabled = true\nquery_solver = "cg"\n')
    sound, said = diagnosis()
    assert sound
    assert "exact re-ranking" in said
    assert "2 passes over 1,024 examples, 4 over 256 for each query, 1 over those listed" in said


def test_an_optimizer_s_state_that_the_curvature_needs_and_is_not_there_is_a_fault(
    diagnosis: Diagnosis, private_project: TinyProject
) -> None:
    file = private_project.root / "lorif.toml"
    file.write_text(file.read_text().replace('curvature = "svd"', 'curvature = "adam"'))
    sound, said = diagnosis()
    assert not sound
    assert re.search(r"fault +recipe +there is no .*optimizer\.pt", said)
    (private_project.root / "checkpoints" / CHECKPOINTS[-1] / "optimizer.pt").write_bytes(b"")
    assert diagnosis()[0]
