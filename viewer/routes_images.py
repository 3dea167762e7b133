"""Routes of pictures: what is known of an image, its tiles, and crops of places and of the gallery's rows."""

import asyncio
import contextlib
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from errors import MammoseekError
from viewer.access import Person
from viewer.catalogue import ImageEntry
from viewer.imagetelling import decoded_facts
from viewer.pictures import LARGEST_PIXELS, SMALLEST_PIXELS, Crop, CropRequest
from viewer.pyramid import Pyramid, Version
from viewer.state import Asking, ServerState, State

router = APIRouter(tags=["images"])

_KEEP = "private, max-age=600"
_RAW = "application/octet-stream"

ImageId = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$")]
RowName = Annotated[str, Path(min_length=1, max_length=1_000)]
Place = Annotated[int, Path(ge=0, le=1_000_000)]
Pixels = Annotated[int, Query(ge=SMALLEST_PIXELS, le=LARGEST_PIXELS)]
Millimetres = Annotated[float | None, Query(ge=1, le=1000, allow_inf_nan=False)]
Corner = Annotated[int | None, Query(ge=0, le=1_000_000)]
IfNoneMatch = Annotated[str | None, Header(alias="if-none-match", max_length=1_000)]


@router.get("/images/{image}")
async def image_info(image: ImageId, state: State, person: Asking) -> Response:
    """Return what the page needs to show an image; its coarse levels can be seen by then, and it is being prepared."""
    entry = await run_in_threadpool(state.desk.catalogue.detailed, image)
    pyramid = await _pyramid(state, entry)
    study = state.desk.catalogue.study_of(image)

    def told() -> dict[str, Any]:
        state.desk.sightings.is_new(person.name, "image", image)
        state.audit.note(person, "image opened", image=image, study=study)
        if entry.listed:
            state.desk.prepare(entry)
        return decoded_facts(entry, study, pyramid)

    return JSONResponse(await run_in_threadpool(told))


@router.get("/images/{image}/tiles/{level}/{row}/{column}")
async def tile(
    image: ImageId, level: Place, row: Place, column: Place, state: State, person: Asking, known: IfNoneMatch = None
) -> Response:
    """Return one tile: uint16, little-endian, row by row."""
    version = await run_in_threadpool(_version, state, person, image)
    tag = f'"{version.tag}-{level}-{row}-{column}"'
    headers = {"etag": tag, "cache-control": _KEEP}
    if _matches(known, tag):
        return Response(status_code=304, headers=headers)
    pyramid = state.desk.pyramids.kept(version)
    if pyramid is None:
        pyramid = state.desk.pyramids.glimpsed(version)
    if pyramid is None or level < pyramid.first:
        pyramid = await asyncio.shield(asyncio.wrap_future(state.desk.pyramids.ask(version)))
    pixels = pyramid.tile(level, row, column)
    headers |= {"x-rows": str(pixels.shape[0]), "x-columns": str(pixels.shape[1])}
    return Response(pixels.astype("<u2", copy=False).tobytes(), media_type=_RAW, headers=headers)


@router.get("/images/{image}/crop")
async def image_crop(
    image: ImageId,
    state: State,
    person: Asking,
    x0: Corner = None,
    y0: Corner = None,
    x1: Corner = None,
    y1: Corner = None,
    mm: Millimetres = None,
    pixels: Pixels = 256,
    known: IfNoneMatch = None,
) -> Response:
    """Return a square picture around a place, or of the whole image where no corner is named."""
    corners = (x0, y0, x1, y1)

    def cut() -> Response:
        entry = state.desk.catalogue.detailed(image)
        version = _version(state, person, image)
        tag = f'"{version.tag}-{x0}-{y0}-{x1}-{y1}-{mm}-{pixels}"'
        if _matches(known, tag):
            return Response(status_code=304, headers={"etag": tag, "cache-control": _KEEP})
        box = None if None in corners else tuple(int(corner) for corner in corners if corner is not None)
        crop = state.desk.pictures.of_image(entry, box, CropRequest(mm, pixels))  # type: ignore[arg-type]
        return _picture(crop, tag)

    return await _by_thread(state, cut)


@router.get("/rows/{row}")
def row_info(row: RowName, state: State, person: Asking) -> dict[str, Any]:
    """Return what is known of a row of the gallery, and its other views."""
    position = state.desk.asker.position(row)
    state.audit.note(person, "row opened", row=row)
    return state.desk.teller.row(position)


@router.get("/rows/{row}/crop")
async def row_crop(
    row: RowName,
    state: State,
    person: Asking,
    mm: Millimetres = None,
    pixels: Pixels = 256,
    known: IfNoneMatch = None,
) -> Response:
    """Return a square picture of a row: from its image, else its thumbnail."""

    def cut() -> Response:
        position = state.desk.asker.position(row)
        if state.desk.sightings.is_new(person.name, "row", row):  # not one that an answer showed her
            state.audit.note(person, "row opened", row=row)
        entry = state.desk.catalogue.of_row(position)
        tag = f'"{state.gallery.manifest.segments_digest[:16]}-{position}-{entry is None}-{mm}-{pixels}"'
        if _matches(known, tag):
            return Response(status_code=304, headers={"etag": tag, "cache-control": _KEEP})
        return _picture(state.desk.pictures.of_row(position, CropRequest(mm, pixels)), tag)

    return await _by_thread(state, cut)


def _version(state: ServerState, person: Person, image: str) -> Version:
    """Return an image's file as it is now; that somebody sees the image is put on record once."""
    entry = state.desk.catalogue.entry(image)
    state.desk.catalogue.check_place(entry)
    if state.desk.sightings.is_new(person.name, "image", image):
        state.audit.note(person, "image opened", image=image, study=state.desk.catalogue.study_of(image))
    return state.desk.pyramids.version(entry.path, entry.frame)


async def _pyramid(state: ServerState, entry: ImageEntry) -> Pyramid:
    """Return an image's levels, of one that is still being decoded the coarse ones."""
    version = await run_in_threadpool(state.desk.pyramids.version, entry.path, entry.frame)
    whole = state.desk.pyramids.ask(version)
    if not whole.done():
        assert entry.details is not None, "its header was read"
        seen = state.desk.pyramids.glimpse(version, entry.details.header)
        with contextlib.suppress(MammoseekError):  # decoding it tells what is wrong with it
            coarse = await asyncio.shield(asyncio.wrap_future(seen))
            if coarse is not None:
                return coarse
    return await asyncio.shield(asyncio.wrap_future(whole))


async def _by_thread(state: ServerState, cut: Any) -> Response:
    """Cut a picture by a thread that only cuts: those that wait for an image to be decoded hold up nothing else."""
    response: Response = await asyncio.wrap_future(state.desk.cutters.submit(cut))
    return response


def _picture(crop: Crop, tag: str) -> Response:
    spacing = "" if crop.mm_per_pixel is None else f"{crop.mm_per_pixel:.6g}"
    headers = {
        "etag": tag,
        "cache-control": _KEEP,
        "x-rows": str(crop.pixels.shape[0]),
        "x-columns": str(crop.pixels.shape[1]),
        "x-mm-per-pixel": spacing,
        "x-box": "" if crop.box is None else ",".join(f"{corner:.2f}" for corner in crop.box),
        "x-source": crop.source,
    }
    return Response(crop.pixels.astype("<u2", copy=False).tobytes(), media_type=_RAW, headers=headers)


def _matches(known: str | None, tag: str) -> bool:
    return known is not None and (known.strip() == "*" or tag in [part.strip() for part in known.split(",")])
