"""The same run for several seeds, and what they come to together."""

from __future__ import annotations

import dataclasses
import shlex
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from qevo.core.hosts import from_first, is_first
from qevo.core.random import check_seeds
from qevo.errors import QevoError
from qevo.report.summary import spreads
from qevo.report.table import METHODS
from qevo.run import folder as files
from qevo.run.claim import refuse_occupied
from qevo.run.config import AnyConfig
from qevo.run.console import console, say
from qevo.run.pipeline import known, run_pipeline
from qevo.run.searching import stages

_FEW = 2  # seeds up to which each one's accuracy is shown: a deviation says little of so few


def run_seeds(config: AnyConfig, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Run the same settings once for each seed; print how the results spread.

    Each run has a folder of its own (`seeded`). One that is complete is read, and one that was cut
    off goes on; with ``config.resume`` so does one that ran out of its ``max_seconds``.

    Returns:
      What each result.json holds, in the order of the seeds.

    Raises:
      QevoError: a list of seeds that cannot be, a folder that holds something else, which is
        found before anything is run, or as `run_pipeline`.
      KeyboardInterrupt: Ctrl-C, once it is said how to go on.
    """
    configs = from_first(lambda: _checked(config, seeds))
    results = []
    for run in configs:
        try:
            results.append(_run(run, extend=config.resume))
        except KeyboardInterrupt:
            if is_first():
                say(
                    f"stopped at seed {run.seed}, {len(results)} of {len(configs)} seeds done; "
                    "the same command goes on from here"
                )
            raise
    if is_first():
        console.print(seeds_table(configs, results))
        if len(configs) > 1:
            folders = (str(run.folder) for run in configs)
            say("compare them: " + shlex.join(["qevo", "report", *folders]))
    return results


def seeded(config: AnyConfig, seeds: Sequence[int]) -> list[AnyConfig]:
    """The settings of each seed's run: its name ends in the seed."""
    return [
        dataclasses.replace(
            config,
            seed=seed,
            name=f"{config.name}-{seed}" if config.name else "",  # a default name ends so anyway
            resume=False,
        )
        for seed in seeds
    ]


def seeds_table(configs: Sequence[AnyConfig], results: Sequence[dict[str, Any]]) -> Table:
    """Test accuracy of each method over the seeds, and the mean of the seconds that it took."""
    count = len(results)
    seeds = "1 seed" if count == 1 else f"{count} seeds"
    table = Table(title=f"test accuracy over {seeds}, %", title_justify="left")
    table.add_column("network")
    titles = ["mean ± deviation"] if count > 1 else []
    titles += [f"seed {config.seed}" for config in configs] if count <= _FEW else []
    for title in (*titles, "seconds"):
        table.add_column(title, justify="right")
    for method, parts in spreads(results).items():
        test = parts["test"]
        cells = [f"{100 * test['mean']:.2f} ± {100 * test['deviation']:.2f}"] if count > 1 else []
        if count <= _FEW:
            cells += [f"{100 * result['accuracy'][method]['test']:.2f}" for result in results]
        spent = [_seconds(*pair, method) for pair in zip(configs, results, strict=True)]
        cells.append(f"{statistics.fmean(spent):.1f}" if any(spent) else "")
        table.add_row(METHODS[method], *cells, style="bold" if method == "evolved" else "")
    return table


def _checked(config: AnyConfig, seeds: Sequence[int]) -> list[AnyConfig]:
    """The settings of each seed's run, of which none would be refused for its folder."""
    if not seeds:
        raise QevoError("--seeds needs at least one seed, as in --seeds 0 1 2")
    check_seeds("--seeds", *seeds)
    repeated = [seed for seed, times in Counter(seeds).items() if times > 1]
    if repeated:
        raise QevoError(f"--seeds has {', '.join(map(str, repeated))} more than once")
    if config.seed != type(config)().seed:
        raise QevoError(f"--seed {config.seed} is for one run: give either --seed or --seeds")
    configs = seeded(config, seeds)
    for run in configs:
        if (run.folder / files.CONFIG).exists():
            known(run)
        else:
            refuse_occupied(run)
    return configs


def _run(config: AnyConfig, *, extend: bool) -> dict[str, Any]:
    config, result = from_first(lambda: _left(config, extend=extend))
    if result is None:
        return run_pipeline(config)
    if is_first():
        say(f"{config.folder} is complete")
    return result


def _left(config: AnyConfig, *, extend: bool) -> tuple[AnyConfig, dict[str, Any] | None]:
    """As `known`, but what has fewer generations than planned is not complete if it may go on."""
    config, result = known(config)
    planned = sum(stage.config.generations for stage in stages(config))
    if extend and result is not None and result["generations"] < planned:
        result = None
    return config, result


def _seconds(config: AnyConfig, result: dict[str, Any], method: str) -> float:
    """What a method took, 0 where nothing was run for it."""
    parts = [stage.name for stage in stages(config)] if method == "evolved" else [method]
    if method == "float":
        parts = ["teacher"]
    return sum(result["seconds"].get(part, 0.0) for part in parts)
