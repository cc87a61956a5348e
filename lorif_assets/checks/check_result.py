"""What a check reports: whether it passed, what was found wrong, and what to do."""

from collections.abc import Iterable
from typing import Any

import dagster as dg

from lorif_assets.pages import markdown


def check_result(
    success: str,
    findings: Iterable[str],
    remedy: str | None = None,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    **figures: Any,
) -> dg.AssetCheckResult:
    """Return a check's result.

    Args:
        success: the description if nothing was found wrong.
        findings: what was found wrong; the check passes without any, and shows the first twenty.
        remedy: what to do about them.
        severity: of a failure.
        figures: further metadata.
    """
    lines = list(findings)
    metadata: dict[str, Any] = {**figures, "found_wrong": len(lines)}
    if lines:
        metadata["first"] = dg.MetadataValue.md(markdown.bullets(map(markdown.code, lines[:20])))
    if lines and remedy:
        metadata["remedy"] = remedy
    return dg.AssetCheckResult(
        passed=not lines,
        severity=severity,
        description=success if not lines else f"{len(lines)} found wrong, the first: {markdown.inline(lines[0])}",
        metadata=metadata,
    )
