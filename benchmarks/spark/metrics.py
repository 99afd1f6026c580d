"""What Spark's event log says of each table that was written: seconds of tasks, shuffles, the longest task."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median


@dataclass
class Written:
    """One table.

    Attributes:
        tasks: seconds of each task. cpu: processor seconds of all. shuffled, spilled: bytes.
        read: by stage, bytes each task read from shuffles.
    """

    tasks: list[float] = field(default_factory=list)
    cpu: float = 0.0
    shuffled: int = 0
    records: int = 0
    spilled: int = 0
    read: dict[int, list[int]] = field(default_factory=dict)

    @property
    def skew(self) -> float:
        """The largest part of a shuffle that one task read, over the median of its stage; the worst stage's."""
        parts = [own for own in self.read.values() if len(own) > 1 and sum(own) > 1_000_000]
        return max((max(own) / max(median(own), 1) for own in parts), default=1.0)


def read(folder: Path) -> dict[str, Written]:
    """By job description without its prefix; jobs without one count as ``other``."""
    name_of: dict[int, str] = {}
    found: dict[str, Written] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        for line in path.read_text(encoding="utf-8").splitlines():
            event = json.loads(line)
            if event["Event"] == "SparkListenerJobStart":
                about = event.get("Properties", {}).get("spark.job.description") or "m6rec other"
                for stage in event["Stage IDs"]:
                    name_of.setdefault(stage, about.removeprefix("m6rec "))
            elif event["Event"] == "SparkListenerTaskEnd" and event.get("Task Metrics"):
                _add(found.setdefault(name_of.get(event["Stage ID"], "other"), Written()), event)
    return found


def _add(table: Written, event: dict) -> None:
    metrics = event["Task Metrics"]
    table.tasks.append(metrics["Executor Run Time"] / 1000)
    table.cpu += metrics["Executor CPU Time"] / 1e9
    table.shuffled += metrics["Shuffle Write Metrics"]["Shuffle Bytes Written"]
    table.records += metrics["Shuffle Write Metrics"]["Shuffle Records Written"]
    table.spilled += metrics["Disk Bytes Spilled"]
    source = metrics["Shuffle Read Metrics"]
    table.read.setdefault(event["Stage ID"], []).append(source["Remote Bytes Read"] + source["Local Bytes Read"])
