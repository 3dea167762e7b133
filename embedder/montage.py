"""A picture of an answer: the query and its neighbours side by side, with outcome, similarity and scale."""

import contextlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedder.crops import RoiCrop
from errors import MammoseekError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NEIGHBOURS = 59
"""Neighbours that a montage shows at most: ten rows of six pictures with the query."""

_FORMATS = (".png", ".jpg", ".pdf", ".svg")
_BAR_LENGTHS_MM = (1, 2, 5, 10, 20, 50, 100)
_OUTCOME_COLOURS = {"malignant": "#c0392b", "benign": "#2471a3", "normal": "#1e8449", "no cancer": "#1e8449"}


class MontageError(MammoseekError):
    """A montage that can't be drawn or written."""


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture of a montage.

    Args:
        crop: What is shown; None where the image could not be read.
        title: The line above the picture.
        lines: The lines below it.
        outcome: Pathology, which colours the frame; None where unknown.
    """

    crop: RoiCrop | None
    title: str
    lines: tuple[str, ...] = ()
    outcome: str | None = None


def draw_montage(query: Panel, neighbours: Sequence[Panel], path: Path, *, heading: str = "", columns: int = 6) -> None:
    """Write a montage: the query first, then its neighbours by rank.

    A white bar gives the scale in mm where it is known; a thin frame shows the marked place; the colour of the
    border shows the outcome (red malignant, blue benign, green normal or no cancer, grey unknown).

    Args:
        query: The place asked about.
        neighbours: The neighbours, best first.
        path: The picture to write; its ending names the format (.png, .pdf, .svg, .jpg).
        heading: A line above all.
        columns: Pictures in a row.

    Raises:
        MontageError: The file can't be written, or its ending names no picture format.
    """
    path = Path(path)
    check_montage_path(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if len(neighbours) > MOST_NEIGHBOURS:
        heading += f"  The first {MOST_NEIGHBOURS} of {len(neighbours)}."
    panels = [query, *neighbours[:MOST_NEIGHBOURS]]
    columns = max(2, min(columns, len(panels)))
    rows = math.ceil(len(panels) / columns)
    lines = max((len(panel.lines) for panel in panels), default=0)
    crop = next((panel.crop for panel in panels if panel.crop is not None), None)
    aspect = crop.pixels.shape[0] / crop.pixels.shape[1] if crop is not None else 1.0
    width, cell = 2.3, 2.1 * aspect + 0.35 + 0.17 * lines
    figure = Figure(figsize=(width * columns, cell * rows + 0.5), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    axes = np.atleast_1d(np.array(figure.subplots(rows, columns, squeeze=False))).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        _draw_panel(axis, panel, is_query=panel is query)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    total = cell * rows + 0.5
    figure.subplots_adjust(
        left=0.01,
        right=0.99,
        top=1 - 0.72 / total,
        bottom=(0.17 * lines + 0.1) / total,
        wspace=0.06,
        hspace=(0.17 * lines + 0.45) / (2.1 * aspect),
    )
    figure.suptitle(heading, fontsize=10, y=1 - 0.12 / total, va="top")
    write_figure(figure, path)


def write_figure(figure: "Figure", path: Path) -> None:
    """Write a figure whole or not at all.

    Args:
        figure: The figure.
        path: The picture to write; its ending names the format.

    Raises:
        MontageError: The file can't be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(temporary, format=path.suffix[1:].lower())
        temporary.replace(path)
    except (OSError, ValueError) as error:
        raise MontageError(
            path, f"the picture can't be written ({error})", "name a file in a folder of yours"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def caption_lines(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the lines below a panel: what is known of a case, from a manifest's row or a gallery's case record.

    Args:
        record: Its cells; None or absent where unknown. Empty for a place of which nothing is known.
    """
    if not record:
        return ()
    density = f"density {record['density']}" if record.get("density") else None
    lesion = " ".join(str(record[name]) for name in ("margin", "lesion_type") if record.get(name))
    side = " ".join(str(record[name]) for name in ("laterality", "view") if record.get(name))
    return (
        f"{record['row_id']} ({record['patient_id']})",
        lesion or "lesion type unknown",
        ", ".join(part for part in (density, side) if part) or "-",
    )


def check_montage_path(path: Path) -> None:
    """Refuse a place where no picture can be written, before anything is computed for it.

    Raises:
        MontageError: Its ending names no picture format, or something that is no file is there.
    """
    if path.suffix.lower() not in _FORMATS:
        raise MontageError(path, "is no picture by its name", f"let it end in {', '.join(_FORMATS)}")
    if path.exists() and not path.is_file():
        raise MontageError(path, "is there already and is no file", "name another one")


def _draw_panel(axis, panel: Panel, *, is_query: bool) -> None:  # type: ignore[no-untyped-def]
    axis.set_xticks([])
    axis.set_yticks([])
    colour = _OUTCOME_COLOURS.get(panel.outcome or "", "#7f8c8d")
    for spine in axis.spines.values():
        spine.set_color("black" if is_query else colour)
        spine.set_linewidth(3)
    axis.set_title(panel.title, fontsize=8, color="black" if is_query else colour, fontweight="bold", pad=3)
    axis.set_xlabel("\n".join(panel.lines), fontsize=7, labelpad=3)
    if panel.crop is None:
        axis.text(0.5, 0.5, "image not\nreadable here", ha="center", va="center", fontsize=8, transform=axis.transAxes)
        return
    height, width = panel.crop.pixels.shape
    axis.imshow(panel.crop.pixels, cmap="gray", vmin=0, vmax=1, interpolation="bilinear")
    if panel.crop.box is not None:
        x0, y0, x1, y1 = panel.crop.box
        axis.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color="#f1c40f", linewidth=0.8, alpha=0.8)
        axis.set_xlim(-0.5, width - 0.5)
        axis.set_ylim(height - 0.5, -0.5)
    if panel.crop.mm_per_pixel:
        _draw_scale_bar(axis, panel.crop.mm_per_pixel, height, width)


def _draw_scale_bar(axis, mm_per_pixel: float, height: int, width: int) -> None:  # type: ignore[no-untyped-def]
    longest = width * mm_per_pixel / 2.5
    length = max((bar for bar in _BAR_LENGTHS_MM if bar <= longest), default=_BAR_LENGTHS_MM[0])
    end, y = width * 0.95, height * 0.94
    start = end - length / mm_per_pixel
    axis.plot([start, end], [y, y], color="black", linewidth=4, solid_capstyle="butt")
    axis.plot([start, end], [y, y], color="white", linewidth=2, solid_capstyle="butt")
    text = axis.text(
        (start + end) / 2, y - height * 0.02, f"{length} mm", ha="center", va="bottom", fontsize=6, color="white"
    )
    text.set_bbox({"facecolor": "black", "alpha": 0.6, "pad": 0.8, "edgecolor": "none"})
