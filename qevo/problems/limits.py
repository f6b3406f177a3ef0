"""How much memory a problem's tables may take: refused before anything is allocated."""

from __future__ import annotations

from qevo.errors import QevoError

TABLE_BYTES = 1 << 31


def check_bytes(what: str, needed: int) -> None:
    """Raise where ``what`` would take more than `TABLE_BYTES`."""
    if needed > TABLE_BYTES:
        size = f"{needed / 2**30:,.1f} GiB or more" if needed < 1 << 80 else "more than there is"
        raise QevoError(f"{what} would take {size}; {TABLE_BYTES / 2**30:.1f} GiB is the limit")
