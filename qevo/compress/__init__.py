"""Networks in few bytes: levels and bits of each layer, entropy coding, and the `.qevo` file."""

from qevo.compress.allocation import Allocation, allocate, reallocate
from qevo.compress.constants import coarsen
from qevo.compress.container import (
    CompressedNetwork,
    compress,
    decompress,
    load,
    open_compressed,
    read_compressed,
    save,
)
from qevo.compress.errors import CompressedFileError
from qevo.compress.levels import Kind, LayerValues, Levels, assign, choose_levels, codebook
from qevo.compress.summary import FileSummary, LayerSummary, summarise

__all__ = [
    "Allocation",
    "CompressedFileError",
    "CompressedNetwork",
    "FileSummary",
    "Kind",
    "LayerSummary",
    "LayerValues",
    "Levels",
    "allocate",
    "assign",
    "choose_levels",
    "coarsen",
    "codebook",
    "compress",
    "decompress",
    "load",
    "open_compressed",
    "read_compressed",
    "reallocate",
    "save",
    "summarise",
]
