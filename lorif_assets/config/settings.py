"""lorif.toml: where data, checkpoints and queries are, where results go, and how influence is computed.

Every field can be overridden by an environment variable: `LORIF_RECIPE__R=128` sets `recipe.r`.
"""

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
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
from lorif_assets.config.influcoder import InflucoderSettings
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.secrets import (
    Address,
    StorageOptions,
    masked_address,
    refuse_password,
    revealed,
    revealed_options,
    secret_advice,
    secrets_in,
    secrets_of,
)
from lorif_assets.config.sources import Columns, Source
from lorif_assets.config.token_scores import TokenScoreSettings
from lorif_assets.errors import SettingsError

CONFIG_VARIABLE = "LORIF_CONFIG"
CONFIG_NAME = "lorif.toml"
DEMO_DIRECTORY = Path("demo")
REAL_DEMO_DIRECTORY = Path("demo-real")
_PREFIX = "LORIF_"
_LOG = logging.getLogger(__name__)
_WITHOUT_INPUT = {"missing", "extra_forbidden", "value_error"}
_MAY_HOLD_SECRETS = {"storage_options", "uri", "registry_uri"}
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


class _Section(BaseModel):
    # What was given may be a secret in the wrong place.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class LakeSettings(_Section):
    """Where the Delta tables are."""

    root: Annotated[str, AfterValidator(refuse_password)] = Field(
        "lake", description="A directory, or s3://, gs://, abfss://. Relative to lorif.toml's folder."
    )
    storage_options: StorageOptions = Field(
        default_factory=dict,
        description="Credentials and options of the object store, as delta-rs names them; a secret by the name of an "
        'environment variable: AWS_SECRET_ACCESS_KEY = { env = "MY_KEY" }.',
    )


class DataSettings(_Section):
    """What is made of rows of sources and query files that cannot be used; it changes no result."""

    max_rejected_share: float = Field(
        0.05,
        ge=0,
        le=1,
        description="The share of rows that may be set aside before a run stops with the reasons: of a source, of a query "
        "set, or of all training examples as a checkpoint's tokenizer reads them. 1: it never does.",
    )


class CheckpointSettings(_Section):
    """Where checkpoints appear, and how they are loaded."""

    path: str | None = Field(
        None,
        description="A checkpoint directory (config.json, *.safetensors, tokenizer; or a GGUF file), an adapter's "
        "(adapter_config.json), or a directory of them, also in an object store (s3://, gs://, az://, abfss://) whose "
        "credentials are in the environment; or a model on the hub, hf://org/name@revision, or org/name where no "
        'such directory is; default: "checkpoints", or none where `registered_model` is set.',
    )
    base_model: str | None = Field(
        None,
        description="The folder of the model that adapters, or whole models, were trained from, or its name on the hub, "
        "org/name; default: what each adapter names.",
    )
    include_base: bool = Field(
        True, description="Offer the base model as a checkpoint of its own, step 0 of what was trained from it."
    )
    registered_model: str | None = Field(
        None, description="An MLflow registered model, whose versions are checkpoints named `model:7`."
    )
    alias: str | None = Field(None, description="Use only the version of the registered model with this alias.")
    registry_uri: Address | None = Field(
        None,
        description='MLflow URI of the registry; one with a password by the name of an environment variable, { env = "NAME" }; '
        "default: `tracking.uri`.",
    )
    cache: str = Field("registered_models", description="Where versions of the registered model are downloaded to.")
    trust_remote_code: bool = Field(
        False, description="Run the Python code that a checkpoint carries. Leave it off for other people's checkpoints."
    )


class QuerySettings(_Section):
    """Where query sets are: each file is one."""

    path: str = Field(
        "queries",
        description="A query file (Parquet, JSONL, JSON or CSV), or a directory of such files; also in an object store.",
    )
    columns: Columns = Field(default_factory=Columns, description="Which columns hold what.")
    allow_scalars: bool = Field(
        False,
        description="Whether a query file may name Python code that is run, in its field `scalar`. Leave it off for other "
        "people's files.",
    )


class ActiveSettings(_Section):
    """What `lorif status` watches and the jobs keep up to date; everything else stays as it is."""

    checkpoints: Literal["auto", "newest", "all"] | tuple[str, ...] = Field(
        "auto",
        description='"auto", the newest and, where it is a fine-tune whose base model is known, the base model and the first '
        'checkpoint saved of it; "newest" alone; "all"; or the names of checkpoints.',
    )
    query_sets: Literal["all"] | tuple[str, ...] = Field("all", description='"all", or the names of query sets.')


class AutomationSettings(_Section):
    """What Dagster's daemon does by itself."""

    enabled: bool = Field(
        False, description="Whether re-attribution starts switched on; Dagster's UI switches it at any time."
    )
    on_removed: Literal["superseded", "withdraw", "keep"] = Field(
        "superseded",
        description="What becomes of stored shards that no source names any more, by the sensor and by `lorif materialize`: "
        '"superseded" withdraws their rows that stand in other shards too, and leaves the others until they are decided about '
        '(`lorif withdraw`); "withdraw" withdraws all; "keep" none, so that what was renamed or cut anew is scored twice.',
    )
    interval_seconds: int = Field(30, ge=1, description="Time between two checks for what is out of date.")
    max_attempts: int = Field(3, ge=1, description="How often the same work is tried before it is left as failed.")
    backoff_seconds: int = Field(60, ge=0, description="Wait after a failure; doubled after each further one.")
    stalled_after_seconds: int = Field(
        900, ge=1, description="A run without an event for this long is taken for killed, and its work is tried again."
    )
    schedule: str = Field("0 3 * * *", description="When the schedule `nightly_re_attribution` runs, if switched on.")


class BatchSettings(_Section):
    """Memory budgets; they change no result."""

    tokens: int = Field(8_192, ge=1, description="Tokens of one batch through the model, padding included.")
    scan_rows: int | None = Field(
        None,
        ge=1,
        description="Examples in a block when factors are streamed; the next block is read in the meantime. Default: a power "
        "of two from 16 to 16,384 whose decoded factors take at most a 32nd of the free memory of the device or the machine.",
    )
    gradient_mib: int = Field(
        256,
        ge=1,
        description="MiB of dense gradients at a time; a wide layer without projection has 9 MiB per example.",
    )

    query_mib: int = Field(
        2_048,
        ge=1,
        description="MiB of preconditioned queries in one scan, across all query sets; more queries take more scans.",
    )
    kept_mib: int | None = Field(
        None,
        ge=0,
        description="MiB of stored factors and curvatures that a process which answers questions (`lorif_assets.open`, "
        "`lorif explore`) keeps from one to the next, as they are stored, and at most half of the memory that is free when the "
        "project is opened. 0: none. Default: a quarter of that memory.",
    )

    @property
    def gradient_numbers(self) -> int:
        """FP32 numbers of the dense gradients that are held at a time."""
        return self.gradient_mib * (1 << 20) // 4

    @property
    def query_numbers(self) -> int:
        """FP32 numbers of the preconditioned queries that are held at a time."""
        return self.query_mib * (1 << 20) // 4


class CurvatureSettings(_Section):
    """When a curvature to which data were added is worth fitting again; changes no result by itself."""

    refine_below: float = Field(
        0.5,
        ge=0,
        le=1,
        description="A layer asks for a refinement where its eigenvectors capture less than this times as much of the "
        "added data's gradient energy as of the data they were fitted to. 0: never.",
    )


class VacuumSettings(_Section):
    """When files that nothing points to any more are deleted."""

    retention_hours: int = Field(
        168,
        ge=1,
        description="How long superseded files are kept: longer than the longest run, which may still read them.",
    )
    schedule: str = Field(
        "0 4 * * 0", description="When the schedule `weekly_vacuum` runs; it is on where `automation.enabled` is."
    )


class TrackingSettings(_Section):
    """MLflow."""

    uri: Address | None = Field(
        None,
        description="Tracking URI; default: an SQLite file `mlflow.db` beside lorif.toml. `none` turns it off. One with a "
        'password by the name of an environment variable: { env = "NAME" }.',
    )
    experiment: str = Field("lorif", description="Name of the experiment.")


class DeviceSettings(_Section):
    """Where the mathematics runs."""

    devices: tuple[str, ...] | Literal["auto"] = Field(
        "auto",
        description='"auto": every CUDA or ROCm device, else the CPU; or names such as ["cuda:0", "cuda:1"], ["rocm:0"] or '
        '["mps"] (Metal, where what it lacks runs on the CPU).',
    )
    per_checkpoint: int = Field(
        1,
        ge=1,
        description="CUDA devices that a checkpoint too large for one is spread over. Each step takes that many.",
    )


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
        return named if _HUB_NAME.fullmatch(named) and not Path(folder).is_dir() else folder

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
        raise SettingsError(explanation(error, f"{file} (or a LORIF_ environment variable)")) from error
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


def explanation(error: ValidationError, origin: str) -> str:
    """Return what is wrong with settings, a line for each field; `origin` says where they are from."""
    problems = [
        f"  {'.'.join(str(part) for part in problem['loc']) or 'settings'}: {problem['msg']}"
        + ("" if problem["type"] in _WITHOUT_INPUT else _found(problem))
        for problem in error.errors()
    ]
    return f"{origin} has {len(problems)} wrong setting(s):\n" + "\n".join(problems)


def _found(problem: ErrorDetails) -> str:
    """What was found in the place of a setting, unless a secret may be in it."""
    found = problem["input"]
    if not _MAY_HOLD_SECRETS.isdisjoint(problem["loc"]) or isinstance(found, Mapping):
        return ""
    return f" (found {masked_address(repr(found))})"
