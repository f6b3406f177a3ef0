"""A network file, and the settings that lie beside it."""

from __future__ import annotations

import pathlib

from qevo.compress import load as load_network
from qevo.errors import QevoError
from qevo.nets.network import QuantizedNetwork
from qevo.run import folder as files
from qevo.run.config import RefineConfig
from qevo.run.own import own_architecture


def network_of(path: pathlib.Path) -> QuantizedNetwork:
    """The network in a file; the settings beside it know an architecture that is not qevo's.

    Raises:
      QevoError: as `qevo.compress.load`, or that architecture is no longer there.
    """
    try:
        return load_network(path)
    except QevoError:
        if not path.is_file() or not (path.parent / files.CONFIG).exists():
            raise
        config = files.read_config(path.parent)
        if not isinstance(config, RefineConfig) or (module := own_architecture(config)) is None:
            raise
        return load_network(path, module)
