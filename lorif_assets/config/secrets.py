"""Secrets of lorif.toml: what counts as one, where its value is from, and how it is kept out of all that is shown.

A secret is best named by an environment variable, `{ env = "AWS_SECRET_ACCESS_KEY" }`. Written out it works too, and is
hidden as soon as it is read.
"""

import os
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from lorif_assets.errors import LorifError, SettingsError

_Kind = TypeVar("_Kind")

HIDDEN = "***"
# Options of object stores that a person may see, as delta-rs names them; any other is taken for a secret.
_PUBLIC_OPTION = re.compile(
    r"region|endpoint|_url$|^url$|http|timeout|retr|bucket|container|account_name|storage_account$|emulator|virtual_hosted|"
    r"copy_if|conditional|checksum|imdsv1|skip_signature|anonymous|locking|rename|user_agent|pool|authority_id|tenant"
)
_SECRET_OPTION = re.compile(r"secret|token|password|credential|key|sas|signature$")
_SECRET_PARAMETER = re.compile(
    r"([?&;][^=&;]*(?:password|passwd|pwd|secret|token|key|sig|odbc_connect)[^=&;]*=)[^&;#\s]+", re.IGNORECASE
)
_SECRET_FLAG = re.compile(
    r"-*[\w-]*(?:password|passwd|secret|token|credentials?|api[-_]?key|access[-_]?key)", re.IGNORECASE
)
# Up to the last one: an @ may stand in a password, and of a database a slash too.
_USER_INFO = re.compile(r"(?<!http)(?<!https)://[^/:@\s]*:\S*@|://[^/\s]*@", re.IGNORECASE)
# As shells and other programs' settings write a variable.
_PLACEHOLDER = re.compile(r"\$\{(?:env:)?(\w+)\}")
# What is as short as a word of a message is no secret, and would make the message illegible.
_SHORTEST = 6


class MaskedError(LorifError):
    """An error whose words would tell a secret, in the same words without it."""


class FromEnvironment(BaseModel):
    """A value that an environment variable holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    env: str = Field(min_length=1, description="Name of the environment variable.")


def _refuse_placeholder(value: str | SecretStr | FromEnvironment) -> str | SecretStr | FromEnvironment:
    if isinstance(value, str) and (name := _PLACEHOLDER.fullmatch(value)):
        raise ValueError(
            f'{value} is text here, and no environment variable: write {{ env = "{name[1]}" }} for the value of {name[1]}'
        )
    return value


def _hidden_address(address: str | SecretStr | FromEnvironment) -> str | SecretStr | FromEnvironment:
    is_secret = isinstance(address, str) and masked_address(address) != address
    return SecretStr(address) if is_secret and isinstance(address, str) else address


def _hidden_options(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: SecretStr(value) if isinstance(value, str) and _is_secret(name, value) else value
        for name, value in options.items()
    }


# From left to right, as text would be taken for hidden text.
_Value = Annotated[
    FromEnvironment | str | SecretStr, Field(union_mode="left_to_right"), AfterValidator(_refuse_placeholder)
]
Address = Annotated[_Value, AfterValidator(_hidden_address)]
"""A URI that may hold a password: text, hidden text, or the name of an environment variable."""
StorageOptions = Annotated[dict[str, _Value], AfterValidator(_hidden_options)]
"""Options of an object store by name, those that may be secret hidden or named by an environment variable."""


def refuse_password(place: str) -> str:
    """Return a path or a URL in which there is no password.

    Raises:
        ValueError: there is one, which would stand in every message about the place.
    """
    if "://" in place and masked_address(place) != place:
        raise ValueError(
            f"{masked_address(place)} has a password or a key in it; give the place alone, and credentials in `storage_options`"
        )
    return place


Place = Annotated[str, AfterValidator(refuse_password)]
"""A path or a URL that stands in messages and on pages."""


def revealed(value: str | SecretStr | FromEnvironment, setting: str) -> str:
    """Return the value of a setting for the program that needs it.

    Raises:
        SettingsError: it is to come from an environment variable that is not set.
    """
    if isinstance(value, FromEnvironment):
        found = os.environ.get(value.env)
        if not found:
            raise SettingsError(f"`{setting}` is the environment variable {value.env}, which is not set; set it")
        return found
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def revealed_options(options: Mapping[str, str | SecretStr | FromEnvironment], setting: str) -> dict[str, str]:
    """Return the options of an object store for delta-rs.

    Raises:
        SettingsError: one is to come from an environment variable that is not set, or is an address with a password, which
            object stores do not take and delta-rs repeats in its errors.
    """
    found = {name: revealed(value, f"{setting}.{name}") for name, value in options.items()}
    for name, value in found.items():
        if _USER_INFO.search(value) and "proxy" not in name.lower():
            raise SettingsError(
                f"`{setting}.{name}` is an address with a user or a password in it; give the address alone, and credentials by "
                "the options that the object store has for them"
            )
    return found


def secrets_of(options: Mapping[str, str]) -> list[str]:
    """Return the values of an object store's options that nobody may see."""
    return [value for name, value in options.items() if _is_secret(name, value)]


def shown_options(options: Mapping[str, str]) -> dict[str, str]:
    """Return the options for a page or a message."""
    return {name: HIDDEN if _is_secret(name, value) else value for name, value in options.items()}


def shown_command(words: Iterable[str]) -> str:
    """Return the words of a command for a page or a message: without passwords in addresses and values of secret options."""
    shown: list[str] = []
    for word in words:
        is_value = bool(shown) and not word.startswith("-") and _SECRET_FLAG.fullmatch(shown[-1])
        flag, equals, _ = word.partition("=")
        if is_value:
            shown.append(HIDDEN)
        elif equals and _SECRET_FLAG.fullmatch(flag):
            shown.append(f"{flag}={HIDDEN}")
        else:
            shown.append(masked_address(word))
    return " ".join(shown)


def masked_address(address: str) -> str:
    """Return a URI for a page or a message: without user and password, and without parameters that are secret."""
    return _SECRET_PARAMETER.sub(rf"\g<1>{HIDDEN}", _USER_INFO.sub(_without_password, address))


def _without_password(found: re.Match[str]) -> str:
    # The user of a database is no secret; that of a server may be a token.
    is_user_alone = ":" not in found[0][3:] and not found.string[: found.start()].endswith(("http", "https"))
    return found[0] if is_user_alone else f"://{HIDDEN}@"


def secret_advice(setting: str) -> str:
    """Return what is said of a secret that is written in lorif.toml."""
    return (
        f"`{setting}` is a secret that is written in the settings file: name an environment variable in its place, "
        '{ env = "NAME" }'
    )


def logged_in(address: str) -> str:
    """Hand the user and password in a server's address to MLflow, and return the address without them.

    By its environment variables, as MLflow prints the address with each run, and repeats it in its errors. A database's
    password stays where it is.
    """
    place, login = separated_login(address)
    if login:
        os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = login
    return place


def separated_login(address: str) -> tuple[str, tuple[str, str] | None]:
    """Return the address of a server without a user and a password in it, and these; other addresses as they are."""
    parts = urlsplit(address)
    login, at, place = parts.netloc.rpartition("@")
    if not at or parts.scheme not in {"http", "https"}:
        return address, None
    user, _, password = login.partition(":")
    return urlunsplit(parts._replace(netloc=place)), (unquote(user), unquote(password))


def secrets_in(address: str) -> list[str]:
    """Return what of a URI nobody may see: the password as it is written and as it is meant."""
    found = _USER_INFO.search(address)
    login = found[0][len("://") : -1] if found else ""
    password = login.partition(":")[2] or (login if address.startswith("http") else "")
    parameters = [found[0].partition("=")[2] for found in _SECRET_PARAMETER.finditer(address)]
    return [found for found in (password, unquote(password), *parameters) if found]


@dataclass(frozen=True)
class Hidden(Generic[_Kind]):
    """A value that is handed on, and shown nowhere."""

    value: _Kind = field(repr=False)


@contextmanager
def kept_secret(secrets: Iterable[str]) -> Iterator[None]:
    """Let no error of the block tell a secret: one that does goes on as a `MaskedError`, alone.

    Raises:
        MaskedError: in place of an error that tells one, by itself or by its causes.
    """
    hidden = sorted({secret for secret in secrets if len(secret) >= _SHORTEST}, key=len, reverse=True)
    try:
        yield
    except Exception as error:
        told = "".join(_words(error))
        if not any(secret in told for secret in hidden):
            raise
        words = str(error)
        for secret in hidden:
            words = words.replace(secret, HIDDEN)
        # Without the cause, which would be shown with the error.
        raise MaskedError(words) from None


def _words(error: BaseException | None) -> Iterator[str]:
    """Yield what an error and those behind it say, without the lines of code that a traceback shows."""
    while error:
        yield from traceback.format_exception_only(error)
        error = error.__cause__ or error.__context__


def _is_secret(name: str, value: str) -> bool:
    lowered = name.lower()
    if masked_address(value) != value or _SECRET_OPTION.search(lowered):
        return True
    return _PUBLIC_OPTION.search(lowered) is None
