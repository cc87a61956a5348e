"""Secrets of lorif.toml: where they are from, and that nothing that is shown has them."""

import traceback
from pathlib import Path

import pytest

from lorif_assets.config.secrets import (
    FromEnvironment,
    Hidden,
    MaskedError,
    kept_secret,
    logged_in,
    masked_address,
    secrets_in,
    separated_login,
    shown_command,
    shown_options,
)
from lorif_assets.config.settings import Settings, load_settings
from lorif_assets.errors import SettingsError
from lorif_assets.project import Project

SECRET = "open-sesame"
TOML = f"""
[[sources]]
name = "docs"
path = "s3://data/docs"
format = "delta"
columns = {{ id = "id" }}
storage_options = {{ AWS_SECRET_ACCESS_KEY = {{ env = "MY_KEY" }}, AWS_REGION = "eu" }}

[lake]
root = "s3://lake/project"

[lake.storage_options]
AWS_ACCESS_KEY_ID = "{SECRET}-id"
AWS_SECRET_ACCESS_KEY = {{ env = "MY_KEY" }}
azure_storage_sas_token = "sv=1&sig={SECRET}"
something_new = "{SECRET}"
aws_region = "eu"
AWS_ENDPOINT_URL = "https://store.example:9000"

[tracking]
uri = "https://me:{SECRET}@mlflow.example/tracking"
"""


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MY_KEY", f"{SECRET}-key")
    (tmp_path / "lorif.toml").write_text(TOML)
    return tmp_path / "lorif.toml"


def shown(settings: Settings) -> str:
    project = Project.of(settings)
    things = (settings, *settings.sources, project, project.lake, project.tracking, project.checkpoints)
    return "".join(f"{thing!r}{thing}" for thing in things) + settings.model_dump_json() + str(settings.model_dump())


def test_programs_get_secrets_and_nobody_sees_them(toml: Path) -> None:
    settings = load_settings(toml)
    project = Project.of(settings)
    assert project.lake.storage_options == {
        "AWS_ACCESS_KEY_ID": f"{SECRET}-id",
        "AWS_SECRET_ACCESS_KEY": f"{SECRET}-key",
        "azure_storage_sas_token": f"sv=1&sig={SECRET}",
        "something_new": SECRET,
        "aws_region": "eu",
        "AWS_ENDPOINT_URL": "https://store.example:9000",
    }
    assert settings.sources[0].revealed_storage_options == {
        "AWS_SECRET_ACCESS_KEY": f"{SECRET}-key",
        "AWS_REGION": "eu",
    }
    assert settings.tracking_uri == f"https://me:{SECRET}@mlflow.example/tracking"
    assert SECRET not in shown(settings)
    assert "AWS_REGION" in shown(settings)
    assert set(settings.secrets) >= {SECRET, f"{SECRET}-id", f"{SECRET}-key", f"sv=1&sig={SECRET}"}
    assert "eu" not in settings.secrets


def test_what_is_harmless_is_shown(toml: Path) -> None:
    assert shown_options(Project.of(load_settings(toml)).lake.storage_options) == {
        "AWS_ACCESS_KEY_ID": "***",
        "AWS_SECRET_ACCESS_KEY": "***",
        "azure_storage_sas_token": "***",
        "something_new": "***",
        "aws_region": "eu",
        "AWS_ENDPOINT_URL": "https://store.example:9000",
    }


def test_a_secret_that_is_written_out_is_warned_about_by_name(toml: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = load_settings(toml)
    written = ("AWS_ACCESS_KEY_ID", "azure_storage_sas_token", "something_new")
    assert settings.written_secrets == (*(f"lake.storage_options.{name}" for name in written), "tracking.uri")
    assert (
        "`tracking.uri` is a secret that is written in the settings file: name an environment variable" in caplog.text
    )
    assert SECRET not in caplog.text


def test_one_that_an_environment_variable_of_the_settings_holds_is_not_written_out(
    toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORIF_TRACKING__URI", f"https://me:{SECRET}@other.example")
    monkeypatch.setenv("LORIF_LAKE__STORAGE_OPTIONS", f'{{"AWS_SESSION_TOKEN": "{SECRET}"}}')
    settings = load_settings(toml)
    assert settings.written_secrets == ()
    assert settings.tracking_uri == f"https://me:{SECRET}@other.example"
    assert SECRET not in shown(settings)


def test_a_uri_may_come_from_an_environment_variable(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml.write_text('[tracking]\nuri = { env = "MLFLOW" }\n[checkpoints]\nregistered_model = "m"\n')
    monkeypatch.setenv("MLFLOW", f"postgresql://me:{SECRET}@db/mlflow")
    settings = load_settings(toml)
    assert settings.tracking.uri == FromEnvironment(env="MLFLOW")
    assert settings.tracking_uri == settings.registry_uri == f"postgresql://me:{SECRET}@db/mlflow"
    assert settings.written_secrets == ()
    assert SECRET not in shown(settings)
    assert SECRET not in Project.of(settings).checkpoints.location


@pytest.mark.parametrize(
    ("name", "toml_line"), [("lake.storage_options.KEY", 'KEY = { env = "MY_KEY" }'), ("tracking.uri", "")]
)
def test_a_variable_that_is_not_set_is_named_with_its_setting(
    name: str, toml_line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    uri = '"none"' if toml_line else '{ env = "MY_KEY" }'
    (tmp_path / "lorif.toml").write_text(f"[lake.storage_options]\n{toml_line}\n[tracking]\nuri = {uri}\n")
    with pytest.raises(SettingsError, match=rf"`{name}` is the environment variable MY_KEY, which is not set"):
        Project.open(tmp_path / "lorif.toml")


WRONG = {
    "a number for a key": f'[lake.storage_options]\nKEY = ["{SECRET}"]',
    "a key in the wrong place": f'[lake]\nAWS_SECRET_ACCESS_KEY = "{SECRET}"',
    "a text for a section": f'tracking = "https://me:{SECRET}@mlflow.example"',
    "a table with another field": f'[tracking]\nuri = {{ env = "X", value = "{SECRET}" }}',
    "a wrong field beside a secret": f'[tracking]\nuri = "https://me:{SECRET}@m"\nexperiment = 5',
    "a rule of all fields that is broken": f'[tracking]\nuri = "https://me:{SECRET}@m"\n[recipe]\naveraged_checkpoints = 3',
    "a password in the place of the lake": f'[lake]\nroot = "https://me:{SECRET}@store/lake"',
    "a key in the place of the lake": f'[lake]\nroot = "https://store/lake?sig={SECRET}"',
    "a password in the path of a source": f'[[sources]]\nname = "a"\npath = "s3://me:{SECRET}@store/table"',
    "a password in the path of the checkpoints": f'[checkpoints]\npath = "s3://me:{SECRET}@store/run"',
    "a password in the base model": f'[checkpoints]\nbase_model = "https://me:{SECRET}@store/base"',
    "a password in the path of the queries": f'[queries]\npath = "s3://me:{SECRET}@store/queries"',
    "a token in the text encoder": f'[evaluation]\ntext_encoder = "https://store/encoder?token={SECRET}"',
    "a password in the encoder": f'[influcoder]\nencoder = "https://me:{SECRET}@store/encoder"',
    "a password in the cluster": f'[compute]\naddress = "ray://me:{SECRET}@head:10001"',
    "a password in an endpoint": f'[lake.storage_options]\nAWS_ENDPOINT_URL = "http://me:{SECRET}@store"',
    "two logins": f'[tracking]\nuri = "http://me:{SECRET}@m"\n[checkpoints]\nregistered_model = "m"\n'
    f'registry_uri = "http://you:{SECRET}-2@r"',
    "no TOML": f'[tracking]\nuri = "http://me:{SECRET}@m',
}


@pytest.mark.parametrize("kind", WRONG)
def test_no_error_about_settings_tells_a_secret(kind: str, tmp_path: Path) -> None:
    (tmp_path / "lorif.toml").write_text(WRONG[kind])
    with pytest.raises(SettingsError) as caught:
        Project.open(tmp_path / "lorif.toml")
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("address", "masked", "secrets"),
    [
        ("http://me:sesame@host:5000/x", "http://***@host:5000/x", ["sesame"]),
        ("https://token@host", "https://***@host", ["token"]),
        (
            "postgresql+psycopg2://me:p%40ss@db:5432/mlflow",
            "postgresql+psycopg2://***@db:5432/mlflow",
            ["p%40ss", "p@ss"],
        ),
        ("http://me:ses@me@host/", "http://***@host/", ["ses@me"]),
        ("postgresql://me:ses/a+me@db/mlflow", "postgresql://***@db/mlflow", ["ses/a+me"]),
        ("postgresql://me:s@s/a:me@db:5432/mlflow", "postgresql://***@db:5432/mlflow", ["s@s/a:me"]),
        (
            "mysql+pymysql://me:/sesame@db/mlflow?charset=utf8",
            "mysql+pymysql://***@db/mlflow?charset=utf8",
            ["/sesame"],
        ),
        (
            "mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3Dsesame",
            "mssql+pyodbc:///?odbc_connect=***",
            ["UID%3Dme%3BPWD%3Dsesame"],
        ),
        ("https://host/?token=sesame&a=1", "https://host/?token=***&a=1", ["sesame"]),
        ("mysql://db/mlflow?user=me&password=sesame", "mysql://db/mlflow?user=me&password=***", ["sesame"]),
    ],
)
def test_an_address_is_shown_without_its_secret(address: str, masked: str, secrets: list[str]) -> None:
    assert masked_address(address) == masked
    assert set(secrets_in(address)) == set(secrets)


@pytest.mark.parametrize(
    "address",
    [
        "sqlite:////home/a@b/mlflow.db", "http://host:5000", "postgresql://me@db/mlflow", "databricks://profile",
        "abfss://container@account.dfs.core.windows.net/lake", "hf://datasets/org/name@main", "s3://bucket/a@b",
        "http://host:5000/a@b", "HTTPS://host:5000/a@b", "abfss://container@account:443/lake/a@b", "s3://bucket/a:b@c",
        "sqlite:///a:b@c.db",
    ],
)  # fmt: skip
def test_an_address_without_a_secret_stays_as_it_is(address: str) -> None:
    assert masked_address(address) == address
    assert secrets_in(address) == []
    assert separated_login(address) == (address, None)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("train", "--hub-token", SECRET, "{output}"), "train --hub-token *** {output}"),
        (("train", f"--password={SECRET}"), "train --password=***"),
        (("env", f"WANDB_API_KEY={SECRET}", "python", "train.py"), "env WANDB_API_KEY=*** python train.py"),
        (("train", f"https://me:{SECRET}@host/data"), "train https://***@host/data"),
        (("train", "--max-tokens", "512", "--tokenizer", "gpt2", "--key-columns", "id"), None),
    ],
)
def test_a_command_is_shown_without_what_is_secret_in_it(words: tuple[str, ...], shown: str | None) -> None:
    assert shown_command(words) == (" ".join(words) if shown is None else shown)


def test_mlflow_gets_the_login_apart_from_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")
    assert logged_in("https://me:p%40ss@host:5000/x") == "https://host:5000/x"
    import os

    assert (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]) == ("me", "p@ss")


def test_an_error_that_tells_a_secret_goes_on_without_it() -> None:
    with pytest.raises(MaskedError, match=r"^cannot reach \*\*\*$") as caught, kept_secret([SECRET]):
        raise OSError(f"cannot reach {SECRET}")
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    error = ValueError("no key")
    error.__cause__ = OSError(SECRET)
    with pytest.raises(MaskedError) as caught, kept_secret([SECRET]):
        raise error
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    # Words of the lines of code that a traceback shows are nobody's secret.
    with (
        pytest.raises(ValueError, match="nothing of it"),
        kept_secret([SECRET, "", "of", "kept_secret", "nothing to see"]),
    ):
        raise ValueError("nothing of it")


@pytest.mark.parametrize(
    "setting",
    [
        '[lake.storage_options]\nAWS_SECRET_ACCESS_KEY = "${MY_KEY}"',
        '[tracking]\nuri = "${MY_KEY}"',
        '[checkpoints]\nregistered_model = "m"\nregistry_uri = "${env:MY_KEY}"',
    ],
)
def test_a_variable_in_the_form_of_other_programs_is_refused_with_ours(setting: str, tmp_path: Path) -> None:
    (tmp_path / "lorif.toml").write_text(setting)
    with pytest.raises(SettingsError, match=r'is text here, and no environment variable: write \{ env = "MY_KEY" \}'):
        load_settings(tmp_path / "lorif.toml")


def test_what_is_handed_on_is_not_shown() -> None:
    assert SECRET not in repr(Hidden(SECRET))
