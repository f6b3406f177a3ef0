"""Checkpoints: exact round trips, and no damage that goes unseen."""

import errno
import json
import os
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from qevo.core.checkpoint import (
    FORMAT,
    difference,
    load_checkpoint,
    save_checkpoint,
    write_atomically,
)
from qevo.errors import QevoError

CARRY = {
    "state": {"tables": jnp.arange(12, dtype=jnp.int16).reshape(4, 3), "step": jnp.int32(7)},
    "done": jnp.bool_(False),
}
FINGERPRINT = {"algorithm": "Walk", "seed": [0, 3], "genes": ("weights", "biases"), "rate": 0.7}


@pytest.fixture
def saved(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, CARRY, FINGERPRINT, {"seconds": 1.25})
    return path


def same(carry: Any) -> bool:
    alike = jax.tree.map(
        lambda a, b: a.dtype == b.dtype and bool(jnp.array_equal(a, b)), carry, CARRY
    )
    return jax.tree.all(alike)


def test_a_checkpoint_comes_back_bit_for_bit(saved: pathlib.Path) -> None:
    shapes = jax.eval_shape(lambda: CARRY)
    carry, progress = load_checkpoint(saved, shapes, FINGERPRINT)
    assert same(carry)
    assert progress == {"seconds": 1.25}
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_the_bytes_depend_on_the_contents_alone(saved: pathlib.Path) -> None:
    other = saved.with_name("other")
    reordered = dict(reversed(FINGERPRINT.items()))
    save_checkpoint(other, CARRY, reordered, {"seconds": 1.25})
    assert other.read_bytes() == saved.read_bytes()


def test_no_cut_goes_unseen(saved: pathlib.Path) -> None:
    whole = saved.read_bytes()
    for length in [*range(0, len(whole), 11), len(whole) // 2, len(whole) - 1]:
        saved.write_bytes(whole[:length])
        with pytest.raises(QevoError, match=f"{saved.name} is damaged"):
            load_checkpoint(saved, CARRY, FINGERPRINT)


def test_no_flipped_bit_goes_unseen(saved: pathlib.Path) -> None:
    whole = saved.read_bytes()
    for index in range(len(whole)):
        damaged = bytearray(whole)
        damaged[index] ^= 1 << (index * 5 + 3) % 8
        saved.write_bytes(damaged)
        with pytest.raises(QevoError, match=re.escape(saved.name)):
            load_checkpoint(saved, CARRY, FINGERPRINT)


def rewrite(path: pathlib.Path, meta: Any) -> None:
    arrays = {"done": np.zeros((), np.bool_)}
    save_file(arrays, path, None if meta is None else {"qevo": json.dumps(meta)})


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"format": FORMAT + 1, "sha256": ""}, f"has checkpoint format {FORMAT + 1}, this version"),
        ({"format": FORMAT, "sha256": "0"}, "is damaged: its contents do not match their checksum"),
        ({"format": FORMAT}, "is a safetensors file, but not a qevo checkpoint"),
        ([1, 2], "is a safetensors file, but not a qevo checkpoint"),
        (None, "is a safetensors file, but not a qevo checkpoint"),
    ],
)
def test_other_files_are_told_apart(tmp_path: pathlib.Path, meta: Any, message: str) -> None:
    path = tmp_path / "other"
    rewrite(path, meta)
    with pytest.raises(QevoError, match=message):
        load_checkpoint(path, CARRY, FINGERPRINT)


def test_a_missing_file_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(QevoError, match=re.escape(f"no checkpoint to resume from at {tmp_path}")):
        load_checkpoint(tmp_path / "none", CARRY, FINGERPRINT)


def test_a_changed_setup_is_listed(saved: pathlib.Path) -> None:
    changed = FINGERPRINT | {"rate": 0.5, "margin": 0.1, "seed": [0, 4]}
    del changed["algorithm"]
    with pytest.raises(QevoError, match="belongs to another setup") as caught:
        load_checkpoint(saved, CARRY, changed)
    assert [line.strip() for line in str(caught.value).splitlines()[1:-1]] == [
        "algorithm: Walk -> (not set)",
        "margin: (not set) -> 0.1",
        "rate: 0.7 -> 0.5",
        "seed: [0, 3] -> [0, 4]",
    ]


def test_other_arrays_are_named(saved: pathlib.Path) -> None:
    other = {"state": {"tables": CARRY["state"]["tables"]}, "done": jnp.int32(0)}
    with pytest.raises(QevoError, match=r"holds other arrays .*: done, state\.step"):
        load_checkpoint(saved, other, FINGERPRINT)


def test_equal_fingerprints_do_not_differ() -> None:
    assert difference(FINGERPRINT, dict(FINGERPRINT)) == []


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"No space left on device: .*file'$"):
        write_atomically(path, b"new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_is_as_readable_as_other_files(saved: pathlib.Path) -> None:
    other = saved.with_name("other")
    other.touch()
    assert saved.stat().st_mode == other.stat().st_mode
