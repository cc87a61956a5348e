"""lorif.toml and the environment: what they set, and what an error says."""

from datetime import date
from pathlib import Path

import pytest

from lorif_assets.config.settings import Settings, load_settings
from lorif_assets.errors import SettingsError


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "lorif.toml"


def loaded(toml: Path, content: str) -> Settings:
    toml.write_text(content)
    return load_settings(toml)


def refusal(toml: Path, content: str) -> str:
    with pytest.raises(SettingsError) as refused:
        loaded(toml, content)
    return str(refused.value)


# --- Where settings come from ----------------------------------------------------------------------------------------


def test_a_file_sets_fields_and_the_rest_keeps_its_defaults(toml: Path) -> None:
    settings = loaded(toml, '[recipe]\nr = 12\n[[sources]]\nname = "docs"\npath = "data"\ncolumns = { text = "body" }')
    assert settings.recipe.r == 12
    assert settings.recipe.rank == Settings().recipe.rank
    assert [(source.name, source.columns.text) for source in settings.sources] == [("docs", "body")]


@pytest.mark.parametrize("written", ["2025-03-01", '"2025-03-01"'])
def test_a_date_may_be_written_as_one_or_as_text(toml: Path, written: str) -> None:
    assert loaded(toml, f"[recipe]\ntemplate_date = {written}").recipe.template_date == date(2025, 3, 1)


def test_the_environment_overrides_one_field_of_a_section_and_leaves_the_others(
    toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORIF_RECIPE__R", "12")
    monkeypatch.setenv("LORIF_ACTIVE__CHECKPOINTS", '["step-1"]')
    monkeypatch.setenv("LORIF_LAKE__STORAGE_OPTIONS__AWS_REGION", "eu")
    settings = loaded(toml, "[recipe]\nr = 4\nrank = 2")
    assert (settings.recipe.r, settings.recipe.rank) == (12, 2)
    assert settings.active.checkpoints == ("step-1",)
    assert settings.lake.storage_options == {"aws_region": "eu"}


def test_without_a_file_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings()
    assert settings.sources == ()
    assert settings.lake_root == str(tmp_path / "lake")


def test_the_file_is_the_one_given_else_the_named_one_else_that_of_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, r in (("lorif.toml", 1), ("named.toml", 2), ("given.toml", 3)):
        (tmp_path / name).write_text(f"[recipe]\nr = {r}")
    monkeypatch.chdir(tmp_path)
    assert load_settings().recipe.r == 1
    monkeypatch.setenv("LORIF_CONFIG", "named.toml")
    assert load_settings().recipe.r == 2
    assert load_settings(Path("given.toml")).recipe.r == 3


def test_a_named_file_that_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORIF_CONFIG", str(tmp_path / "gone.toml"))
    with pytest.raises(SettingsError, match=r"no settings file .*gone\.toml; write one \(`lorif init`\)"):
        load_settings()


# --- Paths -----------------------------------------------------------------------------------------------------------


def test_relative_paths_start_at_the_folder_of_the_file(
    tmp_path: Path, toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    settings = loaded(toml, '[lake]\nroot = "tables/here"')
    assert settings.lake_root == str(tmp_path / "tables/here")
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"


@pytest.mark.parametrize("path", ["s3://bucket/lake", "abfss://c@a.dfs.core.windows.net/x", "/an/absolute/path"])
def test_urls_and_absolute_paths_stay_as_they_are(toml: Path, path: str) -> None:
    assert loaded(toml, f'[lake]\nroot = "{path}"').lake_root == path


def test_a_tilde_is_the_home_directory(toml: Path) -> None:
    assert loaded(toml, '[lake]\nroot = "~/lake"').lake_root == str(Path("~/lake").expanduser())


def test_tracking_can_be_turned_off_or_go_elsewhere(toml: Path) -> None:
    assert loaded(toml, '[tracking]\nuri = "none"').tracking_uri is None
    assert loaded(toml, '[tracking]\nuri = "http://mlflow:5000"').tracking_uri == "http://mlflow:5000"


# --- Errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ("[recipe]\nr = -1", "recipe.r"),
        ("[recipe]\nr = 1.5", "recipe.r"),
        ('[recipe]\nr = "many"', "recipe.r"),
        ("[recipe]\nrank = 0", "recipe.rank"),
        ("[recipe]\nseed = 99999999999999999999", "recipe.seed"),
        ("[recipe]\nprojection_factor = 0", "recipe.projection_factor"),
        ('[recipe]\nfactor_dtype = "fp16"', "recipe.factor_dtype"),
        ("[recipe]\ndamping = 0", "recipe.damping"),
        ("[recipe]\ndamping = inf", "recipe.damping"),
        ("[recipe]\ndamping = nan", "recipe.damping"),
        ("[recipe]\nmax_length = 1", "recipe.max_length"),
        ("[recipe]\nrefinements = 9", "recipe.refinements"),
        ('[recipe]\ninclude_layers = "attn"', "recipe.include_layers"),
        ("[recipe]\ntop_k = 0", "top_k"),
        ('[recipe]\ntop_k = "most"', "recipe.top_k"),
        ('[recipe]\ndamping_rule = "leading"\nr = 0', "damping_rule"),
        ("[batch]\ntokens = 0", "batch.tokens"),
        ("[batch]\nscan_rows = 0", "batch.scan_rows"),
        ('[active]\ncheckpoints = "oldest"', "active.checkpoints"),
        ('[devices]\ndevices = "cuda"', "devices.devices"),
        ("[lake]\nroot = 3", "lake.root"),
        ('[[sources]]\npath = "data"', "sources.0.name"),
        ('[[sources]]\nname = "docs"', "sources.0.path"),
        ('[[sources]]\nname = "my docs"\npath = "data"', "sources.0.name"),
        ('[[sources]]\nname = "docs"\npath = "data"\nformat = "xml"', "sources.0.format"),
        ('[[sources]]\nname = "docs"\npath = "data"\ncolumns = { txt = "x" }', "sources.0.columns.txt"),
        ('[[sources]]\nname = "docs"\npath = "data"\ncolumns = { prompt = "x" }', "sources.0.columns"),
        ("[recipe]\nranks = 2", "recipe.ranks"),
        ("[recipes]\nrank = 2", "recipes"),
        ("recipe = 2", "recipe"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_field_and_the_file(toml: Path, content: str, field: str) -> None:
    message = refusal(toml, content)
    assert field in message
    assert str(toml) in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[lake]\npath = "s3://lake/x"', "lake.path: there is no such setting; there are root, storage_options"),
        ('lake = "s3://lake/x"', "lake: expected a table of settings; there are root, storage_options"),
        ("[recipe]\nranks = 2", "recipe.ranks: there is no such setting; did you mean `rank`"),
        ("[recipe]\nnonsense = 2", "recipe.nonsense: there is no such setting; docs/settings.md has them all"),
        ('[laek]\nroot = "x"', "laek: there is no such setting; did you mean `lake`?"),
        (
            '[[sources]]\nname = "docs"\npath = "data"\ncolumns = { mesages = "x" }',
            "sources.0.columns.mesages: there is no such setting; did you mean `messages`?",
        ),
    ],
)
def test_an_unknown_setting_is_told_what_there_is(toml: Path, content: str, message: str) -> None:
    assert message in refusal(toml, content)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('[[lake]]\nroot = "s3://x"', "lake: expected one table: write `[lake]`, not `[[lake]]`"),
        ('[sources]\nname = "a"\npath = "b"', "sources: expected a list of tables: write `[[sources]]` above each"),
        ('[evaluation]\nmethods = "bm25"', "evaluation.methods: expected a list (found 'bm25')"),
        ("[active]\ncheckpoints = 3", "active.checkpoints: expected 'auto', 'newest' or 'all' or a list (found 3)"),
        ("[lake.storage_options]\nKEY = 5", 'lake.storage_options.KEY: expected { env = "NAME" } or text'),
        ("[recipe]\nrank = [1]", "recipe.rank: Input should be a valid integer"),
        (
            "[recipe]\nmax_width = 0",
            "recipe.max_width: expected a number greater than or equal to 1 or 'auto' (found 0)",
        ),
        ('[devices]\ndevices = ["cpu", 1]', "devices.devices.1: Input should be a valid string (found 1)"),
    ],
)
def test_a_value_of_another_kind_is_told_which_kinds_there_are(toml: Path, content: str, line: str) -> None:
    assert refusal(toml, content).splitlines()[1:] == [f"  {line}"]


@pytest.mark.parametrize(
    "content",
    [
        '[[lake]]\nroot = "s3://x"\nstorage_options = { AWS_SECRET_ACCESS_KEY = "sesame" }',
        '[tracking]\nuri = ["http://me:sesame@x"]',
        '[[tracking]]\nuri = "http://me:sesame@x"',
        '[[recipe]]\nx = [["sesame"]]',
        '[lake]\nstorage_options = [{ AWS_SECRET_ACCESS_KEY = "sesame" }]',
    ],
)
def test_what_may_be_a_secret_is_not_shown_where_settings_are_wrong(toml: Path, content: str) -> None:
    assert "sesame" not in refusal(toml, content)


def test_every_wrong_field_is_named_at_once(toml: Path) -> None:
    message = refusal(toml, "[recipe]\nr = -1\nrank = 0\nnonsense = 1")
    assert "3 wrong setting(s)" in message
    assert all(f"recipe.{field}: " in message for field in ("r", "rank", "nonsense"))


def test_the_wrong_value_is_shown(toml: Path) -> None:
    assert "(found 'fp16')" in refusal(toml, '[recipe]\nfactor_dtype = "fp16"')


def test_two_sources_of_one_name_are_refused(toml: Path) -> None:
    source = '[[sources]]\nname = "docs"\npath = "data"\n'
    assert "two sources have the name 'docs'" in refusal(toml, source + source)


@pytest.mark.parametrize("content", ["[recipe", "r = = 1", "\0"])
def test_a_file_that_is_no_toml_is_named(toml: Path, content: str) -> None:
    assert f"{toml} is not TOML" in refusal(toml, content)


def test_a_file_that_is_no_text_is_named(toml: Path) -> None:
    toml.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="is not TOML"):
        load_settings(toml)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("LORIF_RECIPE__R", "many", "recipe.r"),
        ("LORIF_RECIPE__RANKS", "2", "recipe.ranks"),
        ("LORIF_RECIPE", "3", "recipe: "),
        ("LORIF_RECIPE__INCLUDE_LAYERS", "*.attn.*", "LORIF_RECIPE__INCLUDE_LAYERS"),
        ("LORIF_SOURCES", "docs", "LORIF_SOURCES"),
        ("LORIF_RECEIPT__R", "2", "LORIF_RECEIPT__R sets nothing: lorif.toml has no section 'receipt'"),
    ],
)
def test_a_wrong_environment_variable_is_an_error_that_names_it(
    toml: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert said in refusal(toml, "")


def test_settings_cannot_be_changed_once_loaded() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().recipe.r = 3


def test_without_settings_of_its_own_a_folder_works_on_the_demo_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/lorif.toml").write_text("[recipe]\nr = 7\n")
    monkeypatch.chdir(tmp_path)
    found = load_settings()
    assert (found.recipe.r, found.base) == (7, tmp_path / "demo")
    (tmp_path / "lorif.toml").write_text("[recipe]\nr = 9\n")
    assert load_settings().recipe.r == 9


def test_one_word_for_the_recipe_and_an_environment_variable_go_together(
    toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORIF_RECIPE__DAMPING", "0.5")
    recipe = loaded(toml, 'recipe = "paper"').recipe
    assert (recipe.preset, recipe.curvature, recipe.damping) == ("paper", "svd", 0.5)


def test_a_base_model_is_a_folder_beside_the_file_or_else_a_name_in_a_hub(toml: Path) -> None:
    def base_model(named: str) -> str | None:
        toml.write_text(f'[checkpoints]\nbase_model = "{named}"')
        return load_settings(toml).base_model

    assert base_model("/models/llama") == "/models/llama"
    assert base_model("llama") == str(toml.parent / "llama")
    assert base_model("models/llama") == "models/llama"
    assert base_model("gpt2") == "gpt2"
    assert base_model("models/llama@step3000") == "models/llama@step3000"
    assert base_model("hf://models/llama@step3000") == "hf://models/llama@step3000"
    (toml.parent / "models/llama").mkdir(parents=True)
    assert base_model("models/llama") == str(toml.parent / "models/llama")
    assert Settings().base_model is None


def test_an_adapters_matrices_are_not_tracked_beside_an_adapter_of_influcoders_own(toml: Path) -> None:
    toml.write_text('[recipe]\ntrack = "adapter"\n[influcoder]\nenabled = true\n')
    with pytest.raises(SettingsError, match=r'set `influcoder\.teacher = "lorif"`'):
        load_settings(toml)
    toml.write_text('[recipe]\ntrack = "adapter"\n[influcoder]\nenabled = true\nteacher = "lorif"\n')
    assert load_settings(toml).recipe.track == "adapter"
