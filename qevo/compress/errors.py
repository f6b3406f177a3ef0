"""The one error of reading a compressed file."""

from qevo.errors import QevoError


class CompressedFileError(QevoError):
    """A compressed file that is cut short, damaged, of another kind, or beyond the limits."""
