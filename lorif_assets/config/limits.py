"""What a file from a stranger may ask of this machine: settings of a source, of the queries and of the checkpoints."""

from pydantic import BaseModel, ConfigDict, Field

MIB = 1 << 20
GIB = 1 << 30


class ReadLimits(BaseModel):
    """How much a file of rows may hold, or claim to hold, before it is refused or a row of it is set aside."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    row_mib: int = Field(
        64, ge=1, description="MiB of the text of one row (JSON Lines, JSON, CSV); a longer line of JSON is set aside."
    )
    shard_mib: int = Field(
        4_096, ge=1, description="MiB of the rows of one shard, which are in memory together; see `rows_per_shard`."
    )
    rows: int = Field(1_000_000_000, ge=1, description="Rows of one file.")
    columns: int = Field(10_000, ge=1, description="Columns of one file, those inside others counted too.")
    header_mib: int = Field(
        256, ge=1, description="MiB of what describes a file's rows: Parquet's footer, the JSON files of `datasets`."
    )
    expanded_gib: int = Field(256, ge=1, description="GiB of what a compressed file holds.")
    expansion: int = Field(
        200, ge=1, description="How many times as large as the compressed file that may be, the first GiB aside."
    )


class CheckpointLimits(BaseModel):
    """How much the files that describe a checkpoint may ask for before it is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description_mib: int = Field(512, ge=1, description="MiB of config.json, or of a file of the tokenizer.")
    text_growth: int = Field(
        10_000, ge=1, description="How many times as long a text the replacements of tokenizer.json may make together."
    )
    layers: int = Field(10_000, ge=1, description="Layers, or experts of a layer, that config.json may name.")
