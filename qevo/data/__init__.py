"""Real data as uint8 arrays, split once into search, validation and test."""

from qevo.data.dataset import Dataset, Split
from qevo.data.load import load

__all__ = ["Dataset", "Split", "load"]
