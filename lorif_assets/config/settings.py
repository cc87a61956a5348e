"""lorif.toml: where data, checkpoints and queries are, where results go, and how influence is computed.

Every field can be overridden by an environment variable: `LORIF_RECIPE__R=128` sets `recipe.r`.
"""

import logging
import os
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings import SettingsError as UnreadableVariable

from lorif_assets.config.compute import ComputeSettings
from lorif_assets.config.evaluation import EvaluationSettings
from lorif_assets.config.exact_scores import ExactScoreSettings
from lorif_assets.config.groups import GroupSettings
from lorif_assets.config.hub_names import is_plain_name
from lorif_assets.config.influcoder import InflucoderSettings
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.secrets import (
    revealed,
    revealed_options,
    secret_advice,
    secrets_in,
    secrets_of,
    separated_login,
)
from lorif_assets.config.sections import (
    ActiveSettings,
    AddressSettings,
    AutomationSettings,
    BatchSettings,
    CheckpointSettings,
    CurvatureSettings,
    DataSettings,
    DeviceSettings,
    LakeSettings,
    QuerySettings,
    TrackingSettings,
    VacuumSettings,
)
from lorif_assets.config.sources import Source
from lorif_assets.config.token_scores import TokenScoreSettings
from lorif_assets.config.wrong_settings import explanation
from lorif_assets.errors import SettingsError

CONFIG_VARIABLE = "LORIF_CONFIG"
CONFIG_NAME = "lorif.toml"
DEMO_DIRECTORY = Path("demo")
REAL_DEMO_DIRECTORY = Path("demo-real")
CLUSTER_DEMO_DIRECTORY = Path("demo-cluster")
_PREFIX = "LORIF_"
_LOG = logging.getLogger(__name__)
_MLFLOW_UI = "http://127.0.0.1:5000"


class Settings(BaseSettings):
    """All of lorif.toml."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        nested_model_default_partial_update=True,
    )

    lake: LakeSettings = Field(default_factory=LakeSettings)
    sources: tuple[Source, ...] = Field((), description="Where training examples come from.")
    data: DataSettings = Field(default_factory=DataSettings)
    checkpoints: CheckpointSettings = Field(default_factory=CheckpointSettings)
    queries: QuerySettings = Field(default_factory=QuerySettings)
    recipe: Recipe = Field(default_factory=Recipe)
    active: ActiveSettings = Field(default_factory=ActiveSettings)
    automation: AutomationSettings = Field(default_factory=AutomationSettings)
    batch: BatchSettings = Field(default_factory=BatchSettings)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)
    curvature: CurvatureSettings = Field(default_factory=CurvatureSettings)
    vacuum: VacuumSettings = Field(default_factory=VacuumSettings)
    tracking: TrackingSettings = Field(default_factory=TrackingSettings)
    addresses: AddressSettings = Field(default_factory=AddressSettings)
    devices: DeviceSettings = Field(default_factory=DeviceSettings)
    compute: ComputeSettings = Field(default_factory=ComputeSettings)
    influcoder: InflucoderSettings = Field(default_factory=InflucoderSettings)
    exact_scores: ExactScoreSettings = Field(default_factory=ExactScoreSettings)
    groups: GroupSettings = Field(default_factory=GroupSettings)
    token_scores: TokenScoreSettings = Field(default_factory=TokenScoreSettings)
    base: Path = Field(default_factory=Path.cwd, exclude=True, description="The folder that relative paths start at.")

    @model_validator(mode="after")
    def _tracking_file_has_an_address(self) -> Self:
        if self.tracking.uri is None and "?" in self.resolve("mlflow.db"):
            raise ValueError(
                f"the SQLite file of `tracking.uri` would lie in {str(self.base)!r}, and the address of one has no '?': set "
                '`tracking.uri` to a server or to "none", or move the project'
            )
        return self

    @model_validator(mode="after")
    def _registry_is_known(self) -> Self:
        if self.checkpoints.registered_model and not self.checkpoints.registry_uri and self.tracking.uri == "none":
            raise ValueError(
                '`checkpoints.registered_model` needs a registry: set `checkpoints.registry_uri`, as `tracking.uri` is "none"'
            )
        return self

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [source.name for source in self.sources]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"two sources have the name {repeated[0]!r}: shards are named after their source")
        return self

    @model_validator(mode="after")
    def _recall_has_an_encoder(self) -> Self:
        if self.recipe.recall == "influcoder" and not self.influcoder.enabled:
            raise ValueError('`recipe.recall = "influcoder"` needs the encoder: set `influcoder.enabled = true`')
        return self

    @model_validator(mode="after")
    def _a_fresh_adapter_has_no_other_beside_it(self) -> Self:
        if self.influcoder.enabled and self.influcoder.teacher == "gradient_cosine" and self.recipe.track == "adapter":
            raise ValueError(
                '`influcoder.teacher = "gradient_cosine"` puts an adapter of its own on the model, which '
                '`recipe.track = "adapter"` keeps another one beside: set `influcoder.teacher = "lorif"`'
            )
        return self

    @model_validator(mode="after")
    def _losses_that_teach_are_of_queries_and_retrained_models(self) -> Self:
        chosen, evaluation = self.influcoder, self.evaluation
        if not (chosen.enabled and chosen.teacher == "subset_losses"):
            return self
        if chosen.anchor_texts == "examples":
            raise ValueError(
                '`influcoder.teacher = "subset_losses"` learns from losses of queries: set `influcoder.anchor_texts` to '
                '"queries", or leave it'
            )
        if not (evaluation.trainer or evaluation.command or evaluation.ground_truth):
            raise ValueError(
                '`influcoder.teacher = "subset_losses"` learns from retrained models: set `evaluation.trainer`, '
                "`evaluation.command` or `evaluation.ground_truth`"
            )
        return self

    @model_validator(mode="after")
    def _averaged_checkpoints_are_kept_up_to_date(self) -> Self:
        if self.recipe.averages and self.active.checkpoints in ("auto", "newest"):
            raise ValueError(
                "`recipe.averaged_checkpoints` other than 1 needs earlier checkpoints whose factors follow the data: set "
                '`active.checkpoints` to "all", or to names; or leave it at "auto", which finds those of a fine-tune'
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment variables win over lorif.toml."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings

    @property
    def base_model(self) -> str | None:
        """The base model of the settings: an absolute folder, or a name in a hub where there is no such folder."""
        named = self.checkpoints.base_model
        if named is None:
            return None
        folder = self.resolve(named)
        return named if is_plain_name(named) and not Path(folder).is_dir() else folder

    def resolve(self, path: str) -> str:
        """Return a path of the settings as an absolute one; URLs stay as they are."""
        return path if "://" in path else str((self.base / Path(path).expanduser()).resolve())

    @property
    def lake_root(self) -> str:
        """The lake's root, absolute."""
        return self.resolve(self.lake.root)

    @property
    def tracking_uri(self) -> str | None:
        """MLflow's tracking URI, with its password if it has one, or None where tracking is off.

        Raises:
            SettingsError: it is to come from an environment variable that is not set.
        """
        if self.tracking.uri == "none":
            return None
        if self.tracking.uri is None:
            return f"sqlite:///{self.resolve('mlflow.db')}"
        return revealed(self.tracking.uri, "tracking.uri")

    @property
    def mlflow_address(self) -> str:
        """Where a browser finds MLflow.

        Raises:
            SettingsError: as `tracking_uri`.
        """
        if self.addresses.mlflow is not None:
            return self.addresses.mlflow
        uri = self.tracking_uri or ""
        return separated_login(uri)[0].rstrip("/") if uri.startswith(("http://", "https://")) else _MLFLOW_UI

    @property
    def registry_uri(self) -> str | None:
        """MLflow's URI of the registry in the same way; None where there is no registered model."""
        if self.checkpoints.registered_model is None:
            return None
        chosen = self.checkpoints.registry_uri
        return self.tracking_uri if chosen is None else revealed(chosen, "checkpoints.registry_uri")

    @property
    def written_secrets(self) -> tuple[str, ...]:
        """The names of settings whose secrets are written out in lorif.toml."""
        found: list[tuple[str, object]] = [
            (f"{setting}.{name}", value)
            for setting, options in (
                ("lake.storage_options", self.lake.storage_options),
                *((f"sources.{source.name}.storage_options", source.storage_options) for source in self.sources),
            )
            for name, value in options.items()
        ]
        found += [("tracking.uri", self.tracking.uri), ("checkpoints.registry_uri", self.checkpoints.registry_uri)]
        return tuple(name for name, value in found if isinstance(value, SecretStr) and not _is_set_by_variable(name))

    @property
    def secrets(self) -> tuple[str, ...]:
        """All that nobody may see.

        Raises:
            SettingsError: some of it is to come from an environment variable that is not set.
        """
        addresses = (address for address in (self.tracking_uri, self.registry_uri) if address)
        stores = [revealed_options(self.lake.storage_options, "lake.storage_options")]
        stores += [source.revealed_storage_options for source in self.sources]
        return (
            *(secret for address in addresses for secret in secrets_in(address)),
            *(secret for options in stores for secret in secrets_of(options)),
        )


def settings_file(path: Path | None = None) -> Path:
    """Return where the settings are read from: of a folder, its lorif.toml. Only a file that was not named may be absent.

    Raises:
        SettingsError: a named file does not exist.
    """
    named = path or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    if named is not None:
        named = named.expanduser()
        named = named / CONFIG_NAME if named.is_dir() else named
    found = [file for file in (Path(CONFIG_NAME), DEMO_DIRECTORY / CONFIG_NAME) if file.is_file()]
    file = (named or next(iter(found), Path(CONFIG_NAME))).absolute()
    if named and not file.is_file():
        remedy = "give another path" if path else f"correct ${CONFIG_VARIABLE}"
        raise SettingsError(f"there is no settings file {file}; write one (`lorif init`) or {remedy}")
    return file


def existing_settings_file(path: Path | None = None) -> Path:
    """Return where the settings are read from, as `settings_file`; there has to be such a file.

    Raises:
        SettingsError: there is none, of that name or at all.
    """
    file = settings_file(path)
    if not file.is_file():
        raise SettingsError(
            f"there is no settings file: neither {file} nor the demo's; write one (`lorif init`), or give the path of one"
        )
    return file


def load_settings(path: Path | None = None) -> Settings:
    """Read lorif.toml: the given file, else $LORIF_CONFIG, else ./lorif.toml, else the demo's, else defaults, no sources.

    Raises:
        SettingsError: a named file does not exist or is not TOML, or a field is unknown, of the wrong type or out of range.
    """
    _refuse_unknown_variables()
    file = settings_file(path)
    try:
        content = TomlConfigSettingsSource(Settings, file)() if file.is_file() else {}
    except ValueError as error:
        raise SettingsError(f"{file} is not TOML: {error}") from error
    if isinstance(content.get("recipe"), str):
        # One word in place of a section; as a section, environment variables can add to it.
        content["recipe"] = {"preset": content["recipe"]}
    try:
        settings = Settings(**{"base": file.parent, **content})
    except ValidationError as error:
        raise SettingsError(explanation(error, f"{file} (or a LORIF_ environment variable)", Settings)) from error
    except UnreadableVariable as error:
        names = ", ".join(sorted(name for name in os.environ if name.upper().startswith(_PREFIX)))
        raise SettingsError(
            f"{error}. One of the environment variables {names} does not hold JSON, in which lists and tables are written, "
            """for instance LORIF_RECIPE__INCLUDE_LAYERS='["*.attn.*"]'"""
        ) from error
    for setting in settings.written_secrets:
        _LOG.warning(secret_advice(setting))
    return settings


def _is_set_by_variable(setting: str) -> bool:
    section, field = setting.split(".")[:2]
    names = (f"{_PREFIX}{section}".upper(), f"{_PREFIX}{section}__{field}".upper())
    return any(name.upper() == names[0] or name.upper().startswith(names[1]) for name in os.environ)


def _refuse_unknown_variables() -> None:
    known = {CONFIG_VARIABLE, *(f"{_PREFIX}{section.upper()}" for section in Settings.model_fields)}
    for name in os.environ:
        section, _, _ = name.upper().partition("__")
        if section.startswith(_PREFIX) and section not in known:
            raise SettingsError(
                f"the environment variable {name} sets nothing: {CONFIG_NAME} has no section "
                f"{section.removeprefix(_PREFIX).lower()!r}; correct or unset it"
            )
