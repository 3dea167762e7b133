"""Keep the warnings of image libraries from the user: our own errors and notes say what matters."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# pydicom and Pillow warn of every oddity of a file, in the name of their own modules or of those that call
# them.
_MODULES = r"(pydicom|PIL|pylibjpeg|libjpeg|openjpeg|rle|numpy|embedder)(\.|$)"

_lock = threading.Lock()
_inside = 0
_filters: warnings.catch_warnings | None = None


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Ignore the warnings of the libraries that read images, while at least one thread is inside.

    `warnings.catch_warnings` alone is not safe here: two threads that enter and leave it crosswise leave the
    filters of one of them behind. The first one in sets the filter, the last one out restores what was.
    """
    global _inside, _filters
    with _lock:
        if _inside == 0:
            _filters = warnings.catch_warnings()
            _filters.__enter__()
            warnings.filterwarnings("ignore", module=_MODULES)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0 and _filters is not None:
                _filters.__exit__(None, None, None)
                _filters = None
