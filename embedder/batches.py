"""How the rows of a manifest are cut into batches: whole studies, a fixed function of the rows that are to be done."""

import numpy as np
import numpy.typing as npt
import pandas as pd


def study_batches(frame: pd.DataFrame, size: int) -> list[npt.NDArray[np.int64]]:
    """Cut the rows of a manifest into batches of whole studies, in the order of each study's first row.

    How crops are put together decides how sums round in the last bit, so that whoever embeds the same rows must put
    the same crops together: one process or many, and a build that goes on after a stop. A batch is closed when the
    next study does not fit, so that cutting what is left after any whole number of batches gives the batches that
    would have followed (where the rows of a study stand together).

    Args:
        frame: A manifest. Rows without a study are taken by woman and image.
        size: Rows in a batch at most; a study of more is cut.

    Returns:
        Positions of the rows, from 0: int64 (rows,) each; every row in exactly one batch.
    """
    if not len(frame):
        return []
    study = frame["study_id"] if "study_id" in frame else pd.Series(None, index=frame.index, dtype="object")
    keys = pd.DataFrame(
        {
            "dataset": frame["dataset"],
            "patient": frame["patient_id"],
            "study": study,
            # The images of a study go together; without one, each image goes alone.
            "image": frame["path"].where(study.isna()),
        }
    )
    groups = keys.groupby(list(keys), sort=False, dropna=False).ngroup().to_numpy()
    order = np.argsort(groups, kind="stable").astype(np.int64)
    batches = []
    start = stop = 0
    for count in np.bincount(groups).tolist():
        if start < stop and stop + count > start + size:
            batches.append(order[start:stop])
            start = stop
        stop += count
        while stop - start >= size:
            batches.append(order[start : start + size])
            start += size
    if start < stop:
        batches.append(order[start:stop])
    return batches
