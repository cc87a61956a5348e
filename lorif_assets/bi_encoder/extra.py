"""Influcoder's libraries are an extra: what needs them asks here first."""

from importlib.util import find_spec

from lorif_assets.errors import SettingsError

EXTRA = "influcoder"
_LIBRARIES = ("peft", "sentence_transformers", "sklearn", "scipy")


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
