"""How this process reaches the hub: endpoint, cache and offline mode, as the environment says, and what went wrong."""

import os
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TypeVar

from lorif_assets.errors import HubError
from lorif_assets.hub.names import HubName

PATIENCE_SECONDS = 15.0
"""How long the hub may take for one answer, files aside."""
OFFLINE = "offline mode forbids to ask the hub (HF_HUB_OFFLINE)"
_PAUSE_SECONDS = 30.0
"""How long an endpoint that did not answer is left alone, so that a look at several names waits once."""
_SLOW_SECONDS = 1.0
"""What it costs to be refused, or to find no address, before that is taken for silence."""
_TRUE = {"1", "ON", "YES", "TRUE"}

_Answer = TypeVar("_Answer")
_silent_since: dict[str, float] = {}


class UnreachableError(HubError):
    """The hub did not answer, or this process may not ask it."""


def endpoint() -> str:
    """Return the address of the hub ($HF_ENDPOINT)."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or str(constants.ENDPOINT)).rstrip("/")


def shown_endpoint() -> str:
    """Return the hub's address for messages, without a user's name and password."""
    return _without_password(endpoint())


def cache() -> str:
    """Return the folder of downloaded files ($HF_HUB_CACHE, $HF_HOME)."""
    from huggingface_hub import constants

    home = os.environ.get("HF_HOME")
    folder = os.environ.get("HF_HUB_CACHE") or (f"{home}/hub" if home else str(constants.HF_HUB_CACHE))
    return str(Path(os.path.expandvars(folder)).expanduser().absolute())


def is_offline() -> bool:
    """Whether the hub must not be asked ($HF_HUB_OFFLINE, $TRANSFORMERS_OFFLINE)."""
    from huggingface_hub import constants

    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").upper() in _TRUE for name in names) or bool(constants.is_offline_mode())


def asked(name: HubName, question: Callable[[], _Answer], *, is_download: bool = False) -> _Answer:
    """Return the hub's answer to a question about a repository.

    Args:
        name: the repository.
        question: asks by huggingface_hub.
        is_download: whether files come with the answer, which may take any time; every read of them has a limit.

    Raises:
        UnreachableError: there is none in time, or offline mode forbids to ask.
        HubError: the hub refuses it.
    """
    from httpx2 import HTTPError, InvalidURL  # huggingface_hub's
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    address = endpoint()
    silent_for = time.monotonic() - _silent_since.get(address, float("-inf"))
    if silent_for < _PAUSE_SECONDS:
        raise UnreachableError(f"{shown_endpoint()} did not answer {silent_for:.0f} seconds ago")
    began = time.monotonic()
    try:
        return question() if is_download else _in_time(question)
    except HfHubHTTPError as error:
        raise _refusal(name, error) from error
    except OfflineModeIsEnabled as error:
        raise UnreachableError(OFFLINE) from error
    except (HTTPError, InvalidURL, LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
        if isinstance(cause, HfHubHTTPError):
            raise _refusal(name, cause) from error
        is_slow = not is_download and time.monotonic() - began > _SLOW_SECONDS
        if is_slow or isinstance(cause, TimeoutError) or "Timeout" in type(cause).__name__:
            _silent_since[address] = time.monotonic()
        reason = _without_password(str(cause)) or type(cause).__name__
        raise UnreachableError(f"{shown_endpoint()} cannot be reached ({reason})") from error
    except OSError as error:
        raise HubError(f"files of {name} cannot be kept in the cache {cache()}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        # A page of something else, such as a network's log-in.
        raise UnreachableError(f"{shown_endpoint()} answers, but not as a hub does ({type(error).__name__})") from error


def in_background(question: Callable[[], _Answer]) -> Future[_Answer]:
    """Start to ask a question in a thread that does not keep the process, and return what will hold the answer."""
    answer: Future[_Answer] = Future()

    def ask() -> None:
        try:
            answer.set_result(question())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=ask, name="hub", daemon=True).start()
    return answer


def _in_time(question: Callable[[], _Answer]) -> _Answer:
    # huggingface_hub sets no limit to what it asks of the API.
    answer = in_background(question)
    if not wait([answer], PATIENCE_SECONDS).done:
        raise TimeoutError(f"no answer in {PATIENCE_SECONDS:g} seconds")
    return answer.result()


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//", text)


def _refusal(name: HubName, error: Exception) -> HubError:
    """Return what the hub's refusal means; the answer's own text is left out, as it may repeat a request's headers."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import (
        GatedRepoError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where, whose = shown_endpoint(), "with this machine's token" if get_token() else "without a token"
    what = "data set" if name.kind == "dataset" else "model"
    page = f"{where}/{'datasets/' if name.kind == 'dataset' else ''}{name.repository}"
    login = "set HF_TOKEN or run `hf auth login`"
    status = getattr(getattr(error, "response", None), "status_code", "no status")
    if isinstance(error, GatedRepoError):
        return HubError(f"{name} is gated, and cannot be read {whose}: ask for access at {page}, then {login}")
    # Without a token, the hub answers alike where there is none, and where it is private.
    if isinstance(error, RepositoryNotFoundError) or status == 401:
        return HubError(
            f"{where} has no {what} {name.repository!r} that can be read {whose}: correct the name, or, where it is private, "
            f"{login}"
        )
    if isinstance(error, RevisionNotFoundError):
        return HubError(
            f"{name.repository!r} has no revision {name.revision or 'main'!r} at {where}: name a branch, a tag or a whole "
            f"commit that {page} lists"
        )
    if isinstance(error, RemoteEntryNotFoundError):
        return HubError(f"{name} lacks a file that its listing names; was it removed from {page}?")
    if status == 403:
        return HubError(f"{where} refuses {name} {whose} ({status}): ask for access at {page}, then {login}")
    return UnreachableError(f"{where} failed to answer ({status})")
