"""Contact sheets of what the network will see, because people check this with their eyes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from embedder.crops import RoiCrop
from embedder.preparation import PreparationConfig
from embedder.rois import RoiRead, read_rois
from errors import MammoseekError

_ROWS_ON_PAGE = 6
# Crops are drawn pixel for pixel up to this side; larger ones are reduced.
_LARGEST_TILE = 512
_SMALLEST_TILE = 190  # a narrower tile would cut its caption
_GAP = 10
_TEXT_SIZE, _LINE_HEIGHT, _HEADER_HEIGHT = 13, 17, 28
_CAPTION_LINES = 4
_PAPER, _INK, _FAINT, _MARK = "#ffffff", "#111111", "#666666", "#f1c40f"
_OUTCOME_INKS = {"malignant": "#c0392b", "benign": "#1f618d", "normal": "#1e8449", "no cancer": "#1e8449"}

_Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


class SheetError(MammoseekError):
    """A contact sheet that can't be drawn or written."""


@dataclass(frozen=True)
class SheetReport:
    """What was drawn.

    Attributes:
        pages: The pictures, in order.
        shown: Rows whose crop is on them.
        failures: Row id and message of those that could not be read; each has a tile that says so.
    """

    pages: tuple[Path, ...]
    shown: int
    failures: tuple[tuple[str, str], ...]


def contact_sheet(
    frame: pd.DataFrame,
    config: PreparationConfig,
    path: Path,
    *,
    columns: int = 8,
    limit: int = 64,
    seed: int | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SheetReport:
    """Draw the crops of a manifest's rows, pixel for pixel as the network gets them, each with its caption.

    A thin frame shows the marked place. The caption gives the row's id, its lesion type, its pathology and
    density, and the height of the crop on the patient.

    Args:
        frame: A manifest with absolute paths, of the preparation's granularity.
        config: The preparation.
        path: The .png to write; `name-1.png`, `name-2.png` and so on where one page does not do.
        columns: Crops beside each other.
        limit: Rows to show at most.
        seed: Picks the rows at random; None spreads them evenly over the table.
        workers: Threads that read images.
        progress: Called with rows done and rows in all.

    Raises:
        SheetError: No rows, rows of another granularity, or a file that can't be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise SheetError(path, "is not .png by its name", "name a .png file")
    if columns < 1 or limit < 1:
        raise SheetError(path, "a sheet has at least one column and one row", "give larger numbers")
    if frame.empty:
        raise SheetError(path, "there are no rows to show")
    if (frame["granularity"] != config.granularity).any():
        raise SheetError(path, f"the preparation is for rows of granularity {config.granularity} only")
    chosen = frame.iloc[_choose(len(frame), limit, seed)].reset_index(drop=True)
    columns = min(columns, len(chosen))
    on_page = columns * _ROWS_ON_PAGE
    count = -(-len(chosen) // on_page)
    names = [path] if count == 1 else [path.with_stem(f"{path.stem}-{i + 1}") for i in range(count)]
    title = f"{config.granularity}s, {config.width} by {config.height} pixels, preparation {config.digest[:12]}"
    tiles: list[Image.Image] = []
    failures: list[tuple[str, str]] = []
    for done, read in enumerate(read_rois(chosen, config, workers=workers), start=1):
        row = chosen.iloc[read.position]
        if read.crop is None:
            failures.append((str(row["row_id"]), str(read.error)))
        tiles.append(_tile(row, read, config))
        if progress is not None:
            progress(done, len(chosen))
        if len(tiles) == on_page or done == len(chosen):
            page = (done - 1) // on_page
            _write(_page(tiles, columns, f"{title}, page {page + 1} of {count}"), names[page])
            tiles = []
    return SheetReport(tuple(names), len(chosen) - len(failures), tuple(failures))


def _choose(rows: int, limit: int, seed: int | None) -> list[int]:
    """Return the positions of the rows to show, ascending."""
    if rows <= limit:
        return list(range(rows))
    if seed is None:
        return [int(place) for place in np.linspace(0, rows - 1, limit).round()]
    return sorted(int(place) for place in np.random.default_rng(seed).choice(rows, limit, replace=False))


def _tile(row: pd.Series, read: RoiRead, config: PreparationConfig) -> Image.Image:
    """Draw one crop and its caption."""
    shrink = min(1.0, _LARGEST_TILE / max(config.height, config.width))
    height, width = round(config.height * shrink), round(config.width * shrink)
    size = (max(width, _SMALLEST_TILE), height + _CAPTION_LINES * _LINE_HEIGHT + 4)
    tile = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(tile)
    font = ImageFont.load_default(_TEXT_SIZE)
    if read.crop is None:
        draw.rectangle((0, 0, width - 1, height - 1), fill="#dddddd")
        draw.text((width / 2, height / 2), "not readable", fill=_INK, font=font, anchor="mm")
    else:
        picture = Image.fromarray(np.clip(read.crop.pixels * 255 + 0.5, 0, 255).astype(np.uint8))
        tile.paste(picture if shrink == 1 else picture.resize((width, height), Image.Resampling.BOX), (0, 0))
        if read.crop.box is not None:
            # From pixel edges to the pixels just inside.
            x0, y0, x1, y1 = (edge * shrink for edge in read.crop.box)
            _outline(draw, (x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), (width, height))
    ink = _OUTCOME_INKS.get(_text(row["pathology"]), _INK)
    lines = [
        (_text(row["row_id"]), _INK),
        (_text(row["lesion_type"]) or _text(row["native_lesion_type"]) or "-", _INK),
        (" · ".join(filter(None, (_text(row["pathology"]), _density(row)))) or "-", ink),
        (_scale(read.crop) if read.crop is not None else str(read.error), _FAINT),
    ]
    for number, (line, colour) in enumerate(lines):
        place = (0, height + 3 + number * _LINE_HEIGHT)
        draw.text(place, _fit(draw, line, size[0], font), fill=colour, font=font)
    return tile


def _outline(draw: ImageDraw.ImageDraw, edges: tuple[float, float, float, float], size: tuple[int, int]) -> None:
    """Draw the sides of a marked place that lie in the picture."""
    x0, y0, x1, y1 = (round(edge) for edge in edges)
    width, height = size
    for x in (x0, x1):
        if 0 <= x < width and y1 >= 0 and y0 < height:
            draw.line((x, max(0, y0), x, min(height - 1, y1)), fill=_MARK)
    for y in (y0, y1):
        if 0 <= y < height and x1 >= 0 and x0 < width:
            draw.line((max(0, x0), y, min(width - 1, x1), y), fill=_MARK)


def _text(value: object) -> str:
    return "" if pd.isna(value) else str(value)  # type: ignore[call-overload]


def _density(row: pd.Series) -> str:
    density = _text(row["density"])
    return f"density {density}" if density else ""


def _scale(crop: RoiCrop) -> str:
    if crop.extent_mm is None or crop.mm_per_pixel is None:
        return "scale unknown"
    return f"{crop.extent_mm:.0f} mm high, {crop.mm_per_pixel:.2f} mm/pixel"


def _fit(draw: ImageDraw.ImageDraw, line: str, width: int, font: _Font) -> str:
    """Shorten a line to what fits, keeping its end, which tells ids and reasons apart."""
    line = " ".join(line.split())[:400]
    if draw.textlength(line, font) <= width:
        return line
    while line and draw.textlength("..." + line, font) > width:
        line = line[1:]
    return "..." + line


def _page(tiles: list[Image.Image], columns: int, title: str) -> Image.Image:
    """Put tiles on a page, row by row."""
    width, height = tiles[0].size
    rows = -(-len(tiles) // columns)
    size = (_GAP + columns * (width + _GAP), _HEADER_HEIGHT + rows * (height + _GAP))
    page = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(_TEXT_SIZE + 2)
    draw.text((_GAP, 5), _fit(draw, title, size[0] - 2 * _GAP, font), fill=_INK, font=font)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        page.paste(tile, (_GAP + column * (width + _GAP), _HEADER_HEIGHT + row * (height + _GAP)))
    return page


def _write(page: Image.Image, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        page.save(path, format="PNG")
    except OSError as error:
        raise SheetError(path, f"can't be written ({error.strerror or error})", "choose another folder") from error
