"""Tasks and results as Flower's messages, with the record keys that Flower's apps use."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from antefix_simulations.run.task import Result, Task

__all__ = ["result_in", "result_of", "task_in", "task_of"]


def task_of(task: Task, out: str, settings: str) -> RecordDict:
    """What a worker is told; it reads texts and keys from the run's folder."""
    fields = asdict(task)
    shared = np.frombuffer(fields.pop("shared"), np.uint8)
    config = ConfigRecord({"task": json.dumps(fields), "out": out, "settings": settings})
    return RecordDict({"arrays": ArrayRecord({"shared": Array(shared)}), "config": config})


def task_in(content: RecordDict) -> tuple[Task, str, str]:
    """Task, folder and settings of a message."""
    config = content.config_records["config"]
    fields: dict[str, Any] = json.loads(str(config["task"]))
    shared = content.array_records["arrays"]["shared"].numpy().tobytes()
    return Task(**fields, shared=shared), str(config["out"]), str(config["settings"])


def result_of(result: Result) -> RecordDict:
    """What a worker answers: sums and counts, and records that are sealed."""
    config = ConfigRecord({"result": result.to_bytes(), "users": list(result.records)})
    config["records"] = list(result.records.values())
    total = np.zeros(0) if result.sum is None else result.sum
    return RecordDict(
        {
            "arrays": ArrayRecord({"sum": Array(total)}),
            "metrics": MetricRecord({"num-examples": result.weight}),
            "config": config,
        }
    )


def result_in(content: RecordDict) -> Result:
    """The result in an answer."""
    config: dict[str, Any] = dict(content.config_records["config"])
    result = Result.from_bytes(config["result"])
    total = content.array_records["arrays"]["sum"].numpy()
    result.sum = total if len(total) else None
    result.records = dict(zip(config["users"], config["records"], strict=True))
    return result
