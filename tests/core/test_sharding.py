"""The same bits on one device and on many; the many are forced on the host, in a process apart."""

import json
import pathlib

import jax
from support import noisy_search, on_devices, state

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
    found = json.loads(on_devices(8, MANY, tmp_path / "many"))
    alone = noisy_search(tmp_path / "alone", devices=jax.devices()[:1])
    expected = state(alone, tmp_path / "alone")
    names = ("last", "two", "eight", "default", "rows", "only rows")
    assert found == dict.fromkeys(names, expected)
