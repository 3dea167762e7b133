"""Batches of P classes × K findings, the K from as many women as there are."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

from embedder.objectives import MISSING

Balance = Literal["over", "under", "weights", "none"]


class ClassBatches:
    """Draws the batches of an epoch, the same for the same seed and epoch.

    A triplet needs two women of one class in the batch: the K findings of a class come from K women where the class
    has that many, and one woman's second finding comes only after every woman's first.

    Args:
        labels: (rows,) class indices of the leading label, MISSING where unknown.
        patients: (rows,) woman indices.
        classes_per_batch: P; fewer where there are fewer classes.
        findings_per_class: K.
        balance: `over` draws classes alike, and an epoch lasts until the largest would have been seen once; `under`
            until the smallest would have; `none` and `weights` draw classes by their size (with `weights` the
            classification loss weighs them).
        seed: Seed of all draws.
    """

    def __init__(
        self,
        labels: npt.NDArray[np.int64],
        patients: npt.NDArray[np.int64],
        *,
        classes_per_batch: int,
        findings_per_class: int,
        balance: Balance,
        seed: int,
    ) -> None:
        # Rows whose leading label is unknown still have others to teach: they form a group of their own.
        self.groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        self.patients = patients
        self.classes_per_batch = min(classes_per_batch, len(self.groups))
        # A batch keeps its size when there are fewer classes than asked for.
        self.findings_per_class = round(classes_per_batch * findings_per_class / self.classes_per_batch)
        self.balance = balance
        self.seed = seed
        sizes = np.array([len(group) for group in self.groups])
        known = np.array([labels[group[0]] != MISSING for group in self.groups])
        relevant = sizes[known] if known.any() else sizes
        reference = {"over": relevant.max(), "under": relevant.min()}.get(balance)
        seen = int(sizes.sum() if reference is None else reference * len(self.groups))
        self.batches = max(1, round(seen / (self.classes_per_batch * self.findings_per_class)))
        shares = sizes / sizes.sum()
        self.shares = np.full(len(sizes), 1 / len(sizes)) if reference is not None else shares

    def __len__(self) -> int:
        return self.batches

    def epoch(self, number: int) -> Iterator[npt.NDArray[np.int64]]:
        """Yield the row indices of each batch of one epoch."""
        generator = np.random.default_rng([self.seed, number])
        queues = [self._shuffled(group, generator) for group in self.groups]
        taken = [0] * len(self.groups)
        for _ in range(self.batches):
            chosen = generator.choice(len(self.groups), self.classes_per_batch, replace=False, p=self.shares)
            rows: list[int] = []
            for index in chosen:
                for _ in range(min(self.findings_per_class, max(2, len(self.groups[index])))):
                    if taken[index] == len(queues[index]):
                        queues[index] = self._shuffled(self.groups[index], generator)
                        taken[index] = 0
                    rows.append(int(queues[index][taken[index]]))
                    taken[index] += 1
            yield np.array(rows, np.int64)

    def _shuffled(
        self, group: npt.NDArray[np.int64], generator: np.random.Generator
    ) -> npt.NDArray[np.int64]:
        """Return a class's rows in random order: every woman's first finding before anyone's second."""
        order = generator.permutation(group)
        turn: dict[int, int] = {}
        turns = []
        for row in order:
            woman = int(self.patients[row])
            turns.append(turn.get(woman, 0))
            turn[woman] = turns[-1] + 1
        return np.asarray(order[np.argsort(turns, kind="stable")], np.int64)
