"""Images of any size to a network's, and boxes back."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from qevo.data.folders import pillow
from qevo.errors import QevoError

Fit = Literal["stretch", "letterbox"]
GREY = 127  # of the bars: darknet fills 0.5


class Placement(NamedTuple):
    """Where an image lies in a network's input: input = image · scale + offset, for x and y."""

    scale: tuple[float, float]
    offset: tuple[int, int]
    size: tuple[int, int]  # height and width of the image

    def forward(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes float ``[n, 4]`` of the image, in pixels of the network's input."""
        return (boxes * (self.scale * 2) + self.offset * 2).astype(np.float32)

    def back(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes float ``[n, 4]`` of the network's input, in pixels of the image, clipped to it."""
        placed = (boxes.astype(np.float64) - self.offset * 2) / (self.scale * 2)
        height, width = self.size
        return np.clip(placed, 0, (width, height) * 2).astype(np.float32)


def place(
    image: np.ndarray, size: tuple[int, int], *, fit: Fit = "stretch"
) -> tuple[np.ndarray, Placement]:
    """Bring an image to a network's size, by Pillow's bilinear filter.

    Args:
      image: uint8 ``[h, w, 3]``.
      size: height and width of the network's input.
      fit: ``"stretch"`` scales height and width each to its own, as darknet's training and
        validation do; ``"letterbox"`` keeps the shape and fills the rest with grey, as darknet's
        ``letterbox_image`` does.

    Returns:
      uint8 ``[H, W, 3]``, and where the image lies in it.

    Raises:
      QevoError: another kind of image, or an empty size.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise QevoError(f"expected uint8 [h, w, 3], found {image.dtype} {list(image.shape)}")
    if min(size) < 1:
        raise QevoError(f"expected a height and a width of at least 1, found {list(size)}")
    height, width = image.shape[:2]
    if fit == "stretch":
        inner = size
    elif fit == "letterbox":
        if size[1] * height < size[0] * width:  # the width is what limits
            inner = max(1, height * size[1] // width), size[1]
        else:
            inner = size[0], max(1, width * size[0] // height)
    else:
        raise QevoError(f"fit: expected stretch or letterbox, found {fit}")
    module = pillow("resizing images")
    scaled = module.fromarray(image).resize(inner[::-1], module.Resampling.BILINEAR)
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    placed = np.full((*size, 3), GREY, np.uint8)
    placed[top : top + inner[0], left : left + inner[1]] = np.asarray(scaled)
    scale = inner[1] / width, inner[0] / height
    return placed, Placement(scale, (left, top), (height, width))
