"""The members of an ensemble: whom each trains on, and how they become one model."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from embedder.checkpoint import ModelCard, ModelError, load_model
from embedder.ensemble import Ensemble
from embedder.findings import patient_key
from embedder.network import EmbedderNetwork
from embedder.roles import label_classes, women_folds
from embedder.trainingplan import SEEDS, TrainingConfig

MEMBERS_FOLDER = "members"

_SEED_STEP = 100_003  # trainings with the seeds 0, 1 and 2 must not have members in common


@dataclass(frozen=True, eq=False)
class Member:
    """One network of an ensemble, to be trained.

    Attributes:
        number: Which, from 0.
        frame: The manifest, its column `split` saying what this member trains on and is validated by.
        folder: Where it is written until the ensemble is whole.
        training: How it is trained.
    """

    number: int
    frame: pd.DataFrame
    folder: Path
    training: TrainingConfig


def plan_members(
    frame: pd.DataFrame,
    used: pd.DataFrame,
    folder: Path,
    training: TrainingConfig,
    heads: Mapping[str, tuple[str, ...]],
) -> list[Member]:
    """Return the members of an ensemble.

    Args:
        frame: The manifest.
        used: Its rows to train and validate on, with their `role`.
        folder: Where the ensemble is written.
        training: How many members there are, what they differ in, and how each is trained.
        heads: The label columns to learn, with their classes.

    Raises:
        ModelError: There are fewer women than members, or a class is not among the women that a member trains on.
    """
    learned = used["role"] == "train"
    left_out = pd.Series(-1, index=used.index)
    if training.members_by == "folds":
        women = patient_key(used[learned]).nunique()
        if women < training.members:
            raise ModelError("training", f"there are {women} women for {training.members} members", "set fewer members")
        left_out[learned] = women_folds(used[learned], training.members, training.seed, tuple(heads))
    members = []
    for number in range(training.members):
        roles = used["role"].where(left_out != number, "validation")
        _check_classes(used[roles == "train"], heads)
        # A woman who is not used is one of the test, or has no row of this granularity.
        split = patient_key(frame).map(dict(zip(patient_key(used), roles, strict=True))).fillna("test")
        alone = replace(training, members=1, validation_share=0.0, seed=(training.seed + number * _SEED_STEP) % SEEDS)
        place = folder / MEMBERS_FOLDER / f"{number + 1}-of-{training.members}"
        members.append(Member(number, frame.assign(split=split), place, alone))
    return members


def _check_classes(learned: pd.DataFrame, heads: Mapping[str, tuple[str, ...]]) -> None:
    try:
        found = label_classes(learned, tuple(heads))
        reason = next((f" ({name})" for name in heads if found[name] != heads[name]), None)
    except ModelError as error:
        reason = f" ({error.cause})"
    if reason is not None:
        raise ModelError(
            "manifest",
            f"has too few women of a class for members that each leave some out{reason}",
            "set fewer members, or training.members_by=seeds",
        )


def join_members(
    members: list[Member], cards: list[ModelCard]
) -> tuple[Ensemble, list[dict[str, Any]], dict[str, Any]]:
    """Put trained members together.

    Args:
        members: The members, each written into its folder.
        cards: Their cards.

    Returns:
        The ensemble, and the members' histories and figures as one card has them.

    Raises:
        ModelError: A member can't be read.
    """
    networks = [load_model(member.folder)[0] for member in members]
    ensemble = Ensemble([network for network in networks if isinstance(network, EmbedderNetwork)])
    history = [
        {"member": member.number, **entry}
        for member, card in zip(members, cards, strict=True)
        for entry in card.training["history"]
    ]
    figures: dict[str, Any] = {}
    for member, card in zip(members, cards, strict=True):
        told = {f"member {member.number + 1}, {name}": found for name, found in card.figures.items()}
        figures |= {name: found for name, found in told.items() if not name.endswith("interval")}
    return ensemble, history, figures | {"interval": cards[0].figures["interval"]}


def remove_members(folder: Path) -> None:
    """Delete what was written of the members alone, once the ensemble is whole."""
    shutil.rmtree(folder / MEMBERS_FOLDER, ignore_errors=True)
