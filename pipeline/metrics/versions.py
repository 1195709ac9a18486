"""Versions of what is learned in metrics, such as SPICE-fast's parser: another one gives other numbers."""

import pkgutil
from collections.abc import Collection, Mapping
from typing import Any

from spidercap.pipeline.metrics.registry import METRICS, single_rows


def versions_in_use(shown: Collection[str]) -> dict[str, str]:
    """Returns the versions of what is learned in the metrics of these columns, by `Metric.learned`."""
    return {row.learned: pkgutil.resolve_name(row.version)() for row in single_rows(shown) if row.learned}


def split_versions(content: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the scores of a stored result, and the versions beside them, of which old results have none."""
    learned = {row.learned for row in METRICS.values() if row.learned}
    versions = {name: value for name, value in content.items() if name in learned and isinstance(value, str)}
    return {name: value for name, value in content.items() if name not in versions}, versions
