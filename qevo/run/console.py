"""Where commands print."""

from __future__ import annotations

from rich.console import Console

console = Console()


def say(text: str) -> None:
    """Print as it is: no markup, no colours, no line breaks in paths."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
