"""What each check said when it last ran, as Dagster's event log has it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from lorif_assets.checks import CHECKS
from lorif_assets.influences.trust import CheckOutcome


def latest_results(home: Path) -> list[CheckOutcome]:
    """Return the newest outcome of each check that ran under a home of Dagster; none where nothing ran there yet."""
    # Dagster would make its files there.
    if not home.is_dir() or not any(home.iterdir()):
        return []
    with dg.DagsterInstance.from_config(str(home)) as instance:
        return list(outcomes(instance))


def outcomes(instance: dg.DagsterInstance) -> Iterator[CheckOutcome]:
    """Yield the newest outcome of each check that ran in an instance."""
    keys = [key for check in CHECKS for key in check.check_keys]
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    for key in keys:
        record = records.get(key)
        event = record.event.dagster_event if record and record.event else None
        evaluation = event.asset_check_evaluation_data if event and event.event_specific_data else None
        if record is None or evaluation is None:
            continue
        remedy = evaluation.metadata.get("remedy")
        yield CheckOutcome(
            name=key.name,
            passed=evaluation.passed,
            is_warning=evaluation.severity is dg.AssetCheckSeverity.WARN,
            words=evaluation.description or ("passed" if evaluation.passed else "failed"),
            remedy=str(remedy.value) if remedy else None,
            when=datetime.fromtimestamp(record.create_timestamp, UTC),
        )
