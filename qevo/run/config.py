"""The configuration of a training run, which is its command line too."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Literal

from qevo.algorithms.coevolution import CoevolutionConfig
from qevo.errors import QevoError
from qevo.quantize.training import TrainingConfig


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """One search over some of the network's numbers."""

    generations: int
    """Generations; 0 leaves the stage out."""
    search: CoevolutionConfig
    """The algorithm's settings."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Evolve an integer network: float teacher, rounding, search, report.

    Writes a run folder: config.json, teacher.safetensors, its roundings and soft labels, one folder
    per search stage with its checkpoint and metrics.jsonl, network.safetensors, result.json and
    run.png.
    """

    data: str = "fashion_mnist_small"
    """Data set: mnist, fashion_mnist, cifar10 (under QEVO_DATA_DIR, or prepared by
    tensorflow-datasets), fashion_mnist_small (comes with qevo), an .npz file, or a folder with one
    sub-folder of images per class."""
    architecture: Literal[
        "lenet_300_100", "lenet_5", "resnet_8", "resnet_20", "resnet_32", "resnet_56", "vgg_16"
    ] = "lenet_300_100"
    """Network to train and quantize."""
    bits: tuple[str, ...] = ("*=ternary",)
    """Bits of the weights by layer name: PATTERN=ternary, 2, 3, 4 or 8; the last match counts, as
    in `--bits "*=ternary" "dense_0=4"`."""
    activation_bits: Literal[4, 8] = 8
    """Bits of the activations."""
    name: str = ""
    """Run folder under --runs; by default made of data, architecture and seed."""
    runs: pathlib.Path = pathlib.Path("runs")
    """Where run folders lie."""
    seed: int = 0
    """Seed of the teacher, the roundings and the search."""
    split_seed: int = 0
    """Seed of the split into search, validation and test images."""
    teacher: pathlib.Path | None = None
    """Float network to start from: a teacher.safetensors of another run, or the published .npz of
    MLPerf Tiny's ResNet-8 or of a CIFAR-10 ResNet-20, -32 or -56 (torch names); trained here if not
    given."""
    training: TrainingConfig = TrainingConfig(
        epochs=12, batch=250, learning_rate=2e-3, label_smoothing=0.05
    )
    """How to train the teacher."""
    augment: Literal["none", "flip_and_crop"] = "none"
    """Augmentation while training the teacher."""
    calibration: int = 10_000
    """Search images that scales, rounding and best-of-N may look at."""
    draws: int = 32
    """Stochastic roundings of which the best is reported."""
    start: Literal["layerwise", "nearest"] = "layerwise"
    """Where the search starts."""
    targets: Literal["labels", "teacher"] = "teacher"
    """What the search's loss compares with: the labels, or the float network's soft labels."""
    batch: int = 1024
    """Images per generation, shared by all candidates."""
    radius: int = 1
    """Levels that a weight may move away from its start."""
    constants: StageConfig = StageConfig(
        200,
        CoevolutionConfig(
            group=4096, radius=2, spread=0.7, rate=1.0, schedule=200, margin=0.01, final_rate=0.1
        ),
    )
    """First stage: multipliers and biases."""
    weights: StageConfig = StageConfig(
        1000,
        CoevolutionConfig(grouping="block", group=500, rate=1.0, schedule=1000, margin=0.002),
    )
    """Second stage: weights."""
    validate_every: int = 10
    """Generations between looks at the validation images."""
    patience: int | None = None
    """Stop a stage after so many generations without an accepted improvement."""
    arithmetic: Literal["int", "fast"] = "fast"
    """"int" keeps floats out altogether; "fast" may use float units for products that are proved
    exact. The network is the same, byte for byte."""
    device: Literal["cpu", "gpu", "tpu"] | None = None
    """Kind of device; the best there is by default."""
    scan_length: int = 10
    """Generations per compiled call; changes no result."""
    candidate_chunk: int | None = None
    """Candidates evaluated side by side; as measured by default. Changes no result."""
    max_seconds: float | None = None
    """Stop searching after so many seconds; --resume goes on."""
    resume: bool = False
    """Go on with the run in the folder, or extend it with more generations."""

    @property
    def folder(self) -> pathlib.Path:
        """The run folder."""
        data = pathlib.Path(self.data).stem
        return self.runs / (self.name or f"{data}-{self.architecture}-{self.seed}")

    def bits_by_pattern(self) -> dict[str, str | int]:
        """`bits` as a mapping; an entry without "=" is for all layers.

        Raises:
          QevoError: no entry.
        """
        rules: dict[str, str | int] = {}
        for rule in self.bits:
            pattern, equals, value = rule.partition("=")
            if not equals:
                pattern, value = "*", rule
            rules.pop(pattern, None)  # the last match counts, so a repeated pattern moves back
            rules[pattern] = int(value) if value.isdecimal() else value
        if not rules:
            raise QevoError('bits needs at least one PATTERN=BITS, such as "*=ternary"')
        return rules
