"""The whole command: one seed leaves the same network on every path, also after kills."""

import json
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "same_bytes.py"


@pytest.mark.slow
def test_every_path_leaves_the_same_network_file(tmp_path: pathlib.Path) -> None:
    output = tmp_path / "same.json"
    small = ["--constants", "10", "--weights", "20", "--kills", "2", "--output", str(output)]
    subprocess.run([sys.executable, str(SCRIPT), *small], check=True, cwd=tmp_path)
    record = json.loads(output.read_text())
    assert record["same"]
    assert len(record["network_sha256"]) == 10
    assert record["settings"] == {"constants": 10, "weights": 20, "kills": 2, "seed": 0}


@pytest.mark.accelerator
def test_a_generation_gives_the_same_bits_on_the_accelerator_as_on_a_cpu() -> None:
    import jax

    import qevo

    if jax.default_backend() == "cpu":
        pytest.fail("no accelerator here: make test-slow leaves this test out on a CPU")
    space = qevo.Space.integers(4096, low=-1, high=1)
    problem = qevo.FunctionProblem(space, lambda x: (x.astype("int32") * x).sum() + x.sum())
    genes = []
    for kind in ("cpu", None):
        search = qevo.Coevolution(space, qevo.CoevolutionConfig(spread=0.5))
        found = qevo.evolve(search, problem, 0, generations=20, devices=kind, progress=False)
        genes.append(jax.device_get(found.genes).tobytes())
    assert genes[0] == genes[1]
