"""How fast other tools evaluate a population: what a user would run instead of qevo.

    python benchmarks/peers.py --networks lenet_5 --output peers.json

Forward passes on the CPU with random weights; the same architecture and images for all. Speed is in
candidate-images: P candidates on B images in t seconds are P·B / t. Each peer has the best of a few
batches up to the one asked for, while a call stays under `CALL_SECONDS`; the fastest call counts.

- *evosax_vmap*: `jax.vmap` over the float parameters of a Flax network, as one writes for evosax.
- *torch_vmap*: `torch.func.vmap` over stacked parameters.
- *torch_loop*: PyTorch, one candidate after the other, in the faster memory format.
- *onnxruntime_int8*: a single int8 network; a population would add P graphs to write and load.

All but the first have batch norm folded into the convolutions.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import tyro
from onnx_graph import onnx_network
from record import record_of, write_record
from rich.console import Console
from rich.table import Table

from qevo.nets.registry import architecture
from qevo.run.session import cores

SHAPES = {"lenet_300_100": (28, 28, 1), "lenet_5": (28, 28, 1), "resnet_20": (32, 32, 3)}
BATCHES = (8, 16, 64, 256)  # tried besides the one asked for, where smaller
CALL_SECONDS = 4.0  # a batch is not tried if its calls would take longer
PACKAGES = ("torch", "onnx", "onnxruntime")


@dataclasses.dataclass(frozen=True)
class Config:
    """Benchmark the peers."""

    networks: tuple[str, ...] = tuple(SHAPES)
    """Architectures."""
    population: int = 16
    """Candidates (P)."""
    batch: int = 256
    """The most images per candidate in a call (B)."""
    seconds: float = 1.0
    """Per peer and batch, after a warm-up."""
    output: pathlib.Path | None = None
    """JSON file to write."""


class Peer(NamedTuple):
    """One measurement of one peer.

    Attributes:
      images_per_second: candidate-images; ``None`` if the peer is not installed.
      batch: images per candidate in a call, the best of those tried; 0 if not measured.
      note: how it was run, or what to install.
    """

    images_per_second: float | None
    batch: int
    note: str


def main(config: Config) -> None:
    """Measure, print a table, write JSON."""
    table = Table(title=f"P = {config.population}", title_justify="left")
    for column in ("network", "peer", "images/s", "B", "note"):
        table.add_column(column, justify="right" if column in ("images/s", "B") else "left")
    rows = {}
    for name in config.networks:
        rows[name] = measure(
            name, population=config.population, batch=config.batch, seconds=config.seconds
        )
        for peer, (speed, batch, note) in rows[name].items():
            table.add_row(name, peer, "" if speed is None else f"{speed:,.0f}", str(batch), note)
    Console(width=120, markup=False).print(table)
    if config.output:
        networks = {
            name: {peer: row._asdict() for peer, row in peers.items()}
            for name, peers in rows.items()
        }
        found = {"networks": networks}
        record = record_of(__file__, config, found, packages=PACKAGES, kind="cpu")
        write_record(config.output, record)


def measure(name: str, *, population: int, batch: int, seconds: float = 1.0) -> dict[str, Peer]:
    """The speed of every peer on one of `SHAPES`.

    Args:
      name: architecture.
      population: P, candidates.
      batch: B, the most images per candidate in a call.
      seconds: per peer and batch; the shortest call counts.

    Raises:
      ValueError: for another architecture.
    """
    if name not in SHAPES:
        raise ValueError(f"no peers for {name!r}; there are {', '.join(SHAPES)}")
    images = np.random.default_rng(0).integers(0, 256, (batch, *SHAPES[name]), np.uint8)
    peers = {}
    for peer in (evosax_vmap, torch_vmap, torch_loop, onnxruntime_int8):
        try:
            peers[peer.__name__] = peer(name, images, population, seconds)
        except ModuleNotFoundError as error:
            if error.name not in PACKAGES:
                raise
            note = f"{error.name} is not installed: pip install -e '.[bench]' in qevo's checkout"
            peers[peer.__name__] = Peer(None, 0, note)
    return peers


def evosax_vmap(name: str, images: np.ndarray, population: int, seconds: float) -> Peer:
    """`jax.vmap` over the variables of qevo's float network, images shared, jitted."""
    module = architecture(name)
    with jax.default_device(jax.devices("cpu")[0]):
        initialize = jax.jit(jax.vmap(lambda key: module.init(key, images[:1])))
        candidates = initialize(jax.random.split(jax.random.key(0), population))
        apply = jax.jit(jax.vmap(module.apply, in_axes=(0, None)))

        def call(images: Any) -> None:
            jax.block_until_ready(apply(candidates, images))

        return _best(call, images, population, seconds, "float32")


def torch_vmap(name: str, images: np.ndarray, population: int, seconds: float) -> Peer:
    """`torch.func.vmap` over stacked parameters of a network on the meta device."""
    import torch  # pyright: ignore[reportMissingImports]
    from torch.func import functional_call, vmap  # pyright: ignore[reportMissingImports]

    network = torch_network(name)
    candidates = {
        key: torch.stack([torch.randn_like(value) * value.std() for _ in range(population)])
        for key, value in network.state_dict().items()
    }
    network.to("meta")
    apply = vmap(lambda candidate, x: functional_call(network, candidate, x), in_dims=(0, None))

    def call(x: Any) -> None:
        apply(candidates, x)

    with torch.inference_mode():
        note = f"float32, {torch.get_num_threads()} threads"
        return _best(call, _torch_images(images), population, seconds, note)


def torch_loop(name: str, images: np.ndarray, population: int, seconds: float) -> Peer:
    """A network per candidate, one after the other; each is a call of its own."""
    import torch  # pyright: ignore[reportMissingImports]

    note = f"float32, {torch.get_num_threads()} threads"
    formats = {note: torch.contiguous_format, f"{note}, channels_last": torch.channels_last}
    peers = []
    with torch.inference_mode():
        for label, layout in formats.items():
            networks = [torch_network(name).to(memory_format=layout) for _ in range(population)]
            turns = itertools.cycle(networks)
            x = _torch_images(images).contiguous(memory_format=layout)
            peers.append(_best(lambda x, turns=turns: next(turns)(x), x, 1, seconds, label))
            if name == "lenet_300_100":  # has no image for a layout
                break
    return max(peers)


def onnxruntime_int8(name: str, images: np.ndarray, population: int, seconds: float) -> Peer:
    """One int8 network in QDQ form; ``population`` does not matter."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads = cores()
    session = onnxruntime.InferenceSession(
        onnx_network(name, SHAPES[name]), options, providers=["CPUExecutionProvider"]
    )
    note = f"one network, int8 QDQ, {threads} threads"
    x = images.transpose(0, 3, 1, 2).copy()
    return _best(lambda x: session.run(None, {"images": x}), x, 1, seconds, note)


def torch_network(name: str) -> Any:
    """The architecture as a `torch.nn.Module` in eval mode, batch norm folded."""
    import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
    from torch import nn  # pyright: ignore[reportMissingImports]

    class Block(nn.Module):
        """A residual block with shortcut A."""

        def __init__(self, inputs: int, features: int) -> None:
            super().__init__()
            self.padding = (features - inputs) // 2
            self.conv_0 = nn.Conv2d(inputs, features, 3, 1 + (features > inputs), 1)
            self.conv_1 = nn.Conv2d(features, features, 3, 1, 1)

        def forward(self, x: Any) -> Any:
            y = self.conv_1(F.relu(self.conv_0(x)))
            if self.padding:
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))
            return F.relu(x + y)

    def head(*sizes: int) -> list[Any]:
        pairs = itertools.pairwise(sizes)
        layers = [layer for k, c in pairs for layer in (nn.Linear(k, c), nn.ReLU())]
        return [nn.Flatten(), *layers[:-1]]

    if name == "lenet_300_100":
        layers = head(784, 300, 100, 10)
    elif name == "lenet_5":
        conv_0 = [nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
        conv_1 = [nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)]
        layers = [*conv_0, *conv_1, *head(400, 120, 84, 10)]
    else:
        widths = (16, 16, 16, 16, 32, 32, 32, 64, 64, 64)
        blocks = [Block(*pair) for pair in itertools.pairwise(widths)]
        stem = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU()]
        layers = [*stem, *blocks, nn.AdaptiveAvgPool2d(1), *head(64, 10)]
    return nn.Sequential(*layers).eval()


def _best(
    call: Callable[[Any], Any], images: Any, candidates: int, seconds: float, note: str
) -> Peer:
    """The speed of ``call`` on a batch, at the best of `BATCHES` and of all images."""
    peers: list[Peer] = []
    speed = math.inf
    for batch in sorted({*(b for b in BATCHES if b < len(images)), len(images)}):
        if peers and candidates * batch / speed > CALL_SECONDS:
            break
        speed = candidates * batch / _fastest(functools.partial(call, images[:batch]), seconds)
        peers.append(Peer(speed, batch, note))
    return max(peers)


def _fastest(call: Callable[[], Any], seconds: float) -> float:
    """Seconds of the shortest of the calls that fit into ``seconds``, two at least."""
    call()
    runs, end = [], time.perf_counter() + seconds
    while len(runs) < 2 or time.perf_counter() < end:
        began = time.perf_counter()
        call()
        runs.append(time.perf_counter() - began)
    return min(runs)


def _torch_images(images: np.ndarray) -> Any:
    import torch  # pyright: ignore[reportMissingImports]

    return torch.from_numpy(images.transpose(0, 3, 1, 2) / np.float32(255)).contiguous()


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
