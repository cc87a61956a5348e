"""Libraries of methods that are extras, looked for before hours are spent on the other methods."""

from lorif_assets.config.evaluation import EvaluationSettings
from lorif_assets.config.methods import MethodName
from lorif_assets.evaluation.methods.ekfac import require_kronfluence
from lorif_assets.influcoder.extra import require_influcoder

_REQUIRE = {MethodName.EKFAC: require_kronfluence, MethodName.EMBEDDINGS: require_influcoder}


def require_libraries(settings: EvaluationSettings) -> None:
    """Refuse methods of the settings whose libraries are not installed.

    Raises:
        SettingsError: there is such a method.
    """
    chosen = {*settings.methods}
    chosen |= {*settings.removal_methods} if settings.removal_query_sets else set()
    chosen |= {*settings.selection_methods} if settings.selection_query_sets else set()
    for method, require in _REQUIRE.items():
        if method in chosen:
            require()
