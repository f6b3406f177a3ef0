"""The configurations of the runs, which are their command lines too."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from typing import Literal

from qevo.algorithms.coevolution import CoevolutionConfig
from qevo.algorithms.shift_es import ShiftConfig
from qevo.errors import QevoError
from qevo.quantize.bits import read_bits
from qevo.quantize.training import TrainingConfig

_LONG = 100  # characters of bits that a folder's name may have


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """One search over some of the network's numbers, by cooperative coevolution."""

    generations: int
    """Generations; 0 leaves the stage out."""
    search: CoevolutionConfig
    """The algorithm's settings."""


@dataclasses.dataclass(frozen=True)
class ShiftStageConfig:
    """One search over some of the network's numbers, by the shift evolution strategy."""

    generations: int
    """Generations; 0 leaves the stage out."""
    search: ShiftConfig
    """The algorithm's settings."""


@dataclasses.dataclass(frozen=True)
class CalibrationConfig:
    """What every rounding of a float network needs to know."""

    activation_bits: Literal[4, 8] = 8
    """Bits of the activations."""
    calibration: int = 10_000
    """Search images that scales and roundings may look at."""
    split_seed: int = 0
    """Seed of the split into search, validation and test images."""
    device: Literal["cpu", "gpu", "tpu"] | None = None
    """Kind of device; the best there is by default."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig(CalibrationConfig):
    """What all runs have: bits, two searches from a rounded network, and where it all goes."""

    constants: StageConfig
    """First stage: multipliers and biases."""
    weights: StageConfig | ShiftStageConfig
    """Second stage: weights."""
    bits: tuple[str, ...] = ("*=ternary",)
    """Bits of the weights by layer name: PATTERN=ternary or 2 to 8; the last match counts, as
    in `--bits "*=ternary" "dense_0=4"`."""
    draws: int = 32
    """Stochastic roundings of which the best is reported."""
    start: Literal["evolutionary", "layerwise", "nearest"] = "evolutionary"
    """The rounding where the search starts."""
    roundings: tuple[Literal["best_of_n", "gptq", "adaround", "layerwise", "evolutionary"], ...] = (
        "best_of_n",
        "gptq",
        "adaround",
        "layerwise",
        "evolutionary",
    )
    """Roundings to compare with, beside the nearest and the one at the start."""
    targets: Literal["labels", "teacher"] = "teacher"
    """What the search's loss compares with: the labels, or the float network's soft labels."""
    name: str = ""
    """Run folder under --runs."""
    runs: pathlib.Path = pathlib.Path("runs")
    """Where run folders lie."""
    seed: int = 0
    """Seed of everything that is drawn."""
    batch: int = 1024
    """Images per generation, shared by all candidates."""
    radius: int = 1
    """Levels that a weight may move away from its start."""
    validate_every: int = 10
    """Generations between looks at the validation images."""
    patience: int | None = None
    """Stop a stage after so many generations without an accepted improvement."""
    arithmetic: Literal["int", "fast"] = "fast"
    """"int" keeps floats out altogether; "fast" may use float units for products that are proved
    exact. The network is the same, byte for byte."""
    scan_length: int = 10
    """Generations per compiled call; changes no result."""
    candidate_chunk: int | None = None
    """Candidates evaluated side by side; as measured by default. Changes no result."""
    tensorboard: bool = False
    """Also write each stage's metrics for TensorBoard, into the run folder (extra `tracking`).
    Changes no result."""
    max_seconds: float | None = None
    """Stop searching after so many seconds; --resume goes on."""
    resume: bool = False
    """Go on with the run in the folder, or extend it with more generations."""

    @property
    def folder(self) -> pathlib.Path:
        """The run folder."""
        return self.runs / (self.name or self.default_name)

    @property
    def default_name(self) -> str:
        """Of the run folder where ``name`` does not say."""
        raise NotImplementedError

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
            rules[pattern] = read_bits(value)
        if not rules:
            raise QevoError('bits needs at least one PATTERN=BITS, such as "*=ternary"')
        return rules


@dataclasses.dataclass(frozen=True)
class TrainConfig(SearchConfig):
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

    @property
    def default_name(self) -> str:
        """Data, architecture and seed."""
        return f"{pathlib.Path(self.data).stem}-{self.architecture}-{self.seed}"


@dataclasses.dataclass(frozen=True)
class NetworkConfig(CalibrationConfig):
    """A float network of your own, and images to fit its rounding to."""

    network: str = ""
    """FILE.py:NAME, a Flax module or a function of arrays and images (`qevo.quantize.trace` says
    which can be read), or one of qevo's architectures, such as resnet_20."""
    checkpoint: pathlib.Path = pathlib.Path()
    """File of its weights: safetensors, npz, a torch state dict, or an ONNX model."""
    names: tuple[str, ...] = ()
    """Rules THEIRS=OURS that pair the file's names with the network's, as in
    `--names "features.*.weight=conv_*/kernel" "fc=logits"`; or "in order"; or "published", for the
    weights of MLPerf Tiny's ResNet-8 or a CIFAR-10 ResNet-20, -32 or -56 and their pixel rule."""
    layout: Literal["torch", "flax"] | None = None
    """Layout of the file's kernels, where their shapes do not tell."""
    pixels: tuple[str, ...] = ("unit",)
    """What the network expects of an image: unit (0..1), raw (0..255), imagenet (normalised as
    torchvision does), MEAN STD of pixels in 0..1, with commas between channels, or own, for a
    function of uint8 images that scales them itself."""
    data: str = ""
    """Calibration images: a data set as for `qevo train`, or images without labels: a folder of
    image files, or uint8 [n, H, W, C] in an .npy file."""
    calibration: int = 1000
    """Images that the network may be fitted to."""
    held_out: int = 500
    """Other images, on which the result is watched."""


@dataclasses.dataclass(frozen=True)
class RefineConfig(NetworkConfig, SearchConfig):
    """Quantize a float network of your own, and refine it beyond nearest rounding.

    Rounds it in every way, evolves one of the roundings (--start) on the calibration images, and
    watches on others that nothing is fitted to these alone. Writes a run folder as `qevo train`
    does, but no teacher.safetensors, and layers.json: how sensitive each layer is, and its error
    before and after.
    """

    draws: int = 16
    """Stochastic roundings of which the best is reported."""
    bits: tuple[str, ...] = ("*=4",)
    """Bits of the weights by layer name: PATTERN=ternary or 2 to 8; the last match counts."""
    constants: StageConfig = StageConfig(
        60, CoevolutionConfig(population=32, group=4096, spread=0.2, rate=0.5, schedule=60)
    )
    """First stage: multipliers and biases."""
    weights: ShiftStageConfig = ShiftStageConfig(100, ShiftConfig(population=16))
    """Second stage: weights."""
    batch: int = 1000
    """Images per generation, shared by all candidates; where it is the number of calibration
    images, every generation sees them all."""

    @property
    def default_name(self) -> str:
        """Network and bits."""
        network = self.network.rpartition(":")[2] or "network"
        bits = "-".join(self.bits)
        if len(bits) > _LONG:
            bits = f"{bits[:_LONG]}-{hashlib.sha256(bits.encode()).hexdigest()[:8]}"
        name = f"{network}-{bits}-{self.seed}".replace("*=", "")
        return name.replace("*", "_").replace("/", "_")  # one folder, whatever the layers' names


@dataclasses.dataclass(frozen=True)
class SensitivityConfig(NetworkConfig):
    """Say what each layer costs and takes at every number of bits, and share out a budget.

    The cost is the divergence of the float network's classes where this layer alone is rounded,
    measured without a gradient. With --average-bits or --budget every layer gets the bits of the
    least total within it, and the whole network is measured with those, beside the same bits for
    all. Writes sensitivity.json and sensitivity.png. The test images stay closed.
    """

    bits: tuple[str, ...] = ("8", "6", "4", "3", "2", "ternary")
    """Bits to choose from: ternary or 2 to 8."""
    method: Literal["nearest", "gptq", "layerwise"] = "nearest"
    """The rounding."""
    average_bits: float | None = None
    """Budget for the weights, in bits for each; ternary ones take 1.6 packed."""
    budget: int | None = None
    """The same in bytes for all."""
    size: Literal["packed", "coded"] = "packed"
    """What counts as size: weights packed side by side, or by the entropy of each layer's levels,
    which `qevo compress` comes close to."""
    output: pathlib.Path | None = None
    """Folder for the results; the run's, or runs/NETWORK-sensitivity by default."""


AnyConfig = TrainConfig | RefineConfig
