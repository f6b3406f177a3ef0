"""A detector: an architecture, and what its maps mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from qevo.detection import Detections, Placement, YoloHead, decode, suppress
from qevo.nets.maps import Shape, apart
from qevo.nets.traced import Traced

_BATCH = 32  # images whose boxes are decoded at once


@dataclasses.dataclass(frozen=True)
class Detector:
    """A detector's architecture, and what its output means.

    Attributes:
      module: takes images ``[B, H, W, C]`` of pixels by 1/255, and returns its maps in a row.
      image_shape: ``(H, W, C)``.
      heads: what each map means.
      shapes: ``(h, w, channels)`` of each map.
    """

    module: Traced
    image_shape: tuple[int, int, int]
    heads: tuple[YoloHead, ...]
    shapes: tuple[Shape, ...]

    def detections(
        self, outputs: Any, placements: Sequence[Placement] | None = None, **options: Any
    ) -> list[Detections]:
        """The objects that an output stands for.

        Args:
          outputs: real numbers ``[B, N]``; those of an integer network times its ``output_scale``.
          placements: where each image lies in the input, to have boxes in the image's own pixels.
          options: of `qevo.detection.suppress`.
        """
        found: list[Detections] = []
        size = self.image_shape[:2]
        for start in range(0, len(outputs), _BATCH):
            maps = apart(jnp.asarray(outputs[start : start + _BATCH], jnp.float32), self.shapes)
            found += suppress(*decode(maps, self.heads, size=size), **options)
        if placements is None:
            return found
        return [
            Detections(place.back(one.boxes), one.scores, one.labels)
            for one, place in zip(found, placements, strict=True)
        ]
