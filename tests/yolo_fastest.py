"""Yolo-Fastest in float, read from darknet's files: nothing of qevo is in it."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

ANCHORS = ((12, 18), (37, 49), (52, 132), (115, 73), (119, 199), (242, 238))
MASKS = ((3, 4, 5), (0, 1, 2))
SIZE = (320, 320)


class YoloFastest:
    """The published network ``yolo-fastest-1.1`` or ``yolo-fastest-1.1-xl``."""

    def __init__(self, name: str) -> None:
        folder = pathlib.Path(os.environ["QEVO_DATA_DIR"]) / "weights" / "yolo_fastest"
        self.sections = sections(folder / f"{name}.cfg")
        stream = (folder / f"{name}.weights").read_bytes()
        self.weights = weights(self.sections, np.frombuffer(stream[20:], "<f4"))
        self.run = jax.jit(self.forward)

    def maps(self, images: np.ndarray) -> list[np.ndarray]:
        """Raw maps [B, h, w, 255] of both heads, of images uint8 [B, 320, 320, 3]."""
        parts = [self.run(self.weights, images[at : at + 16]) for at in range(0, len(images), 16)]
        return [np.concatenate(one) for one in zip(*parts, strict=True)]

    def forward(self, weights: Sequence[Any], images: jax.Array) -> list[jax.Array]:
        x, outputs, heads = images.astype(jnp.float32) / 255, [], []
        for (kind, said), own in zip(self.sections, weights, strict=True):
            if kind == "convolutional":
                x = convolution(x, said, own)
            elif kind == "maxpool":
                window = (1, int(said["size"]), int(said["size"]), 1)
                x = lax.reduce_window(x, -np.inf, lax.max, window, (1, 1, 1, 1), "SAME")
            elif kind == "shortcut":
                x = x + outputs[int(said["from"])]
            elif kind == "route":
                chosen = [int(layer) for layer in said["layers"].split(",")]
                x = jnp.concatenate([outputs[layer] for layer in chosen], axis=-1)
            elif kind == "upsample":
                x = x.repeat(2, axis=1).repeat(2, axis=2)
            elif kind == "yolo":
                heads.append(x)
            else:
                assert kind == "dropout"
            outputs.append(x)
        return heads


def sections(path: pathlib.Path) -> list[tuple[str, dict[str, str]]]:
    found: list[tuple[str, dict[str, str]]] = []
    for line in path.read_text().splitlines():
        text = line.partition("#")[0].strip()
        if text.startswith("["):
            found.append((text.strip("[]"), {}))
        elif text:
            key, _, value = text.partition("=")
            found[-1][1][key.strip()] = value.strip()
    return found[1:]  # the first is [net]


def weights(sections: Sequence[tuple[str, dict[str, str]]], stream: np.ndarray) -> list[Any]:
    """One (kernel HWIO, scale, shift) for each convolution, None for other sections."""
    found, channels, at = [], [3], 0

    def take(*shape: int) -> np.ndarray:
        nonlocal at
        at += int(np.prod(shape))
        return stream[at - int(np.prod(shape)) : at].reshape(shape)

    for kind, said in sections:
        own, out = None, channels[-1]
        if kind == "convolutional":
            groups, size, out = int(said.get("groups", 1)), int(said["size"]), int(said["filters"])
            bias, scale = take(out), np.ones(out, np.float32)
            if said.get("batch_normalize") == "1":
                gamma, mean, variance = take(3, out)
                scale = gamma / np.sqrt(variance + 1e-5)
                bias = bias - mean * scale
            kernel = take(out, channels[-1] // groups, size, size).transpose(2, 3, 1, 0)
            own = kernel, scale, bias
        elif kind == "route":
            chosen = [int(layer) for layer in said["layers"].split(",")]
            out = sum(channels[n + 1] if n >= 0 else channels[n] for n in chosen)
        found.append(own)
        channels.append(out)
    assert at == len(stream)
    return found


def convolution(x: jax.Array, said: dict[str, str], own: Any) -> jax.Array:
    kernel, scale, shift = own
    around = int(said["size"]) // 2 if said["pad"] == "1" else 0
    stride, groups = int(said["stride"]), int(said.get("groups", 1))
    if groups == 1:
        y = lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            ((around, around), (around, around)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    else:  # one filter for each channel; XLA's grouped convolution takes minutes on a CPU
        assert groups == x.shape[-1]
        x = jnp.pad(x, ((0, 0), (around, around), (around, around), (0, 0)))
        rows, columns = (side - kernel.shape[0] + 1 for side in x.shape[1:3])
        y = sum(
            x[:, i : i + rows : stride, j : j + columns : stride] * kernel[i, j, 0]
            for i in range(kernel.shape[0])
            for j in range(kernel.shape[1])
        )
    y = y * scale + shift
    return jnp.where(y > 0, y, 0.1 * y) if said["activation"] == "leaky" else y
