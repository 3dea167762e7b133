"""FROC curves and curves of precision over recall, with their intervals as bands."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from classifiers.plots import COLOURS, new_figure
from exchange.froc import CURVE_RATES, RATES
from exchange.frocscores import Curve

_SIZE = (4.9, 3.7)  # inches
_STYLES = ("-", "--", "-.", ":")


def froc_figure(curves: Mapping[str, Curve], title: str) -> Any:
    """Draw FROC curves over a logarithmic axis of false positives an image.

    Args:
        curves: By what the legend calls them.
        title: Of the plot.

    Returns:
        A matplotlib Figure.
    """
    figure, axis = new_figure(_SIZE)
    _draw(axis, curves)
    axis.set_xscale("log", base=2)
    axis.set_xlim(CURVE_RATES[0], CURVE_RATES[-1])
    axis.set_xticks(RATES, ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    axis.minorticks_off()
    _frame(axis, "false positives an image", "sensitivity", title)
    return figure


def precision_figure(curves: Mapping[str, Curve], title: str) -> Any:
    """Draw interpolated precision over recall; arguments and answer as of `froc_figure`."""
    figure, axis = new_figure(_SIZE)
    _draw(axis, curves)
    axis.set_xlim(0, 1)
    _frame(axis, "recall", "precision", title)
    return figure


def _draw(axis: Any, curves: Mapping[str, Curve]) -> None:
    for number, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        low, high = np.array(curve.low), np.array(curve.high)
        if not np.isnan(low).all():
            axis.fill_between(curve.places, low, high, color=colour, alpha=0.15, linewidth=0)
        style = _STYLES[number % len(_STYLES)]
        axis.plot(curve.places, curve.values, color=colour, linestyle=style, linewidth=1.6, label=name)


def _frame(axis: Any, horizontal: str, vertical: str, title: str) -> None:
    axis.set_ylim(0, 1.02)
    axis.set_xlabel(horizontal, fontsize=8)
    axis.set_ylabel(vertical, fontsize=8)
    axis.set_title(title, fontsize=9)
    axis.tick_params(labelsize=7)
    axis.set_axisbelow(True)
    axis.grid(color="#e5e5e5", linewidth=0.6)
    axis.legend(fontsize=7, loc="best")
