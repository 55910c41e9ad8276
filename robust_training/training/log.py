"""The log of a run: log.csv, and the same numbers for TensorBoard."""

import csv
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from robust_training.atomic_io import write_bytes, write_text

Row = dict[str, float]  # column -> value; one row for each epoch


def write_log(output: Path, rows: Sequence[Row]) -> None:
    """Rewrite output/log.csv and output/tensorboard/ from all rows, so that both are complete after
    a kill and no epoch is listed twice."""
    write_bytes(output / "tensorboard" / "events.out.tfevents.0", _events(rows))
    write_text(output / "log.csv", csv_text(rows))


def read_log(folder: str | os.PathLike | None) -> list[Row]:
    """Read the rows of a run's log.csv; NaN for text that is no number. Return an empty list if
    there is no folder, no file or no column `epoch`."""
    file = None if folder is None else Path(folder) / "log.csv"
    if file is None or not file.is_file():
        return []
    with open(file, encoding="utf-8", errors="replace", newline="") as lines:
        rows = list(csv.DictReader(lines))
    if not rows or "epoch" not in rows[0]:
        return []
    return [{name: _number(row[name]) for name in rows[0] if name} for row in rows]


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def csv_text(rows: Sequence[Row]) -> str:
    """Return a CSV table with a column for each name in any of the rows."""
    text = io.StringIO()
    columns = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _events(rows: Sequence[Row]) -> bytes:
    """TensorBoard's records. The time of a record is the training time so far."""
    data = io.BytesIO()
    writer = RecordWriter(data)
    writer.write(Event(file_version="brain.Event:2").SerializeToString())
    elapsed = 0.0
    for row in rows:
        elapsed += row["seconds"]
        values = [Summary.Value(tag=name, simple_value=value) for name, value in row.items()]
        event = Event(wall_time=elapsed, step=int(row["epoch"]), summary=Summary(value=values))
        writer.write(event.SerializeToString())
    return data.getvalue()
