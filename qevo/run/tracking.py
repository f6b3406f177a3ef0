"""A search's metrics, generation by generation, for TensorBoard and other trackers."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from qevo.core.folder import METRICS, read_metrics
from qevo.core.hosts import is_first
from qevo.errors import QevoError

Record = dict[str, int]  # "generation", and what was measured in it
Callback = Callable[[Record], None]

_SUFFIX = ".qevo"  # of the event files that may be replaced, because they are ours
_FLUSH = 10  # seconds between looks at an event file that find something


def to_tracker(
    log: Callable[..., object], *, prefix: str = "", every: int = 1, after: int = 0
) -> Callback:
    """A callback for `qevo.evolve` or `run_pipeline` that calls ``log(values, step=generation)``.

    That is how the usual trackers are called: ``run.log`` of Weights & Biases, ``log_metrics`` of
    MLflow and of Comet. Of several processes, process 0 alone calls it.

    Args:
      log: called with a dict of integers by name, in order of the generations.
      prefix: goes in front of every name.
      every: hand on one generation in so many; 10 and 20 and so on where it is 10.
      after: the last step that the tracker has from an earlier session. A search that was killed
        repeats, with the same values, what came after its last checkpoint.

    Raises:
      QevoError: ``every`` is below 1.
    """
    if every < 1:
        raise QevoError(f"every must be at least 1, got {every}")

    def hand_on(record: Record) -> None:
        step = record["generation"]
        if step > after and step % every == 0 and is_first():
            named = {prefix + name: v for name, v in record.items() if name != "generation"}
            log(named, step=step)

    return hand_on


class TensorBoard:
    """An event file of the search in a folder, one scalar for each metric and generation.

    A context manager, and within it a callback for `qevo.evolve`. The file is begun again with what
    the folder's metrics.jsonl holds, so after a kill and a resume every step is there once, also
    those of sessions without TensorBoard. Of several processes, process 0 alone writes.

    TensorBoard keeps 32-bit floats: numbers above 2**24 are exact in metrics.jsonl only.

    Args:
      folder: that of the search, or any other for a search that keeps none.

    Raises:
      QevoError: tensorboardX is not installed.
    """

    def __init__(self, folder: str | pathlib.Path):
        self._folder = pathlib.Path(folder)
        self._make = summary_writer()
        self._writer: Any = None

    def __enter__(self) -> TensorBoard:
        return self

    def __call__(self, record: Record) -> None:
        """Write what one generation measured."""
        if not is_first():
            return
        if self._writer is None:
            self._begin(record["generation"])
        self._write(record)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is None and error is None and is_first():
            self._begin(None)  # the search was done: no generation was left to begin with
        if self._writer is not None:
            self._writer.close()

    def _begin(self, first: int | None) -> None:
        """A file with the generations before ``first``, or all there are, in place of the last."""
        known = read_metrics(self._folder / METRICS)
        if not known and first is None:
            return
        for old in self._folder.glob(f"events.out.tfevents.*{_SUFFIX}"):
            old.unlink()
        self._writer = self._make(
            str(self._folder),
            purge_step=1,  # a TensorBoard that is open forgets what it has read of the last file
            flush_secs=_FLUSH,
            filename_suffix=_SUFFIX,
        )
        for record in known:
            if first is None or record["generation"] < first:
                self._write(record)

    def _write(self, record: Record) -> None:
        for name, value in record.items():
            if name != "generation":
                self._writer.add_scalar(name, value, record["generation"])


def summary_writer() -> Callable[..., Any]:
    """What writes event files.

    Raises:
      QevoError: it is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise QevoError(
            "writing for TensorBoard needs tensorboardX: "
            "pip install -e '.[tracking]' in qevo's checkout"
        ) from None
    return SummaryWriter


@contextlib.contextmanager
def stage_callback(
    stage: str,
    folder: pathlib.Path,
    *,
    before: int,
    tensorboard: bool,
    callback: Callback | None,
) -> Iterator[Callback]:
    """What `qevo.evolve` calls in one stage of a run.

    Args:
      stage: its name, which goes in front of what ``callback`` is told.
      folder: its folder, where TensorBoard's file goes.
      before: generations of the stages before it: ``callback`` counts through a run.
      tensorboard: whether to write that file.
      callback: whom else to tell.
    """
    with TensorBoard(folder) if tensorboard else contextlib.nullcontext() as board:

        def tell(record: Record) -> None:
            if board is not None:
                board(record)
            if callback is not None and is_first():
                named = {f"{stage}/{name}": v for name, v in record.items() if name != "generation"}
                callback({"generation": before + record["generation"]} | named)

        yield tell
