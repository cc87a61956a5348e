"""The sections of lorif.toml that have no module of their own: where things are, budgets, and what runs by itself."""

from typing import Annotated, Literal, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from lorif_assets.config.limits import CheckpointLimits, ReadLimits
from lorif_assets.config.secrets import Address, Place, StorageOptions, refuse_password
from lorif_assets.config.sources import Columns


def _web_address(address: str) -> str:
    if not address.startswith(("http://", "https://")):
        raise ValueError(f"{address!r} is no address of a web page; write one that begins with http:// or https://")
    return refuse_password(address).rstrip("/")


WebAddress = Annotated[str, AfterValidator(_web_address)]
"""Where a browser finds a server: http:// or https://, without a password and without a slash at its end."""


class _Section(BaseModel):
    # What was given may be a secret in the wrong place.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class LakeSettings(_Section):
    """Where the Delta tables are."""

    root: Place = Field("lake", description="A directory, or s3://, gs://, abfss://. Relative to lorif.toml's folder.")
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

    path: Place | None = Field(
        None,
        description="A checkpoint directory (config.json, *.safetensors, tokenizer; or a GGUF file), an adapter's "
        "(adapter_config.json), or a directory of them, also in an object store (s3://, gs://, az://, abfss://) whose "
        "credentials are in the environment; or a model on the hub, hf://org/name@revision, or org/name where no "
        'such directory is; default: "checkpoints", or none where `registered_model` is set.',
    )
    base_model: Place | None = Field(
        None,
        description="The folder of the model that adapters, or whole models, were trained from, or its name on the hub, "
        "org/name or org/name@revision; default: what each adapter names.",
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
    limits: CheckpointLimits = Field(
        default_factory=CheckpointLimits, description="What the files that describe a checkpoint may ask for."
    )


class QuerySettings(_Section):
    """Where query sets are: each file is one."""

    path: Place = Field(
        "queries",
        description="A query file (Parquet, JSONL, JSON or CSV), or a directory of such files; also in an object store.",
    )
    columns: Columns = Field(default_factory=Columns, description="Which columns hold what.")
    limits: ReadLimits = Field(
        default_factory=ReadLimits, description="What a file may hold before it is refused, as of a source."
    )
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


_GPU_TOKENS = 32_768
_GRADIENT_MIB = 256


class _Device(Protocol):
    """A device of torch, which settings are read without."""

    @property
    def type(self) -> str: ...


class BatchSettings(_Section):
    """Memory budgets; they change no result."""

    tokens: int = Field(
        8_192,
        ge=1,
        description="Tokens of one batch through the model, padding included. Where it is not set, stages that go through all "
        "examples take 32,768 on a GPU, or as many as its free memory holds.",
    )
    scan_rows: int | None = Field(
        None,
        ge=1,
        description="Examples in a block when factors are streamed; the next block is read in the meantime. Default: a power "
        "of two from 16 to 16,384 whose factors (decoded, but for signs on a CPU) take at most a 32nd of the free memory.",
    )
    gradient_mib: int | None = Field(
        None,
        ge=1,
        description="MiB of dense gradients at a time; a wide layer without projection has 9 MiB per example. Default: 256, or "
        "a sixteenth of a GPU's memory.",
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

    def tokens_on(self, device: _Device) -> int:
        """Return the tokens of a batch of many: a GPU's host takes as long to start a small batch as a large one."""
        return _GPU_TOKENS if device.type == "cuda" and "tokens" not in self.model_fields_set else self.tokens

    @property
    def gradient_numbers(self) -> int:
        """FP32 numbers of the dense gradients that are held at a time, on a GPU at least."""
        return (self.gradient_mib or _GRADIENT_MIB) * (1 << 20) // 4

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
    """When files that nothing points to any more are deleted, and old runs from Dagster's records."""

    retention_hours: int = Field(
        168,
        ge=1,
        description="How long superseded files are kept: longer than the longest run, which may still read them.",
    )
    run_days: int = Field(
        90,
        ge=1,
        description="How long Dagster keeps a run that is over, and its events; one that made what it shows as newest stays.",
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


class AddressSettings(_Section):
    """Where a browser finds the project's servers: what runs, reports and MLflow link to."""

    dagster: WebAddress = Field("http://localhost:3000", description="Dagster's UI (`lorif ui`).")
    mlflow: WebAddress | None = Field(
        None,
        description="MLflow's UI; default: `tracking.uri` where that is a server, else http://127.0.0.1:5000, where "
        "`mlflow ui` is.",
    )
    explorer: WebAddress = Field("http://127.0.0.1:7411", description="The explorer (`lorif explore`).")


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
