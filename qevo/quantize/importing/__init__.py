"""Networks from elsewhere: checkpoints of other libraries, functions that qevo did not write."""

from qevo.quantize.importing.arrays import checkpoint_files, read_arrays
from qevo.quantize.importing.naming import fit_arrays
from qevo.quantize.importing.tracing import trace

__all__ = ["checkpoint_files", "fit_arrays", "read_arrays", "trace"]
