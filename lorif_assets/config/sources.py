"""Settings of one source of training examples or queries: where the rows are and which columns mean what."""

from enum import StrEnum
from string import Formatter
from typing import Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from lorif_assets.config.limits import ReadLimits
from lorif_assets.config.secrets import Place, StorageOptions, revealed_options


class SourceFormat(StrEnum):
    """How a source's files are read; `auto` decides by what lies at the path.

    The module of `data.formats` with a format's name reads it.
    """

    AUTO = "auto"
    PARQUET = "parquet"
    JSONL = "jsonl"
    JSON = "json"
    CSV = "csv"
    DELTA = "delta"
    DATASETS = "datasets"
    TXT = "txt"
    MEGATRON = "megatron"
    MDS = "mds"
    TOKENS = "tokens"
    DATATROVE = "datatrove"


Passages = Literal["file", "paragraph"]
TokenType = Literal["uint16", "uint32", "int32", "int64"]


class Columns(BaseModel):
    """Which columns of a source hold what.

    Exactly one kind of content is used: `text`, or `prompt` and `completion`, or `messages` (with optional
    `tools`), or `input_ids` (with optional `labels`). If none is named, columns with exactly these names are used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str | None = Field(None, description="Column with a unique id per row; default: '<shard>/<row>'.")
    text: str | None = Field(None, description="Column with plain text; the loss is on every token.")
    prompt: str | None = Field(None, description="Column with the prompt; it carries no loss.")
    prompt_format: str | None = Field(
        None,
        # Sources that name none keep the version that they had before there was the setting.
        exclude_if=lambda text: text is None,
        description="Text of the prompt with columns in braces, in place of `prompt`: "
        "'### Instruction:\\n{instruction}\\n\\n### Response:\\n'. Null is an empty text; {{ and }} are braces.",
    )
    short_prompt_format: str | None = Field(
        None,
        exclude_if=lambda text: text is None,
        description="The same for rows in which every column that it leaves out of those of `prompt_format` is null or empty, "
        "as Alpaca's `input` is in rows without one.",
    )
    completion: str | None = Field(None, description="Column with the completion; the loss is on its tokens.")
    messages: str | None = Field(
        None, description="Column with chat messages (role, content), rendered by the tokenizer's chat template."
    )
    system: str | None = Field(
        None,
        exclude_if=lambda column: column is None,
        description="Column with the text of a system message that stands before `messages`; beside a column `conversations` "
        "default: `system`.",
    )
    tools: str | None = Field(
        None,
        # Sources that name none keep the version that they had before this setting existed.
        exclude_if=lambda column: column is None,
        description="Column with tool definitions for `messages`: a list, or its JSON text.",
    )
    chat_template_kwargs: str | None = Field(
        None,
        exclude_if=lambda column: column is None,
        description="Column with arguments that the chat template is given for `messages`, as `enable_thinking`: an object, or "
        "its JSON text.",
    )
    input_ids: str | None = Field(None, description="Column with token ids, used exactly as given.")
    labels: str | None = Field(None, description="Column with labels for `input_ids`; -100 carries no loss.")
    metadata: tuple[str, ...] | None = Field(
        None, description="Columns kept as metadata; default: every column that has no other role."
    )

    @property
    def prompt_columns(self) -> tuple[str, ...]:
        """Columns that `prompt_format` names."""
        return _columns_of(self.prompt_format)

    @property
    def optional_prompt_columns(self) -> tuple[str, ...]:
        """Those of them that `short_prompt_format` leaves out; none where there is none."""
        if self.short_prompt_format is None:
            return ()
        return tuple(name for name in self.prompt_columns if name not in _columns_of(self.short_prompt_format))

    @field_validator("prompt_format", "short_prompt_format")
    @classmethod
    def _plain_columns_in_braces(cls, text: str | None, info: ValidationInfo) -> str | None:
        try:
            fields = [field for field in Formatter().parse(text or "") if field[1] is not None]
        except ValueError as error:
            raise ValueError(
                f"`{info.field_name}` has braces that do not match ({error}); write {{{{ and }}}} for braces"
            ) from error
        if text is not None and not fields:
            raise ValueError(f"`{info.field_name}` names no column; write one in braces, such as {{instruction}}")
        for _, name, rules, conversion in fields:
            if not name or rules or conversion or set(name) & set(".["):
                raise ValueError(f"`{info.field_name}` has {name!r} in braces; a column's name alone can stand there")
        return text

    @model_validator(mode="after")
    def _one_kind_of_content(self) -> Self:
        kinds = {
            "text": self.text is not None,
            "prompt and completion": (self.prompt or self.prompt_format or self.completion) is not None,
            "messages": self.messages is not None,
            "input_ids": self.input_ids is not None,
        }
        named = [kind for kind, used in kinds.items() if used]
        if len(named) > 1:
            raise ValueError(f"name one kind of content, not {' and '.join(named)}")
        if self.prompt is not None and self.prompt_format is not None:
            raise ValueError("name `prompt` or `prompt_format`, not both")
        if (self.prompt is None and self.prompt_format is None) != (self.completion is None):
            raise ValueError("`prompt` (or `prompt_format`) and `completion` go together: name both, or neither")
        if self.short_prompt_format is not None and not set(_columns_of(self.short_prompt_format)) < {
            *self.prompt_columns
        }:
            raise ValueError(
                "`short_prompt_format` leaves out one column at least of `prompt_format`, and has no other"
            )
        if self.system is not None and self.messages is None:
            raise ValueError("`system` needs `messages`")
        if self.labels is not None and self.input_ids is None:
            raise ValueError("`labels` needs `input_ids`")
        for role in ("tools", "chat_template_kwargs"):
            if getattr(self, role) is not None and self.messages is None:
                raise ValueError(f"`{role}` needs `messages`")
        return self


def _columns_of(prompt_format: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for _, name, *_ in Formatter().parse(prompt_format or "") if name is not None))


class Source(BaseModel):
    """One named source of rows."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = Field(
        pattern=r"^\w[\w.~-]*$",
        description="Name of the source, of letters and digits of any script and `._~-`; shard names begin with it.",
    )
    path: Place = Field(
        description="A file, a directory, a glob, a Delta table or a saved `datasets` directory. Relative paths start "
        "at the folder of lorif.toml. Files, directories, globs and Delta tables may be in an object store (s3://, gs://, "
        "az://, abfss://). Or a data set on the hub, hf://datasets/org/name@revision, with a configuration, folder, "
        "file or glob of it behind another slash."
    )
    split: str | None = Field(
        None,
        # Sources that name none keep the version that they had before this setting existed.
        exclude_if=lambda split: split is None,
        description="The split of a data set on the hub; default: its only one, or `train`.",
    )
    format: SourceFormat = Field(SourceFormat.AUTO, description=f"How to read the path: {', '.join(SourceFormat)}.")
    columns: Columns = Field(default_factory=Columns, description="Which columns hold what.")
    passages: Passages = Field(
        "file",
        description='What makes a row of txt files: "file", a whole file, or "paragraph", the text between blank lines.',
    )
    token_type: TokenType | None = Field(
        None,
        # Sources that name none keep the version that they had before there was the setting.
        exclude_if=lambda kind: kind is None,
        description="Type of token ids where they are stored without one, as bytes in `columns.input_ids` or as a stream: "
        f"{', '.join(get_args(TokenType))}.",
    )
    document_end: int | None = Field(
        None,
        ge=0,
        exclude_if=lambda token: token is None,
        description='Id of the token that ends each document of a stream, the training\'s EOS. With `format = "tokens"`.',
    )
    tokens_per_example: int | None = Field(
        None,
        ge=2,
        exclude_if=lambda tokens: tokens is None,
        description="Of rows of token ids, how many are an example at the most: a longer row is several, one behind the other. "
        "Default: a row is one, cut by `recipe.max_length`.",
    )
    storage_options: StorageOptions = Field(
        default_factory=dict,
        description="Credentials and options of the source's object store, as delta-rs names them; default: the environment's. "
        'A secret by the name of an environment variable: AWS_SECRET_ACCESS_KEY = { env = "MY_KEY" }.',
    )
    rows_per_shard: int = Field(
        2_000, ge=1, description="Rows of one file in a shard (files, `datasets`), or whole files in a shard (txt)."
    )
    buckets: int = Field(
        16,
        ge=1,
        description="Shards of a Delta source: a hash of its id decides each row's shard, so that an edit touches one "
        "shard. Needs `columns.id`.",
    )
    limits: ReadLimits = Field(
        default_factory=ReadLimits,
        # Rows may be set aside by them, so that raising one has the shards read again.
        exclude_if=lambda limits: limits == ReadLimits(),
        description="What a file may hold before it is refused, so that one from a stranger does not fill the memory.",
    )

    @model_validator(mode="after")
    def _documents_end_in_streams(self) -> Self:
        if (self.document_end is not None) != (self.format is SourceFormat.TOKENS):
            raise ValueError('`document_end` and `format = "tokens"` go together: set both, or neither')
        return self

    @model_validator(mode="after")
    def _splits_are_of_the_hub(self) -> Self:
        if self.split is not None and not self.path.startswith("hf://"):
            raise ValueError(
                "`split` is for data sets on the hub (hf://...); elsewhere, name the split's files in `path`"
            )
        return self

    @property
    def revealed_storage_options(self) -> dict[str, str]:
        """The options of the object store with their secrets.

        Raises:
            SettingsError: as `revealed_options`.
        """
        return revealed_options(self.storage_options, f"sources.{self.name}.storage_options")

    @property
    def unversioned_fields(self) -> set[str]:
        """Fields that affect neither the rows of shards nor how they are cut.

        A field that was added later counts as one at its default, so that shards that were read before stay as they are.
        """
        return {"storage_options"} if self.passages == "paragraph" else {"storage_options", "passages"}
