"""Settings of algorithms, in Python's own numbers."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the settings of an algorithm derive from.

    Numbers of numpy become Python's: theirs would turn int16 into int32 wherever they met.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.generic):
                object.__setattr__(self, field.name, value.item())
