"""A figure without a window, and its SVG."""

import io
from typing import Any

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442", "#000000")
"""Okabe and Ito's, which the colour-blind can tell apart."""

_SIZE = (3.9, 3.2)  # inches


def new_figure(size: tuple[float, float] = _SIZE) -> tuple[Any, Any]:
    """Return a figure with its one axis.

    Args:
        size: Width and height in inches.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    return figure, figure.subplots()


def svg_document(figure: Any) -> str:
    """Return a figure as SVG whose bytes depend on its content alone."""
    import matplotlib as mpl

    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "mammoseek", "svg.fonttype": "path"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()
