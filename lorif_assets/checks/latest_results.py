"""What each check said when it last ran, as Dagster's event log has it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from lorif_assets.checks import CHECKS
from lorif_assets.influences.trust import CheckOutcome

_EVALUATED = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}


def latest_results(home: Path) -> list[CheckOutcome]:
    """Return the newest outcome of each check that ran under a home of Dagster; none where nothing ran there yet."""
    # Dagster would make its files there.
    if not home.is_dir() or not any(home.iterdir()):
        return []
    with dg.DagsterInstance.from_config(str(home)) as instance:
        return list(outcomes(instance))


def outcomes(instance: dg.DagsterInstance) -> Iterator[CheckOutcome]:
    """Yield the newest outcome of each check that ran in an instance."""
    for key in (key for check in CHECKS for key in check.check_keys):
        # The last one that was evaluated: one that a run has only planned says nothing yet.
        records = instance.event_log_storage.get_asset_check_execution_history(key, limit=1, status=_EVALUATED)
        event = records[0].event.dagster_event if records and records[0].event else None
        if event is None:
            continue
        record, evaluation = records[0], event.asset_check_evaluation_data
        remedy = evaluation.metadata.get("remedy")
        yield CheckOutcome(
            name=key.name,
            passed=evaluation.passed,
            is_warning=evaluation.severity is dg.AssetCheckSeverity.WARN,
            words=evaluation.description or ("passed" if evaluation.passed else "failed"),
            remedy=str(remedy.value) if remedy else None,
            when=datetime.fromtimestamp(record.create_timestamp, UTC),
        )
