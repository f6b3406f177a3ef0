"""A figure as a file."""

from __future__ import annotations

import io
import pathlib
from typing import Any

from qevo.core.writing import write_whole


def save_figure(figure: Any, path: pathlib.Path, *, dpi: int = 130) -> None:
    """Write a figure as PNG, whole or not at all.

    Raises:
      OSError: it cannot be written.
    """
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    write_whole(path, content.getvalue())
