"""Real data as uint8 arrays, split once into search, validation and test."""

from qevo.data.dataset import Dataset, Split, shuffled
from qevo.data.folders import is_unlabelled, read_unlabelled
from qevo.data.load import load

__all__ = ["Dataset", "Split", "is_unlabelled", "load", "read_unlabelled", "shuffled"]
