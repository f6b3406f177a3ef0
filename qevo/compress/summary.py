"""Where the bytes of a compressed file go."""

from __future__ import annotations

import dataclasses

import numpy as np

from qevo.compress.container import CompressedNetwork


@dataclasses.dataclass(frozen=True)
class LayerSummary:
    """One layer of a file.

    Attributes:
      name: of the layer.
      shape: of its kernel.
      bits: the levels it may have: "ternary" or 2 to 8.
      weights: how many.
      zeros: how many of them are zero.
      levels: different weights that occur.
      bytes: of its part of the file.
      bits_per_weight: those bytes, per weight.
      entropy: bits per weight that its level counts alone allow. A part may take less where zeros
        gather in rows or columns.
      overhead: bytes beyond that, as a share of it; negative where a part takes less.
    """

    name: str
    shape: tuple[int, ...]
    bits: str | int
    weights: int
    zeros: int
    levels: int
    bytes: int
    bits_per_weight: float
    entropy: float
    overhead: float | None


@dataclasses.dataclass(frozen=True)
class FileSummary:
    """A file and its layers.

    Attributes:
      layers: in the order of computation.
      parameters: of the float network: weights, and one bias for each output channel.
      weights, zeros: of all layers.
      bytes: of the file.
      constants: bytes of multipliers, biases, shifts and the image rule.
      overhead: bytes of header, scales, sizes and digest.
      entropy_bytes: of the weights, by the level counts of each layer.
      ratio: four bytes for every float parameter over ``bytes``.
      about: what the network was measured at.
    """

    layers: tuple[LayerSummary, ...]
    parameters: int
    weights: int
    zeros: int
    bytes: int
    constants: int
    overhead: int
    entropy_bytes: float
    ratio: float
    about: dict[str, str | float]


def summarise(file: CompressedNetwork) -> FileSummary:
    """Decode each layer in turn and count.

    Raises:
      CompressedFileError: a damaged layer.
    """
    layers = []
    for part in file.parts:
        counts = np.bincount(part.weights().view(np.uint8).ravel(), minlength=256)
        total, present = int(counts.sum()), counts[counts > 0]
        entropy = float(-(present * np.log2(present / total)).sum() / total)
        size = len(part.data)
        layers.append(
            LayerSummary(
                name=part.header.name,
                shape=part.header.shape,
                bits=part.header.bits,
                weights=total,
                zeros=int(counts[0]),
                levels=len(present),
                bytes=size,
                bits_per_weight=8 * size / total,
                entropy=abs(entropy),
                overhead=8 * size / (entropy * total) - 1 if entropy else None,
            )
        )
    coded = sum(layer.bytes for layer in layers)
    return FileSummary(
        layers=tuple(layers),
        parameters=file.parameters,
        weights=sum(layer.weights for layer in layers),
        zeros=sum(layer.zeros for layer in layers),
        bytes=file.size,
        constants=len(file.constants),
        overhead=file.size - len(file.constants) - coded,
        entropy_bytes=sum(layer.entropy * layer.weights / 8 for layer in layers),
        ratio=file.ratio,
        about=dict(file.header.about),
    )
