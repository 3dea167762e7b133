"""Batches of P classes × K findings, the K from as many women as there are."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

from embedder.objectives import MISSING

Balance = Literal["over", "under", "weights", "none"]
Rows = npt.NDArray[np.int64]


class ClassBatches:
    """Draws the batches of an epoch, the same for the same seed and epoch.

    A triplet needs two women of one class in the batch: the K findings of a class come from K women where the
    class has that many. A class's findings wait in a queue, and as far as that rule allows, none comes a
    second time before all have come once.

    Args:
        labels: (rows,) class indices of the leading label, MISSING where unknown.
        patients: (rows,) woman indices.
        classes_per_batch: P; fewer where there are fewer classes.
        findings_per_class: K.
        balance: `over` draws classes alike, and an epoch lasts until the largest would have been seen once;
            `under` until the smallest would have. `none` and `weights` draw classes by their size, a large
            one several times for one batch (with `weights` the classification loss weighs them); an epoch
            lasts until all would have been seen once.
        seed: Seed of all draws, 0 or more.
    """

    def __init__(
        self,
        labels: Rows,
        patients: Rows,
        *,
        classes_per_batch: int,
        findings_per_class: int,
        balance: Balance,
        seed: int,
    ) -> None:
        # Rows whose leading label is unknown still have others to teach: they form a group of their own.
        self.groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        self.patients = patients
        self.balanced = balance in ("over", "under")
        self.classes_per_batch = min(classes_per_batch, len(self.groups)) if self.balanced else classes_per_batch
        # A batch keeps its size when there are fewer classes than asked for.
        self.findings_per_class = round(classes_per_batch * findings_per_class / self.classes_per_batch)
        self.seed = seed
        sizes = np.array([len(group) for group in self.groups])
        known = np.array([labels[group[0]] != MISSING for group in self.groups])
        relevant = sizes[known] if known.any() else sizes
        reference = {"over": relevant.max(), "under": relevant.min()}.get(balance)
        seen = int(sizes.sum() if reference is None else reference * len(self.groups))
        self.batches = max(1, round(seen / (self.classes_per_batch * self.findings_per_class)))
        self.shares = sizes / sizes.sum()

    def __len__(self) -> int:
        return self.batches

    def epoch(self, number: int) -> Iterator[Rows]:
        """Yield the row indices of each batch of one epoch."""
        generator = np.random.default_rng([self.seed, number])
        waiting: list[list[int]] = [[] for _ in self.groups]
        for _ in range(self.batches):
            rows: list[int] = []
            for index, times in zip(*np.unique(self._choose(generator), return_counts=True), strict=True):
                rows += self._draw(int(index), int(times) * self.findings_per_class, waiting[index], generator)
            yield np.array(rows, np.int64)

    def _choose(self, generator: np.random.Generator) -> Rows:
        """Return the groups of one batch; one may come several times where they are drawn by their size."""
        if self.balanced:
            return generator.choice(len(self.groups), self.classes_per_batch, replace=False)
        chosen = generator.choice(len(self.groups), self.classes_per_batch, p=self.shares)
        # One class alone gives no triplet: its last place goes to another one.
        if len(self.groups) > 1 and (chosen == chosen[0]).all():
            others = np.where(np.arange(len(self.groups)) == chosen[0], 0.0, self.shares)
            chosen[-1] = generator.choice(len(self.groups), p=others / others.sum())
        return chosen

    def _draw(self, index: int, count: int, waiting: list[int], generator: np.random.Generator) -> list[int]:
        """Take findings of one group from the queue, each of another woman as far as there are women."""
        group = self.groups[index]
        drawn: list[int] = []
        women: set[int] = set()

        def first(other_woman: bool) -> int | None:
            fits = (row not in drawn and not (other_woman and int(self.patients[row]) in women) for row in waiting)
            return next((place for place, fit in enumerate(fits) if fit), None)

        # No finding twice in a batch, unless its class has no other.
        for _ in range(min(count, max(2, len(group)))):
            place = first(other_woman=True)
            if place is None:
                queued = set(waiting)
                waiting += [row for row in generator.permutation(group).tolist() if row not in queued]
                place = first(other_woman=True)
            if place is None:
                place = first(other_woman=False)
            drawn.append(waiting.pop(place or 0))
            women.add(int(self.patients[drawn[-1]]))
        return drawn
