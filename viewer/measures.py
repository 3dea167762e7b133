"""Counters and latencies of the running server, as Prometheus reads them. No label holds a person or a patient."""

import threading
from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the histograms' buckets, in seconds."""


@dataclass
class _Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    total: float = 0.0


class Measures:
    """What the server counts; threads may count at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[tuple[str, tuple[tuple[str, str], ...]], float] = defaultdict(float)
        self._gauges: dict[str, float] = {}
        self._latencies: dict[tuple[str, tuple[tuple[str, str], ...]], _Histogram] = defaultdict(_Histogram)

    def count(self, name: str, by: float = 1, **labels: str) -> None:
        """Add to a counter, such as `count("queries")`; it is shown as `mammoseek_queries_total`."""
        with self._lock:
            self._counters[name, tuple(sorted(labels.items()))] += by

    def set(self, name: str, value: float) -> None:
        """Set a gauge, such as `set("rows", 100)`; it is shown as `mammoseek_rows`."""
        with self._lock:
            self._gauges[name] = float(value)

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Add a duration to a histogram, such as `observe("search", 0.003)`; it is `mammoseek_search_seconds`."""
        with self._lock:
            histogram = self._latencies[name, tuple(sorted(labels.items()))]
            histogram.counts[bisect_left(BOUNDS_S, seconds)] += 1
            histogram.total += seconds

    def text(self) -> str:
        """Return everything in Prometheus' text format."""
        with self._lock:
            lines = [*self._counter_lines(), *self._gauge_lines(), *self._latency_lines()]
        return "\n".join(lines) + "\n"

    def _counter_lines(self) -> list[str]:
        lines: list[str] = []
        for (name, labels), value in sorted(self._counters.items()):
            _head(lines, f"mammoseek_{name}_total", "counter")
            lines.append(f"mammoseek_{name}_total{_labels(labels)} {value:g}")
        return lines

    def _gauge_lines(self) -> list[str]:
        lines: list[str] = []
        for name, value in sorted(self._gauges.items()):
            _head(lines, f"mammoseek_{name}", "gauge")
            lines.append(f"mammoseek_{name} {value:g}")
        return lines

    def _latency_lines(self) -> list[str]:
        lines: list[str] = []
        for (name, labels), histogram in sorted(self._latencies.items(), key=lambda item: item[0]):
            full = f"mammoseek_{name}_seconds"
            _head(lines, full, "histogram")
            running = 0
            for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), histogram.counts, strict=True):
                running += count
                lines.append(f"{full}_bucket{_labels((*labels, ('le', bound)))} {running}")
            lines.append(f"{full}_sum{_labels(labels)} {histogram.total:.6f}")
            lines.append(f"{full}_count{_labels(labels)} {running}")
        return lines


def _head(lines: list[str], name: str, kind: str) -> None:
    line = f"# TYPE {name} {kind}"
    if line not in lines:
        lines.append(line)


def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    if not labels:
        return ""
    parts = (f'{name}="{_escaped(value)}"' for name, value in labels)
    return "{" + ",".join(parts) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
