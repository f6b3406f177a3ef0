"""The command line: `qevo train`, `qevo evaluate`, `qevo audit`."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable
from typing import Annotated, Literal

import tyro

from qevo.errors import QevoError
from qevo.run.config import TrainConfig
from qevo.run.folder import read_config
from qevo.run.inspect import audit_run, evaluate_file
from qevo.run.pipeline import train

DESCRIPTION = """Evolve integer neural networks: no gradients, and in the search no floating point.

  qevo train                                    a ternary network on the images that come with qevo
  qevo train --data mnist --bits "*=3"          3-bit weights, MNIST under QEVO_DATA_DIR
  qevo train --data my_images/ --name mine      your own images, one sub-folder per class
  qevo train --name mine --resume               go on where it stopped
  qevo evaluate runs/mine/network.safetensors   the accuracy of a network file
  qevo audit runs/mine                          proof that the search holds no float

Each command explains itself: qevo train --help
"""


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Print the accuracy of a network file on validation and test images."""

    file: tyro.conf.Positional[pathlib.Path]
    """A network.safetensors."""
    data: str | None = None
    """Data set, as for `qevo train`; by default the one in the config.json beside the file."""
    split_seed: int | None = None
    """Seed of the split; by default the one in the config.json beside the file, else 0."""
    arithmetic: Literal["int", "fast"] = "fast"
    """Integer products only, or the fastest exact ones; the accuracy is the same."""


@dataclasses.dataclass(frozen=True)
class AuditConfig:
    """Walk the compiled generation of a run and list every floating-point value in it."""

    folder: tyro.conf.Positional[pathlib.Path]
    """A run folder."""
    arithmetic: Literal["int", "fast"] = "int"
    """"fast" lists the float products that are proved exact."""


Command = (
    Annotated[TrainConfig, tyro.conf.subcommand("train")]
    | Annotated[EvaluateConfig, tyro.conf.subcommand("evaluate")]
    | Annotated[AuditConfig, tyro.conf.subcommand("audit")]
)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `qevo` command; exits with 2 for input that cannot work, 130 on Ctrl-C."""
    try:
        code = _run(parse(arguments))
    except (QevoError, OSError) as error:  # OSError: a full disk, a folder without permission
        print(f"qevo: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def parse(arguments: list[str] | None) -> object:
    """The command; one that resumes a run has that run's settings where no flag says otherwise."""
    read: Callable[..., object] = functools.partial(
        tyro.cli,
        Command,  # type: ignore[arg-type]
        prog="qevo",
        description=DESCRIPTION,
        args=arguments,
        config=(tyro.conf.OmitSubcommandPrefixes,),
    )
    command = read()
    if isinstance(command, TrainConfig) and command.resume and command.folder.exists():
        known = read_config(command.folder)
        command = read(
            default=dataclasses.replace(
                known, runs=command.runs, name=command.name, max_seconds=None
            )
        )
    return command


def _run(command: object) -> int:
    if isinstance(command, TrainConfig):
        train(command)
        return 0
    if isinstance(command, EvaluateConfig):
        evaluate_file(
            command.file,
            data=command.data,
            split_seed=command.split_seed,
            arithmetic=command.arithmetic,
        )
        return 0
    assert isinstance(command, AuditConfig)
    return 0 if audit_run(command.folder, arithmetic=command.arithmetic) else 1
