"""What a check reports: whether it passed, what was found wrong, and what to do."""

from collections.abc import Iterable
from typing import Any

import dagster as dg


def check_result(
    good: str,
    wrong: Iterable[str],
    remedy: str | None = None,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    **figures: Any,
) -> dg.AssetCheckResult:
    """Return a check's result: passed where nothing was found wrong, else with the first twenty findings."""
    found = list(wrong)
    metadata: dict[str, Any] = {**figures, "found_wrong": len(found)}
    if found:
        metadata["first"] = dg.MetadataValue.md("\n".join(f"* `{line}`" for line in found[:20]))
    if found and remedy:
        metadata["remedy"] = remedy
    return dg.AssetCheckResult(
        passed=not found,
        severity=severity,
        description=good if not found else f"{len(found)} found wrong, the first: {found[0]}",
        metadata=metadata,
    )
