"""Scores as a plain-text table."""

from collections.abc import Mapping


def table(rows: Mapping[str, Mapping[str, float | None]]) -> str:
    """Returns a plain-text table, one row per name, one column per metric."""
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    width = max([len(name) for name in rows] + [5])
    lines = [" " * width + "".join(f"{c:>{max(len(c), 6) + 2}}" for c in columns)]
    for name, row in rows.items():
        cells = "".join(f"{_short(row.get(c)):>{max(len(c), 6) + 2}}" for c in columns)
        lines.append(f"{name:<{width}}{cells}")
    return "\n".join(lines)


def whole_metrics(corpus: Mapping[str, float | None]) -> dict[str, float | None]:
    """Returns all metrics but SPICE's parts, which would not fit into a table."""
    return {name: score for name, score in corpus.items() if not name.startswith("SPICE ")}


def _short(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3f}" if value < 5 else f"{value:.2f}"
