"""evosax's base class, imported without waking up JAX's devices.

evosax 0.3 makes an array on the default device while it is imported. After that JAX connects to no
other process (`qevo.core.hosts`), and the device's memory is taken: it shall be a numpy array.
"""

from __future__ import annotations

from unittest import mock

import jax.numpy as jnp
import numpy as np

with mock.patch.object(jnp, "asarray", np.asarray):
    from evosax.algorithms.base import EvolutionaryAlgorithm, Params

__all__ = ["EvolutionaryAlgorithm", "Params"]
