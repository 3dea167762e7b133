"""The scorecard page's plots, as SVG: precision over recall, ROC, reliability, confusion, map of the embedding."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.manifold import TSNE
from sklearn.metrics import roc_curve

from classifiers import scores
from classifiers.evaluation import LEVEL
from classifiers.labels import Array, order_classes
from classifiers.plots import COLOURS, new_figure, svg_document
from classifiers.reliability import ReliabilityBin, reliability
from classifiers.tables import METHOD_TITLES
from index.metrics import RECALL_LEVELS, resample_women

_MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
_MOST_ON_MAP = 3000
_PERPLEXITY = 30
_FEWEST_ON_MAP = 8


def precision_recall(curve: Array, women: Array, resamples: int, seed: int) -> str:
    """Draw the mean interpolated precision of the queries over recall, with its band over women.

    Args:
        curve: (q, levels) of `index.metrics.precision_at_recall`; NaN rows are left out.
        women: (q,) the queries' women.
        resamples: Resamples of the women.
        seed: Of the resampling.

    Returns:
        An SVG document.
    """
    known = ~np.isnan(curve).any(axis=1)
    figure, axis = new_figure()
    if known.any():
        values = curve[known]
        distinct, own = np.unique(women[known].astype(str), return_inverse=True)
        drawn = [
            (weights[:, own] @ values) / weights[:, own].sum(axis=1, keepdims=True)
            for weights in resample_women(len(distinct), resamples, seed, len(values))
        ]
        if drawn:
            low, high = np.nanquantile(np.concatenate(drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
            axis.fill_between(RECALL_LEVELS, low, high, color=COLOURS[0], alpha=0.2, linewidth=0)
        axis.plot(RECALL_LEVELS, values.mean(axis=0), color=COLOURS[0], marker="o", markersize=3)
    _frame(axis, "recall", "precision", "Retrieval: mean precision over recall")
    return svg_document(figure)


def roc(labels: Array, probabilities: Mapping[str, Array], classes: Sequence[str], positive: str | None) -> str:
    """Draw ROC curves: of the positive class by each method, or of each class against the rest by the last method.

    Args:
        labels: (n,) true labels, none missing.
        probabilities: By method, (n, classes).
        classes: Of the columns.
        positive: The class to detect; None where there is none.
    """
    figure, axis = new_figure()
    if positive is not None:
        lines = [(METHOD_TITLES[name], positive, values) for name, values in probabilities.items()]
    else:
        last = list(probabilities)[-1:]
        lines = [(term, term, probabilities[name]) for name in last for term in classes]
    for number, (title, term, values) in enumerate(lines):
        truth = labels == term
        if 0 < truth.sum() < len(truth):
            score = values[:, list(classes).index(term)]
            false, true, _ = roc_curve(truth, score)
            area = float(scores.auc(truth, score, np.ones((1, len(truth))))[0])
            colour = COLOURS[number % len(COLOURS)]
            axis.plot(
                false,
                true,
                color=colour,
                label=f"{title}: {area:.2f}",
                linestyle=("-", "--")[number // len(COLOURS) % 2],
            )
    axis.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=":")
    wanted = f"{positive} against the rest" if positive else "each class against the rest, linear head"
    _frame(axis, "1 - specificity", "sensitivity", f"ROC: {wanted}")
    if axis.get_legend_handles_labels()[1]:
        axis.legend(fontsize=7, loc="lower right", title="AUC, all folds and seeds together", title_fontsize=7)
    return svg_document(figure)


def reliability_table(
    labels: Array, probabilities: Array, classes: Sequence[str], women: Array, positive: str | None
) -> tuple[ReliabilityBin, ...]:
    """Return the bins of a reliability diagram: of the positive class, or of the class held likeliest being right.

    Args:
        labels: (n,) true labels, none missing.
        probabilities: (n, classes).
        classes: Of the columns.
        women: (n,) women's keys.
        positive: The class to detect; None where there is none.
    """
    if positive is not None:
        return reliability(labels, probabilities[:, list(classes).index(positive)], women, positive)
    right = np.array(classes, dtype=object)[probabilities.argmax(axis=1)] == labels
    outcome = np.where(right, "right", "wrong").astype(object)
    return reliability(outcome, probabilities.max(axis=1).clip(0, 1), women, "right")


def reliability_diagram(tables: Mapping[str, Sequence[ReliabilityBin]], positive: str | None) -> str:
    """Draw observed shares over predicted probabilities.

    Args:
        tables: By method, its bins.
        positive: The class to detect; None where probabilities are those of the class held likeliest.
    """
    figure, axis = new_figure()
    axis.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=":")
    for number, (name, bins) in enumerate(tables.items()):
        predicted = np.array([each.predicted for each in bins]) + 0.006 * number  # bars must not hide each other
        observed = np.array([each.observed for each in bins])
        ends = np.array([[each.observed - each.low, each.high - each.observed] for each in bins]).T
        axis.errorbar(
            predicted, observed, yerr=ends, color=COLOURS[number], marker=_MARKS[number], markersize=4,
            linewidth=1, elinewidth=0.7, capsize=2, label=METHOD_TITLES[name],
        )  # fmt: skip
    what = f"probability of {positive}" if positive else "probability of the likeliest class"
    _frame(axis, f"predicted {what}", "observed share", "Reliability (bins of equal size, Wilson intervals)")
    if tables:
        axis.legend(fontsize=7, loc="upper left")
    return svg_document(figure)


def confusion(labels: Array, probabilities: Array, classes: Sequence[str], seeds: int, method: str) -> str:
    """Draw the confusion matrix of the class held likeliest: counts, means over seeds, coloured by the row's share.

    Args:
        labels: (n,) true labels, none missing, each item once a seed.
        probabilities: (n, classes).
        classes: Of the columns.
        seeds: How many seeds the items are of.
        method: Which classifier it is.
    """
    codes = {term: code for code, term in enumerate(classes)}
    truth = np.array([codes[label] for label in labels])
    matrix = scores.confusion(truth, probabilities.argmax(axis=1), len(classes), np.ones((1, len(truth))))[0]
    figure, axis = new_figure()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(classes)):
        for column in range(len(classes)):
            count = matrix[row, column] / seeds
            text = f"{count:.0f}" if seeds == 1 else f"{count:.1f}"
            dark = shares[row, column] > 0.5
            axis.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    ticks = range(len(classes))
    axis.set_xticks(ticks, classes, rotation=35, ha="right", fontsize=7)
    axis.set_yticks(ticks, classes, fontsize=7)
    axis.set_xlabel("predicted", fontsize=8)
    axis.set_ylabel("true", fontsize=8)
    axis.set_title(f"Confusion: {METHOD_TITLES[method]}", fontsize=9)
    return svg_document(figure)


def embedding_map(
    vectors: npt.NDArray[np.float32], asked: Array, labels: Array, name: str, seed: int = 0
) -> str | None:
    """Draw vectors in the plane by t-SNE (van der Maaten and Hinton, JMLR 2008) of their cosine distances.

    Args:
        vectors: float32 (n, d), unit length.
        asked: (n,) bool: which are queries; the others are the gallery.
        labels: (n,) labels; missing ones are grey.
        name: The label's column.
        seed: Of the map.

    Returns:
        An SVG document; None where there are too few vectors.
    """
    chosen = np.arange(len(vectors))
    if len(chosen) > _MOST_ON_MAP:
        chosen = np.sort(np.random.default_rng(seed).choice(len(vectors), _MOST_ON_MAP, replace=False))
    if len(chosen) < _FEWEST_ON_MAP:
        return None
    perplexity = min(_PERPLEXITY, (len(chosen) - 1) / 3)
    # Squared Euclidean distances of unit vectors are twice their cosine distances.
    model = TSNE(perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed, n_jobs=1)
    places = model.fit_transform(np.asarray(vectors[chosen], np.float64))
    terms, queries = labels[chosen], asked[chosen]
    figure, axis = new_figure((7.2, 5.2))
    present = order_classes({str(term) for term in terms if term is not None})
    for number, term in enumerate([*present, None]):
        own = np.array([(str(each) == term) if each is not None else term is None for each in terms])
        colour = COLOURS[number % len(COLOURS)] if term is not None else "#bbbbbb"
        mark = _MARKS[number % len(_MARKS)] if term is not None else "."
        gallery = own & ~queries
        if own.any():
            axis.scatter(*places[gallery].T, s=14, marker=mark, color=colour, alpha=0.55, linewidths=0)
            axis.scatter(
                *places[own & queries].T, s=34, marker=mark, color=colour, edgecolors="black", linewidths=0.9,
                label=str(term) if term is not None else "unknown",
            )  # fmt: skip
    axis.set_xticks([])
    axis.set_yticks([])
    axis.legend(fontsize=7, loc="best")
    axis.set_title(f"Map of the embedding by {name}; asked women have a black edge", fontsize=9)
    return svg_document(figure)


def _frame(axis: Any, horizontal: str, vertical: str, title: str) -> None:
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1.02)
    axis.set_xlabel(horizontal, fontsize=8)
    axis.set_ylabel(vertical, fontsize=8)
    axis.set_title(title, fontsize=9)
    axis.tick_params(labelsize=7)
    axis.grid(color="#e5e5e5", linewidth=0.6)
