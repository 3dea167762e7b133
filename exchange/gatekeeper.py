"""The gatekeeper: one verdict for every image before anything is embedded.

A gallery is only as good as what is let into it. An image that shows no breast, raw detector values, or another scale
than its neighbours gives a vector all the same, and nobody sees it any more. So every image gets one of three verdicts
with its reasons, by these rules. Attributes are those of PS3.3 C.8.11.7 (Mammography Image Module) unless another
section is named:

- No mammogram (Modality, SOP class, body part), no readable header, no decodable pixels, a Photometric Interpretation
  that is no grey: refused.
- Presentation Intent Type (C.8.11.1) `FOR PROCESSING`: refused unless allowed; raw values are not made to be compared.
- Several frames, or a tomosynthesis object (A.55): refused, or a note where configured; one image is judged, not one
  slice.
- View Modifier Code Sequence (PS3.16 CID 4015) with Magnification or Spot Compression, or an Estimated Radiographic
  Magnification Factor beyond that of a contact view: a note, or refused where configured, because lesions have another
  scale and another frame.
- Implant Displaced, Breast Implant Present `YES`, every other modifier, Partial View `YES`: a note.
- Burned In Annotation (C.7.6.1.1.5) `YES`, or lines of text in the empty background (see `exchange.burntin`): refused
  unless allowed. Where the attribute is missing: a note.
- Lossy Image Compression `01` (C.7.6.1.1.5): a note.
- Pixel Intensity Relationship (C.8.11.3.1.2) `LIN` in an image For Presentation: a note.
- Unknown view, laterality or spacing: a note.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydicom.dataset import Dataset

from embedder import dicomheader, dicomvalues
from embedder.dicom import read_attributes
from embedder.header import MammogramError
from embedder.mammogram import is_dicom, read_header, read_mammogram
from exchange import ExchangeError
from exchange.burntin import burnt_in_text
from exchange.verdicts import ACCEPT, KEYWORDS, NOTE, REFUSE, Verdict, read_verdict, said_yes

TOMOSYNTHESIS = "1.2.840.10008.5.1.4.1.1.13.1.3"
"""SOP class of Breast Tomosynthesis Image Storage."""

_ANOTHER_SCALE = ("magnification", "spot compression")
# A breast lies a few centimetres above the detector: contact views are enlarged by 1.02 to 1.15, those on a
# magnification stand by 1.5 to 2.
_CONTACT_VIEW = 1.3

# Grey, and colour whose channels may be equal, which the reader finds out.
_GREY = ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class GatekeeperConfig:
    """What is refused, and what is let in with a note.

    Args:
        allow_for_processing: Let raw detector values in, with a note.
        magnified: What becomes of magnification and spot compression views.
        multi_frame: What becomes of images of several frames and of tomosynthesis.
        allow_burned_in: Let images with burnt-in text in, with a note.
        check_pixels: Decode the pixels: whether they are whole, and whether text is burnt in.
    """

    allow_for_processing: bool = False
    magnified: Literal["note", "refuse"] = "note"
    multi_frame: Literal["note", "refuse"] = "refuse"
    allow_burned_in: bool = False
    check_pixels: bool = True

    def __post_init__(self) -> None:
        for name in ("magnified", "multi_frame"):
            if getattr(self, name) not in ("note", "refuse"):
                raise ExchangeError(name, f"is {getattr(self, name)!r}", "make it `note` or `refuse`")


@dataclass
class _Reasons:
    """Reasons as they are found."""

    refusals: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, reason: str, *, refuse: bool) -> None:
        (self.refusals if refuse else self.notes).append(reason)

    def close(self, read: Verdict) -> Verdict:
        verdict = REFUSE if self.refusals else NOTE if self.notes else ACCEPT
        return replace(read, verdict=verdict, reasons=(*self.refusals, *self.notes))


def judge_image(path: Path, config: GatekeeperConfig | None = None) -> Verdict:
    """Judge one image; whatever is wrong with the file is a reason, never an error.

    Of a plain image file (PNG, JPEG, PGM, TIFF) only the pixels can be judged; that nothing else is known of it is a
    note.
    """
    config = config or GatekeeperConfig()
    path = Path(path)
    reasons = _Reasons()
    try:
        read = _judge_attributes(path, config, reasons) if is_dicom(path) else _judge_plain(path, reasons)
    except MammogramError as error:
        reasons.add(error.cause, refuse=True)
        return reasons.close(Verdict(path))
    # A file that is refused by what it says of itself is not decoded: that takes most of the time.
    if not reasons.refusals:
        try:
            read = _judge_pixels(read, config, reasons)
        except MammogramError as error:
            reasons.add(error.cause, refuse=True)
    return reasons.close(read)


def judge_images(
    paths: Sequence[Path],
    config: GatekeeperConfig | None = None,
    *,
    workers: int = 4,
    progress: Progress | None = None,
) -> tuple[Verdict, ...]:
    """Judge many images in threads; each holds the pixels of one image, and nothing of it is kept but the verdict.

    Args:
        paths: The files.
        config: The rules.
        workers: Threads.
        progress: Called with images done and images in all.

    Returns:
        One verdict a path, in their order.

    Raises:
        ExchangeError: `workers` is less than 1.
    """
    if workers < 1:
        raise ExchangeError("workers", f"is {workers}", "give at least 1")
    verdicts = []
    with ThreadPoolExecutor(workers) as pool:
        try:
            for verdict in pool.map(lambda path: judge_image(path, config), paths):
                verdicts.append(verdict)
                if progress is not None:
                    progress(len(verdicts), len(paths))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return tuple(verdicts)


def _judge_plain(path: Path, reasons: _Reasons) -> Verdict:
    header = read_header(path)
    reasons.add(f"it is {header.format}, which says nothing of view, side, scale or burnt-in text", refuse=False)
    return Verdict(path, rows=header.rows, columns=header.columns, frames=header.frames)


def _judge_attributes(path: Path, config: GatekeeperConfig, reasons: _Reasons) -> Verdict:
    dataset = read_attributes(path, KEYWORDS)
    read = read_verdict(path, dataset)
    why_not = dicomheader.why_not_mammogram(dataset)
    if why_not is not None:
        reasons.add(f"it is not a mammogram: {why_not}", refuse=True)
    if read.photometric not in _GREY:
        reasons.add(f"its photometric interpretation is {read.photometric or 'missing'}", refuse=True)
    if read.intent == "FOR PROCESSING":
        reasons.add("it is a For Processing image: raw detector values", refuse=not config.allow_for_processing)
    several = read.frames is not None and read.frames > 1
    if several or read.sop_class == TOMOSYNTHESIS:
        what = "it is a tomosynthesis image" if read.sop_class == TOMOSYNTHESIS else "it is a multi-frame image"
        reasons.add(f"{what} of {read.frames or 1} frames", refuse=config.multi_frame == "refuse")
    _judge_scale(read, config, reasons)
    if read.burned_in:
        reasons.add("Burned In Annotation says that text is burnt in", refuse=not config.allow_burned_in)
    elif read.burned_in is None:
        reasons.add("it does not say whether text is burnt in (Burned In Annotation)", refuse=False)
    _judge_rest(read, dataset, reasons)
    return read


def _judge_scale(read: Verdict, config: GatekeeperConfig, reasons: _Reasons) -> None:
    scaled = [name for name in _ANOTHER_SCALE if name in read.view_modifiers]
    if scaled:
        reasons.add(
            f"it is a {' and '.join(scaled)} view: scale and frame differ from a standard view",
            refuse=config.magnified == "refuse",
        )
    elif read.magnification is not None and read.magnification > _CONTACT_VIEW:
        reasons.add(
            f"it is magnified {read.magnification:g} times: scale and frame differ from a contact view",
            refuse=config.magnified == "refuse",
        )


def _judge_rest(read: Verdict, dataset: Dataset, reasons: _Reasons) -> None:
    """Add what is always a note."""
    others = [name for name in read.view_modifiers if name not in _ANOTHER_SCALE]
    if others:
        reasons.add(f"its view is modified: {', '.join(others)}", refuse=False)
    if read.implant:
        reasons.add("the breast has an implant", refuse=False)
    if said_yes(dataset, "PartialView"):
        reasons.add("it shows a part of the breast only (Partial View)", refuse=False)
    if dicomvalues.text(dataset, "LossyImageCompression") == "01":
        ratio = dicomvalues.number(dataset, "LossyImageCompressionRatio")
        times = f", {ratio:g} times" if ratio is not None else ""
        reasons.add(f"it has been compressed with loss{times}", refuse=False)
    relationship = (dicomvalues.text(dataset, "PixelIntensityRelationship") or "").upper()
    if relationship == "LIN" and read.intent == "FOR PRESENTATION":
        reasons.add("its values are linear in X-ray intensity (Pixel Intensity Relationship)", refuse=False)
    note = dicomheader.spacing(dataset)[1]
    if read.spacing_mm is None:
        reasons.add(note or "its pixel spacing is unknown", refuse=False)
    for name in ("view", "laterality"):
        if getattr(read, name) is None:
            reasons.add(f"its {name} is unknown", refuse=False)


def _judge_pixels(read: Verdict, config: GatekeeperConfig, reasons: _Reasons) -> Verdict:
    """Decode the first image of the file, or only check the header where pixels are not to be looked at."""
    if not config.check_pixels:
        read_header(read.path)
        return read
    several = read.frames is not None and read.frames > 1
    mammogram = read_mammogram(
        read.path, frame=1 if several else None, allow_for_processing=config.allow_for_processing
    )
    lines = burnt_in_text(mammogram.pixels)
    if lines:
        where = "; ".join(str(box) for box in lines[:3])
        reasons.add(f"text is burnt into its background (at {where})", refuse=not config.allow_burned_in)
    return replace(read, text_found=bool(lines))
