"""What works beside the routes of one server: images, embedder, search and opinions, started and ended together."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from errors import MammoseekError
from index.gallery import Gallery
from index.layout import MANIFEST_NAME
from index.manifest import read_manifest
from index.precedents import precedents_of
from index.typicality import MOST_ROWS_AT_ONCE, NEIGHBOURS, is_judged, witnesses_of
from viewer.asking import Asker
from viewer.catalogue import Catalogue, ImageEntry
from viewer.collection import curate
from viewer.decoding import Decoders
from viewer.embedworker import EmbedWorker
from viewer.facts import own_version
from viewer.opinions import Opinions
from viewer.pictures import Pictures
from viewer.problems import BusyError
from viewer.pyramid import Pyramids
from viewer.questionbody import TYPICAL_LABEL
from viewer.searching import SearchPool
from viewer.settings import ServeConfig
from viewer.sightings import Sightings
from viewer.telling import AnswerTeller

_CUTTERS = 4
_START_S = 60.0  # the embedder starts first


class Desk:
    """What readers work at.

    Args:
        config: How the page is served.
        gallery: The gallery.
        catalogue: The images, which whoever made them loads.
        worker: What embeds, which whoever made it starts and ends.

    Attributes:
        gallery: The gallery, as it was when the server started.
        catalogue: The images that may be shown.
        worker: What embeds places on them.
        decoders: Read images.
        pyramids: Decoded images.
        pictures: Cuts pictures.
        searches: Searches the gallery.
        teller: Puts answers into words.
        asker: Asks the gallery.
        opinions: Classifies.
        cutters: Threads that cut pictures.
        sightings: Who has been shown what.
    """

    def __init__(self, config: ServeConfig, gallery: Gallery, catalogue: Catalogue, worker: EmbedWorker) -> None:
        self.gallery, self.catalogue, self.worker = gallery, catalogue, worker
        self.decoders = Decoders()
        self.pyramids = Pyramids(read=self.decoders.read)
        self.pictures = Pictures(gallery, self.catalogue, self.pyramids)
        self.searches = SearchPool(gallery)
        self.teller = AnswerTeller(gallery, self.catalogue, own_version())
        self.asker = Asker(gallery, self.catalogue, self.worker, self.pyramids, self.searches, self.teller)
        self.opinions = Opinions(gallery, model=config.model, device=config.device)
        self.sightings = Sightings()
        self.cutters = ThreadPoolExecutor(_CUTTERS, thread_name_prefix="mammoseek-cut")
        self._judging: threading.Thread | None = None
        self._lock, self._curating = threading.Lock(), threading.Lock()
        self._closing = threading.Event()
        self._curated: dict[str, Any] | None = None
        self._seen_manifest: tuple[int, int] | None = None
        self._stands = gallery.generation

    def start(self) -> None:
        """Start threads and the child process of the opinions."""
        self.searches.start()
        if len(self.gallery):
            threading.Thread(target=self._warm, name="mammoseek-warm", daemon=True).start()

    def close(self) -> None:
        """End them."""
        self._closing.set()
        self.searches.close()
        self.opinions.close()
        self.cutters.shutdown(wait=False, cancel_futures=True)
        self.decoders.close()
        self.pyramids.close()

    def prepare(self, entry: ImageEntry) -> None:
        """Do ahead of time what the first question about an image would wait for.

        Args:
            entry: The image.

        Raises:
            NotFoundError: The file is gone.
        """
        self.worker.prepare(self.asker.film(entry))
        if entry.rows:
            self.opinions.prepare(frozenset(self.gallery.patient_key(position) for position in entry.rows))

    def check_typical(self) -> None:
        """Make sure that it can be said which rows are typical.

        Raises:
            BusyError: It is being found out, which takes minutes for a large gallery.
        """
        if len(self.gallery) <= MOST_ROWS_AT_ONCE or is_judged(self.gallery, TYPICAL_LABEL, NEIGHBOURS):
            return
        with self._lock:
            if self._judging is None:
                self._judging = threading.Thread(target=self._judge, name="mammoseek-judge", daemon=True)
                self._judging.start()
        raise BusyError(
            "typical cases", f"each of {len(self.gallery)} rows is being compared with its neighbours",
            "ask without it, or again in some minutes", 60,
        )  # fmt: skip

    def curated(self) -> dict[str, Any]:
        """Return the rows to look at; found out once, since the gallery does not change under a running server."""
        with self._curating:
            if self._curated is None or self._curated["doubtful"] is None:
                self._curated = curate(self.gallery)
            return self._curated

    def health(self) -> dict[str, Any]:
        """Return how it is, as plain values for JSON.

        A gallery that was changed on the disk does not reach a running server: `newer_generation` then says so, and a
        restart serves it.
        """
        stands = self._generation_on_disk()
        return {
            "generation": self.gallery.generation,
            "newer_generation": stands if stands > self.gallery.generation else None,
            "rows": len(self.gallery),
            "worker": self.worker.status,
            "opinions": self.opinions.status,
        }

    def _generation_on_disk(self) -> int:
        try:
            status = (self.gallery.folder / MANIFEST_NAME).stat()
            if self._seen_manifest != (status.st_mtime_ns, status.st_size):
                self._stands = read_manifest(self.gallery.folder).generation
                self._seen_manifest = status.st_mtime_ns, status.st_size
        except (OSError, MammoseekError):
            pass  # a disk that is away for a moment: what is served is in memory
        return self._stands

    def _warm(self) -> None:
        """Do now what the first questions would wait for; fits come last, since the embedder has to start too."""
        try:
            _ = self.gallery.index, self.gallery.women, precedents_of(self.gallery)
            self.gallery.rows_of([0])
            self.gallery.women_called("")
            if len(self.gallery) <= MOST_ROWS_AT_ONCE:
                self._judge()
        except MammoseekError:
            pass  # whoever asks is told
        until = time.monotonic() + _START_S
        while self.worker.status == "starting" and time.monotonic() < until:
            if self._closing.wait(0.1):
                return
        self.opinions.start()

    def _judge(self) -> None:
        try:
            if TYPICAL_LABEL in self.gallery.table:
                witnesses_of(self.gallery, TYPICAL_LABEL)
        except MammoseekError:
            pass  # as above
