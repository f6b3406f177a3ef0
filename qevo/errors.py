"""The error that qevo raises at its borders."""


class QevoError(ValueError):
    """Input that qevo cannot work with: what was wrong, where, and what would be right."""
