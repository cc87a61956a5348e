"""The check that Influcoder's libraries, which are an extra, are installed."""

from importlib.util import find_spec

from lorif_assets.errors import SettingsError

EXTRA = "influcoder"
_LIBRARIES = ("sentence_transformers", "sklearn", "scipy")


def require_influcoder() -> None:
    """Refuse to go on without the libraries.

    Raises:
        SettingsError: one is not installed.
    """
    missing = [name for name in _LIBRARIES if find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"Influcoder needs the library {missing[0]}, which is not installed; install the extra `{EXTRA}`: "
            f"pip install 'lorif-assets[{EXTRA}]', or leave `influcoder.enabled` and `recipe.recall` off"
        )


def require_faiss() -> None:
    """Refuse to search approximately without its library.

    Raises:
        SettingsError: it is not installed.
    """
    if find_spec("faiss") is None:
        raise SettingsError(
            "there are more examples than `influcoder.exact_up_to`, and the approximate index needs the library faiss, which "
            f"is not installed; install the extra `{EXTRA}`: pip install 'lorif-assets[{EXTRA}]', or raise the setting"
        )
