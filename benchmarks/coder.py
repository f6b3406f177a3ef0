"""The coder of `.qevo` files: distance from the entropy, speed, memory, and zstandard beside it.

    python benchmarks/coder.py [--output results/coder.json]

Single layers at several shares of zeros, alike in all rows and not; then weights in the shapes of
YOLOv3, whose memory is that of a process of its own. Seconds are those of one core
(`process_time`). The weights are drawn (Laplace, pruned by magnitude, 15 uniform levels); only
their shapes are real.
"""

from __future__ import annotations

import dataclasses
import lzma
import math
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import tyro
import zstandard
from processes import in_a_process, peak_bytes
from record import record_of, write_record
from rich.console import Console
from rich.table import Table

from qevo.compress.coder import decode_layer, encode_layer

ZEROS = (0.0, 0.5, 0.9, 0.95, 0.98)
SHAPE = 3, 3, 512, 1024
STRONGEST = 22  # zstandard's level


@dataclasses.dataclass(frozen=True)
class Config:
    """Measure the coder."""

    zeros: float = 0.9
    """Share of zeros in the weights of YOLOv3's shapes."""
    shrink: int = 1
    """Divides the channels of every shape, for a quick look."""
    output: pathlib.Path | None = None
    """JSON file to write."""


def main(config: Config) -> None:
    """Measure, print tables, write JSON."""
    rows = [layer(zeros, spread, config.shrink) for zeros in ZEROS for spread in (0.0, 0.5)]
    table = Table(title=f"one layer of {math.prod(SHAPE) // config.shrink**2:,} weights", box=None)
    for column in rows[0]:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*map(_short, row.values()))
    console = Console()
    console.print(table)
    whole = in_a_process(yolo, config.zeros, config.shrink)
    console.print("weights in the shapes of YOLOv3:", whole)
    if config.output:
        found = {"layers": rows, "yolov3": whole}
        record = record_of(__file__, config, found, packages=("zstandard",))
        write_record(config.output, record)


def weights(shape: tuple[int, ...], zeros: float, spread: float, seed: int) -> np.ndarray:
    """Drawn int8 weights ``[..., C]``: in -7..7, that share of them zero.

    ``spread`` is the standard deviation of the log of each row's and each column's scale.
    """
    draw = np.random.default_rng(seed)
    rows, columns = math.prod(shape[:-1]), shape[-1]
    values = draw.laplace(size=(rows, columns)).astype(np.float32)
    values *= np.exp(draw.normal(0, spread, (rows, 1))) * np.exp(draw.normal(0, spread, columns))
    size = np.abs(values)
    floor = np.quantile(size, zeros)
    step = np.quantile(size, 0.999) / 7
    levels = np.where(size > floor, np.sign(values) * np.clip(np.rint(size / step), 1, 7), 0)
    return levels.astype(np.int8).reshape(shape)


def layer(zeros: float, spread: float, shrink: int) -> dict[str, float]:
    """One layer: sizes in bytes, speeds in million weights per second of one core."""
    shape = (*SHAPE[:2], SHAPE[2] // shrink, SHAPE[3] // shrink)
    kernel = weights(shape, zeros, spread, 0)
    share = np.unique(kernel, return_counts=True)[1] / kernel.size
    entropy = float(-(share * np.log2(share)).sum()) * kernel.size / 8
    began = time.process_time()
    coded = encode_layer(kernel)
    middle = time.process_time()
    same = np.array_equal(decode_layer(coded.data, shape), kernel)
    ended = time.process_time()
    assert same
    return {
        "zeros": zeros,
        "spread": spread,
        "entropy": entropy,
        "model": coded.model_bits / 8,
        "bytes": len(coded.data),
        "over_model_%": 100 * (8 * len(coded.data) / coded.model_bits - 1),
        "zstd": min(map(len, map(zstandard.ZstdCompressor(STRONGEST).compress, packed(kernel)))),
        "xz": min(
            len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)) for data in packed(kernel)
        ),
        "encode": kernel.size / (middle - began) / 1e6,
        "decode": kernel.size / (ended - middle) / 1e6,
    }


def packed(kernel: np.ndarray) -> list[bytes]:
    """The symbols as another compressor may like them: one or, where that holds them, half a byte.

    Output channels lie apart; of both packings the smaller outcome counts.
    """
    symbols = np.ascontiguousarray(kernel.reshape(-1, kernel.shape[-1]).T).ravel()
    found = [symbols.tobytes()]
    if symbols.min() >= -8 and symbols.max() <= 7:
        halves = np.append(symbols, np.zeros(len(symbols) % 2, np.int8)).view(np.uint8) & 15
        found.append((halves[::2] << 4 | halves[1::2]).tobytes())
    return found


def yolo(zeros: float, shrink: int) -> dict[str, Any]:
    """All layers in turn, coded and decoded; only the coded bytes of all are kept."""
    encoding = decoding = 0.0
    count = size = 0
    before = peak_bytes()
    for place, shape in enumerate(yolov3_shapes(shrink)):
        kernel = weights(shape, zeros, 0.5, place)
        began = time.process_time()
        data = encode_layer(kernel).data
        middle = time.process_time()
        same = np.array_equal(decode_layer(data, shape), kernel)
        assert same
        decoding += time.process_time() - middle
        encoding += middle - began
        count, size = count + kernel.size, size + len(data)
    return {
        "weights": count,
        "bytes": size,
        "times_smaller_than_float32": 4 * count / size,
        "encode_seconds": encoding,
        "decode_seconds": decoding,
        "peak_bytes": peak_bytes(),
        "bytes_before": before,
    }


def yolov3_shapes(shrink: int = 1) -> Iterator[tuple[int, int, int, int]]:
    """Its 75 convolutions: Darknet-53 without its classifier, and three heads of 255 channels."""

    def conv(size: int, inputs: int, outputs: int) -> tuple[int, int, int, int]:
        return size, size, max(inputs // shrink, 1), max(outputs // shrink, 1)

    yield conv(3, 3 * shrink, 32)
    channels = 32
    for blocks in (1, 2, 8, 8, 4):
        yield conv(3, channels, 2 * channels)
        channels *= 2
        for _ in range(blocks):
            yield conv(1, channels, channels // 2)
            yield conv(3, channels // 2, channels)
    for inputs, width in ((1024, 512), (768, 256), (384, 128)):
        if width < 512:
            yield conv(1, 2 * width, width)
        for step in range(3):
            yield conv(1, inputs if step == 0 else 2 * width, width)
            yield conv(3, width, 2 * width)
        yield conv(1, 2 * width, 255)


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value / 1000:,.1f} k"


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
