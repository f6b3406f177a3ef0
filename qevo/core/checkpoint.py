"""Checkpoints: one safetensors file, written atomically, that refuses a changed setup."""

from __future__ import annotations

import hashlib
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from qevo.core.writing import write_atomically
from qevo.errors import QevoError

FORMAT = 2
_META = "qevo"


def save_checkpoint(
    path: pathlib.Path, carry: Any, fingerprint: dict[str, Any], progress: dict[str, Any]
) -> None:
    """Write the integer pytree ``carry`` with the run's fingerprint; takes up to twice its bytes.

    Args:
      path: the file; replaced only once the new one is complete.
      carry: pytree of integer and bool arrays.
      fingerprint: what a resumed run must share; plain JSON values.
      progress: what the run wants back, such as seconds spent; plain JSON values.
    """
    arrays = {name: np.asarray(leaf) for name, leaf in _named(carry)}
    meta = {"format": FORMAT, "fingerprint": fingerprint, "progress": progress}
    # As it will be read: tuples become lists, numpy's integers Python's.
    meta = json.loads(json.dumps(meta, default=lambda v: v.item()))
    text = json.dumps(meta | {"sha256": _digest(arrays, meta)}, sort_keys=True)
    write_atomically(path, save(arrays, {_META: text}))


def load_checkpoint(
    path: pathlib.Path, template: Any, fingerprint: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Read a checkpoint into the structure of ``template``; returns the carry and the progress.

    Raises:
      QevoError: the file is missing, damaged, of another format, or of another setup; the message
        lists what changed.
    """
    if not path.exists():
        raise QevoError(f"no checkpoint to resume from at {path}")
    try:
        with safe_open(path, framework="numpy") as f:
            meta = json.loads((f.metadata() or {}).get(_META, "null"))
            arrays = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise QevoError(
            f"{path} is damaged (cut short or overwritten): {error}. "
            "Start again in a new folder, or restore the file from a copy"
        ) from None
    if not isinstance(meta, dict) or not {"format", "sha256"} <= meta.keys():
        raise QevoError(f"{path} is a safetensors file, but not a qevo checkpoint")
    if meta["format"] != FORMAT:
        raise QevoError(
            f"{path} has checkpoint format {meta['format']}, this version reads format {FORMAT}"
        )
    if meta.pop("sha256") != _digest(arrays, meta):
        raise QevoError(f"{path} is damaged: its contents do not match their checksum")
    changes = difference(meta["fingerprint"], json.loads(json.dumps(fingerprint)))
    if changes:
        raise QevoError(
            f"{path} belongs to another setup; changed:\n  "
            + "\n  ".join(changes)
            + "\nresume with the old settings, or start a new run in another folder"
        )
    named = _named(template)
    wanted = {name: (leaf.shape, np.dtype(leaf.dtype)) for name, leaf in named}
    found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    if wanted != found:
        odd = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
        raise QevoError(f"{path} holds other arrays than this run needs: {', '.join(odd)}")
    leaves = [jnp.asarray(arrays[name]) for name, _ in named]
    return jax.tree.unflatten(jax.tree.structure(template), leaves), meta["progress"]


def difference(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs between two fingerprints, one line each."""
    old, new = (flatten_dict(values, sep=".") for values in (old, new))
    missing = "(not set)"
    lines = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key, missing), new.get(key, missing)
        if before != after:
            lines.append(f"{key}: {before} -> {after}")
    return lines


def _named(tree: Any) -> list[tuple[str, Any]]:
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in flat]


def _digest(arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
