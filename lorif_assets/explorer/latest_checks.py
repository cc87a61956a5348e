"""What the checks of assets said when they last ran, read again while the explorer runs."""

import logging
from collections.abc import Sequence
from pathlib import Path

from lorif_assets.explorer.background_look import BackgroundLook
from lorif_assets.influences.trust import CheckOutcome

_LOG = logging.getLogger(__name__)
_KEPT_SECONDS = 10.0


class LatestChecks:
    """The last outcome of each check, in Dagster's records; none where there are none."""

    def __init__(self, dagster_home: Path | None) -> None:
        """Take Dagster's home; None: there is none."""
        self._home = dagster_home
        self._read: Sequence[CheckOutcome] = ()
        self._look: BackgroundLook[Sequence[CheckOutcome]] = BackgroundLook(
            self._outcomes, self._read, _KEPT_SECONDS, "checks"
        )

    def outcomes(self, patience: float = 0.0) -> Sequence[CheckOutcome]:
        """Return what is known, and have it read again in the background where that is some seconds old.

        Args:
            patience: seconds that this may take where it is being read.
        """
        return () if self._home is None else self._look.found(patience)

    def _outcomes(self) -> Sequence[CheckOutcome]:
        from lorif_assets.checks.latest_results import latest_results

        try:
            if self._home is not None:
                self._read = latest_results(self._home)
        except Exception as error:
            _LOG.warning("What the checks said last cannot be read from %s: %s", self._home, error)
        return self._read
