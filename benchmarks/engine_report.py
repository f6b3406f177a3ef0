"""Table and plot of the population engine's benchmark."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table


def table(row: dict[str, Any], peak: dict[str, float]) -> Table:
    """One network's rates, in all populations, beside the peers'."""
    one = row["single"]
    title = (
        f"{row['network']}: one network {one['images_per_second']:,.0f} images/s at first "
        f"({one['paths']}, batch {one['batch']}); B = {row['batch']}"
    )
    found = Table(title=title, title_justify="left")
    found.add_column("")
    for column in ("P", "images/s", "share", "of int8 peak", "of float32 peak", "MiB", "compile s"):
        found.add_column(column, justify="right")
    for part in row["populations"]:
        rate = part["images_per_second"] * row["operations_per_image"]
        found.add_row(
            part["grouping"],
            str(part["population"]),
            f"{part['images_per_second']:,.0f}",
            f"{part['share_of_inference']:.2f}",
            *(
                f"{100 * rate / peak[kind]:.0f} %" if part["grouping"] == "free" else ""
                for kind in ("int8", "float32")  # by blocks, most products are not computed
            ),
            f"{part['memory_bytes'] / 2**20:,.0f}" if part["memory_bytes"] is not None else "",
            f"{part['compile_seconds']:.1f}",
        )
    for name, peer in row["peers"].items():
        rate = peer["images_per_second"]
        shown = f"{rate:,.0f}" if rate else peer["note"]
        share = f"{peer['share_of_inference']:.3f}" if rate else ""
        found.add_row(name, "16" if name != "onnxruntime_int8" else "1", shown, share)
    return found


def draw(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Share of pure inference over the population, one panel per network."""
    figure = Figure(figsize=(4 * len(rows), 3.4), layout="constrained")
    for axes, row in zip(np.ravel(figure.subplots(1, len(rows))), rows, strict=True):
        for grouping, marker in (("block", "o"), ("free", "s")):
            parts = [p for p in row["populations"] if p["grouping"] == grouping]
            sizes = [p["population"] for p in parts]
            axes.plot(
                sizes, [p["share_of_inference"] for p in parts], marker=marker, label=grouping
            )
        peers = [(part["share_of_inference"] or 0, name) for name, part in row["peers"].items()]
        for index, (share, name) in enumerate(sorted(peers)):
            if share:
                axes.axhline(share, color="0.6", linewidth=0.8, linestyle=":")
                at, side = (sizes[0], "left") if index % 2 else (sizes[-1], "right")
                axes.annotate(name, (at, share), fontsize=7, color="0.4", va="bottom", ha=side)
        axes.axhline(1, color="0.3", linewidth=0.8)
        axes.set(xscale="log", yscale="log", title=row["network"], xlabel="population")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
    figure.axes[0].set_ylabel("share of pure inference")
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, dpi=120)
