"""The folder of a search: its checkpoint and its metrics."""

from __future__ import annotations

import contextlib
import json
import pathlib
from typing import Any

from qevo.core.checkpoint import load_checkpoint, save_checkpoint
from qevo.core.generation import Carry
from qevo.core.writing import naming, write_atomically
from qevo.errors import QevoError

CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.jsonl"


class RunFolder:
    """A search's checkpoint and metrics on disk.

    Args:
      path: the folder; made with the first checkpoint.
      fingerprint: what a resumed run must share; plain JSON values.
      generations, seconds: how often `note` writes a checkpoint; whichever comes first.
    """

    def __init__(
        self,
        path: pathlib.Path,
        fingerprint: dict[str, Any],
        *,
        generations: int | None,
        seconds: float,
    ):
        self.path = path
        self.checkpoint = path / CHECKPOINT
        self.metrics = path / METRICS
        self.fingerprint = fingerprint
        self._every = generations, seconds
        self._saved = 0, 0.0  # generation and seconds of the last checkpoint

    def check_unused(self) -> None:
        """Refuse to write over another run.

        Raises:
          QevoError: there is one.
        """
        if self.checkpoint.exists() or self.metrics.exists():
            raise QevoError(
                f"{self.path} already holds a run; resume it, or choose another folder (nothing in "
                "it was changed)"
            )

    def load(self, shapes: Carry) -> tuple[Carry, float]:
        """Where the last session stopped, and the seconds spent until then.

        Raises:
          QevoError: as `load_checkpoint`.
        """
        carry, progress = load_checkpoint(self.checkpoint, shapes, self.fingerprint)
        self._saved = int(carry.generation), progress["seconds"]
        return carry, progress["seconds"]

    def save(self, carry: Carry, seconds: float) -> None:
        """Write the checkpoint, with the seconds that the run has taken."""
        with naming(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        save_checkpoint(self.checkpoint, carry, self.fingerprint, {"seconds": seconds})
        self._saved = int(carry.generation), seconds

    def note(self, carry: Carry, records: list[dict[str, int]], seconds: float) -> None:
        """Append one line a generation to the metrics; write the checkpoint where it is due."""
        with naming(self.metrics), self.metrics.open("a", encoding="utf-8") as f:
            f.writelines(json.dumps(record) + "\n" for record in records)
        every_generations, every_seconds = self._every
        generation, saved_at = self._saved
        due = every_generations and int(carry.generation) - generation >= every_generations
        if due or seconds - saved_at >= every_seconds:
            self.save(carry, seconds)

    def rewind(self) -> None:
        """Drop metrics later than the checkpoint that was loaded: those generations run again."""
        if not self.metrics.exists():
            return
        generation = self._saved[0]
        kept = [r for r in read_metrics(self.metrics) if r["generation"] <= generation]
        text = "".join(json.dumps(record) + "\n" for record in kept)
        write_atomically(self.metrics, text.encode())


def read_metrics(path: pathlib.Path) -> list[dict[str, int]]:
    """The records of a metrics.jsonl, one a generation; of a search that has not begun, none.

    A line that is on its way, or was cut short by a kill, is none.
    """
    records = []
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in text.splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return records
