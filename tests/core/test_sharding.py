"""The same bits on one device and on many; the many are forced on the host, in a process apart."""

import json
import os
import pathlib
import subprocess
import sys

import jax
from support import noisy_search, state

MANY = """
import json, pathlib, sys
import jax
from support import noisy_search, state

assert len(jax.devices()) == 8
folder = pathlib.Path(sys.argv[1])
found = {}
all_devices = set(jax.devices())
for name, wanted, used, share in (
    ("last", jax.devices()[7:], set(jax.devices()[7:]), 1),
    ("two", jax.devices()[3:5], set(jax.devices()[3:5]), 1),
    ("eight", 8, all_devices, 1),
    ("default", None, all_devices, 1),
    ("rows", 8, all_devices, 4),
    ("only rows", jax.devices()[:4], set(jax.devices()[:4]), 4),
):
    result = noisy_search(folder / name, devices=wanted, batch_devices=share)
    found[name] = state(result, folder / name)
    assert result.carry.generation.devices() == used
print(json.dumps(found))
"""


def test_any_devices_give_the_same_bits(tmp_path: pathlib.Path) -> None:
    here = pathlib.Path(__file__).parent
    environment = os.environ | {
        "PYTHONPATH": str(here.parent),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    }
    command = [sys.executable, "-W", "error", "-c", MANY, str(tmp_path / "many")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    alone = noisy_search(tmp_path / "alone", devices=jax.devices()[:1])
    expected = state(alone, tmp_path / "alone")
    names = ("last", "two", "eight", "default", "rows", "only rows")
    assert json.loads(done.stdout) == dict.fromkeys(names, expected)
