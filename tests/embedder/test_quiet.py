import threading
import warnings

import pytest

from embedder.quiet import quiet_libraries


def warn_as(module: str) -> None:
    warnings.warn_explicit("odd", UserWarning, "file.py", 1, module=module)


def test_libraries_are_quiet_inside_and_all_is_as_before_outside():
    before = list(warnings.filters)
    with quiet_libraries(), quiet_libraries():
        warn_as("pydicom.valuerep")
        warn_as("PIL.Image")
        with pytest.raises(UserWarning):
            warn_as("somebody.else")
    assert warnings.filters == before
    with pytest.raises(UserWarning):
        warn_as("pydicom.valuerep")


def test_threads_that_leave_crosswise_leave_nothing_behind():
    before = list(warnings.filters)
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with quiet_libraries():
            inside.set()
            leave.wait(10)
            warn_as("pydicom.valuerep")

    with quiet_libraries():
        thread = threading.Thread(target=stay)
        thread.start()
        assert inside.wait(10)
    # The first one has left; the second is still quiet.
    warn_as("pydicom.valuerep")
    leave.set()
    thread.join()
    assert warnings.filters == before


def test_an_error_inside_restores_the_filters():
    before = list(warnings.filters)
    with pytest.raises(KeyError), quiet_libraries():
        raise KeyError
    assert warnings.filters == before
