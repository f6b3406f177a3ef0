"""The command line: what trains and refines networks, looks into them, and makes files small."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import pathlib
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal

import tyro

from qevo.core.hosts import Hosts
from qevo.errors import QevoError
from qevo.run.auditing import audit_run
from qevo.run.compressing import compress_file, decompress_file, inspect_file
from qevo.run.config import AnyConfig, RefineConfig, SensitivityConfig, TrainConfig
from qevo.run.doctor import DoctorConfig, examine
from qevo.run.evaluating import evaluate_file, print_plan
from qevo.run.exporting import ExportConfig, export_file
from qevo.run.folder import network_file, read_config
from qevo.run.listing import RunsConfig, list_runs
from qevo.run.pipeline import run_pipeline
from qevo.run.reporting import ReportConfig, report
from qevo.run.seeds import run_seeds, seeded
from qevo.run.sensitivity import measure_sensitivity
from qevo.run.session import exit_code, explained, output_is_closed, session
from qevo.run.solving import SolveConfig, solve_file

DESCRIPTION = """Evolve integer neural networks: no gradients, and a search exact in integers.

  qevo train                                    a ternary network on the images that come with qevo
  qevo train --data mnist --bits "*=3"          3-bit weights, MNIST under QEVO_DATA_DIR
  qevo train --data my_images/ --name mine      your own images, one sub-folder per class
  qevo train --name mine --resume               go on where it stopped
  qevo train --name mine --seeds 0 1 2          three runs, and how their results spread
  qevo refine --network net.py:Net --checkpoint net.pth --data images/ --bits "*=4"
                                                a float network of yours, quantized and refined
  qevo sensitivity runs/mine --average-bits 3   what each layer costs; which bits for which
  qevo report runs/mine                         one HTML page about a run, or several compared
  qevo runs                                     the runs there are, and how far each one is
  qevo evaluate runs/mine/network.safetensors   the accuracy of a network file
  qevo audit runs/mine                          every float in one generation of the search
  qevo plan runs/mine/network.safetensors       how this machine computes each layer
  qevo compress runs/mine/network.safetensors   the same network in as few bytes as it needs
  qevo inspect runs/mine/network.qevo           what each layer takes
  qevo decompress runs/mine/network.qevo        back, bit for bit
  qevo export runs/mine --to onnx               the same integers for other runtimes; or C
  qevo solve G1.mc --seconds 60                 max-cut, QUBO, cnf and wcnf, knapsack, colouring
  qevo doctor                                   what this machine has, and whether it is exact

Each command explains itself: qevo train --help
"""


Seeds = Annotated[
    tuple[int, ...] | None,
    tyro.conf.arg(
        metavar="INT [INT ...]",
        help="Run once for each of these seeds in place of --seed, each in a folder NAME-SEED, and "
        "print how the results spread. The same command again skips what is complete and goes on "
        "with the rest; with --resume also with what --max-seconds ended. All share the split of "
        "--split-seed: what is trained, rounded and searched varies, not the images.",
    ),
]


@dataclasses.dataclass(frozen=True)
class TrainCommand:
    """A run, and the processes that share it."""

    run: Annotated[TrainConfig, tyro.conf.arg(name="")]
    """The run."""
    hosts: Hosts
    """Several processes, on one host or more, share the search: start each with this command."""
    seeds: Seeds = None


@dataclasses.dataclass(frozen=True)
class RefineCommand:
    """A run, and the processes that share it."""

    run: Annotated[RefineConfig, tyro.conf.arg(name="")]
    """The run."""
    hosts: Hosts
    """Several processes, on one host or more, share the search: start each with this command."""
    seeds: Seeds = None


@dataclasses.dataclass(frozen=True)
class SensitivityCommand:
    """A float network, by a run or by its own files."""

    settings: Annotated[SensitivityConfig, tyro.conf.arg(name="")]
    """The measurement."""
    folder: tyro.conf.Positional[pathlib.Path | None] = None
    """A run folder of `qevo train` or `qevo refine`, instead of --network, --checkpoint, --data:
    its float network, its images, its split and its activation bits."""


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Print the accuracy of a network file on validation and test images."""

    file: tyro.conf.Positional[pathlib.Path]
    """A network.safetensors, a .qevo file, or a run folder."""
    data: str | None = None
    """Data set, as for `qevo train`; by default the one in the config.json beside the file."""
    split_seed: int | None = None
    """Seed of the split; by default the one in the config.json beside the file, else 0."""
    arithmetic: Literal["int", "fast"] = "fast"
    """Integer products only, or the fastest exact ones; the accuracy is the same."""


@dataclasses.dataclass(frozen=True)
class AuditConfig:
    """Walk a generation of a run, as the compiler gets it, and list its floating-point values."""

    folder: tyro.conf.Positional[pathlib.Path]
    """A run folder."""
    arithmetic: Literal["int", "fast"] | None = None
    """That of the run by default. "fast" may hold float products that are proved exact, which are
    listed; "int" holds no float, and gives the same bits."""


@dataclasses.dataclass(frozen=True)
class PlanConfig:
    """Print which path each layer of a network takes on this machine, and what it costs.

    Every path gives the same bits. A plan is measured once and kept in the user's cache folder.
    """

    file: tyro.conf.Positional[pathlib.Path]
    """A network.safetensors, or a run folder."""
    arithmetic: Literal["int", "fast"] = "fast"
    """Integer products only, or the fastest exact ones."""
    batch: int = 1024
    """Images per generation."""
    measure: bool = False
    """Measure again."""


@dataclasses.dataclass(frozen=True)
class CompressConfig:
    """Write a network file as .qevo: the same network, bit for bit, entropy coded."""

    file: tyro.conf.Positional[pathlib.Path]
    """A network.safetensors, or a run folder."""
    output: Annotated[pathlib.Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """File to write; by default the same name with .qevo."""


@dataclasses.dataclass(frozen=True)
class DecompressConfig:
    """Write a .qevo file as safetensors."""

    file: tyro.conf.Positional[pathlib.Path]
    """A .qevo file."""
    output: Annotated[pathlib.Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """File to write; by default the same name with .safetensors."""


@dataclasses.dataclass(frozen=True)
class InspectConfig:
    """Print what each layer of a network file takes: zeros, levels, bytes, and their bound.

    The entropy is that of a layer's level counts. The code takes less where zeros gather in rows or
    columns, and a little more where they do not. A file that is not compressed is, in memory.
    """

    file: tyro.conf.Positional[pathlib.Path]
    """A .qevo file, a network.safetensors, or a run folder."""
    json: bool = False
    """Print JSON."""


Command = (
    Annotated[TrainCommand, tyro.conf.subcommand("train", description=inspect.getdoc(TrainConfig))]
    | Annotated[
        RefineCommand, tyro.conf.subcommand("refine", description=inspect.getdoc(RefineConfig))
    ]
    | Annotated[
        SensitivityCommand,
        tyro.conf.subcommand("sensitivity", description=inspect.getdoc(SensitivityConfig)),
    ]
    | Annotated[EvaluateConfig, tyro.conf.subcommand("evaluate")]
    | Annotated[AuditConfig, tyro.conf.subcommand("audit")]
    | Annotated[PlanConfig, tyro.conf.subcommand("plan")]
    | Annotated[CompressConfig, tyro.conf.subcommand("compress")]
    | Annotated[DecompressConfig, tyro.conf.subcommand("decompress")]
    | Annotated[InspectConfig, tyro.conf.subcommand("inspect")]
    | Annotated[ExportConfig, tyro.conf.subcommand("export")]
    | Annotated[SolveConfig, tyro.conf.subcommand("solve")]
    | Annotated[ReportConfig, tyro.conf.subcommand("report")]
    | Annotated[RunsConfig, tyro.conf.subcommand("runs")]
    | Annotated[DoctorConfig, tyro.conf.subcommand("doctor")]
)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `qevo` command; exits with 2 for input that cannot work, 130 on Ctrl-C."""
    try:
        command = parse(arguments)
        hosts = command.hosts if isinstance(command, TrainCommand | RefineCommand) else None
        with session(hosts, device_per_core=isinstance(command, SolveConfig)):
            sys.exit(exit_code(lambda: _run(command)))
    except BrokenPipeError:  # a help text that nobody reads to its end
        sys.exit(output_is_closed())
    except QevoError as error:
        print(f"qevo: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"qevo: {explained(error)}", file=sys.stderr)
        sys.exit(2)


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
    if not isinstance(command, TrainCommand | RefineCommand):
        return command
    asked: AnyConfig = command.run
    runs = [asked] if command.seeds is None else seeded(asked, command.seeds)
    folder = next((run.folder for run in runs if run.folder.exists()), None)
    if not asked.resume or folder is None:
        return command
    known: Any = read_config(folder)
    if type(known) is not type(asked):
        command = "train" if isinstance(known, TrainConfig) else "refine"
        raise QevoError(f"{folder} holds a run of qevo {command}: resume it with that")
    known = dataclasses.replace(known, runs=asked.runs, name=asked.name, max_seconds=None)
    if command.seeds is not None:
        known = dataclasses.replace(known, seed=asked.seed)
    return read(default=type(command)(known, Hosts()))


def _run(command: object) -> int:
    match command:
        case TrainCommand(run, seeds=None) | RefineCommand(run, seeds=None):
            run_pipeline(run)
        case TrainCommand(run, seeds=tuple(seeds)) | RefineCommand(run, seeds=tuple(seeds)):
            run_seeds(run, seeds)
        case SensitivityCommand(settings, folder):
            measure_sensitivity(settings, folder)
        case EvaluateConfig(file, data, split_seed, arithmetic):
            evaluate_file(
                network_file(file), data=data, split_seed=split_seed, arithmetic=arithmetic
            )
        case PlanConfig(file, arithmetic, batch, measure):
            print_plan(network_file(file), arithmetic=arithmetic, batch=batch, measure=measure)
        case CompressConfig(file, output):
            compress_file(network_file(file), output)
        case DecompressConfig(file, output):
            decompress_file(file, output)
        case InspectConfig(file, json):
            inspect_file(network_file(file), as_json=json)
        case ExportConfig():
            export_file(command)
        case SolveConfig():
            solve_file(command)
        case ReportConfig():
            report(command)
        case RunsConfig():
            list_runs(command)
        case DoctorConfig():
            return 0 if examine(command) else 1
        case AuditConfig(folder, arithmetic):
            return 0 if audit_run(folder, arithmetic=arithmetic) else 1
        case _:
            raise TypeError(f"no command: {command!r}")
    return 0
