/**
 * How values are put in words: dates, sizes, outcomes, views.
 * @module words
 */

import { draw, make } from "/static/elements.js";

/**
 * Each outcome as a word, a form and a colour of the palette of Okabe and Ito, so that neither colour alone nor form
 * alone carries it.
 */
const OUTCOMES = {
  malignant: { word: "malignant", form: () => draw("path", { d: "M8 1 15 8 8 15 1 8z" }) },
  benign: { word: "benign", form: () => draw("circle", { cx: 8, cy: 8, r: 6 }) },
  normal: { word: "normal", form: () => draw("rect", { x: 2.5, y: 2.5, width: 11, height: 11 }) },
  unknown: { word: "outcome unknown", form: () => draw("path", { d: "M4.5 5.5a3.5 3.5 0 1 1 3.5 4v2M8 13.5v1.6" }) },
};

/**
 * The name of an outcome that the page knows.
 * @param {string|null|undefined} outcome
 * @returns {"malignant"|"benign"|"normal"|"unknown"}
 */
export function outcomeKind(outcome) {
  return Object.hasOwn(OUTCOMES, outcome ?? "") ? /** @type {any} */ (outcome) : "unknown";
}

/**
 * The word for an outcome; a value that the page does not know is said as it is.
 * @param {string|null|undefined} outcome
 */
export function outcomeWord(outcome) {
  return outcome && !Object.hasOwn(OUTCOMES, outcome) ? outcome : OUTCOMES[outcomeKind(outcome)].word;
}

/**
 * The form of an outcome, for the eye alone: the word stands beside it.
 * @param {string|null|undefined} outcome
 * @returns {SVGElement}
 */
export function outcomeForm(outcome) {
  const kind = outcomeKind(outcome);
  return draw("svg", { class: `form ${kind}`, viewBox: "0 0 16 16", "aria-hidden": "true" }, OUTCOMES[kind].form());
}

/**
 * Form and word of an outcome.
 * @param {string|null|undefined} outcome
 * @returns {HTMLElement}
 */
export function outcomeMark(outcome) {
  return make(`span.outcome.${outcomeKind(outcome)}`, {}, outcomeForm(outcome), make("b", {}, outcomeWord(outcome)));
}

/** Outcomes in the order in which they are shown. */
export const OUTCOME_ORDER = ["malignant", "benign", "normal", "unknown"];

/**
 * One image in words, as "R MLO".
 * @param {{laterality?: string|null, view?: string|null}} image
 */
export function viewName(image) {
  return [image.laterality, image.view].filter(Boolean).join(" ") || "view unknown";
}

/**
 * One image for a screen reader, as "right breast, MLO".
 * @param {{laterality?: string|null, view?: string|null}} image
 */
export function viewSpoken(image) {
  const side = { L: "left breast", R: "right breast" }[image.laterality ?? ""] ?? "breast";
  return image.view ? `${side}, ${image.view}` : side;
}

/**
 * A moment as the reader's clock shows it.
 * @param {string|null|undefined} iso
 */
export function moment(iso) {
  const time = iso ? new Date(iso) : null;
  if (!time || Number.isNaN(time.getTime())) return iso ?? "";
  return time.toLocaleString("en-GB", { day: "2-digit", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });
}

/**
 * A number with so many digits that a reader can use; an en dash where there is none.
 * @param {number|null|undefined} value
 * @param {number} [digits]
 */
export function number(value, digits = 0) {
  return typeof value === "number" && Number.isFinite(value)
    ? value.toLocaleString("en-GB", { minimumFractionDigits: digits, maximumFractionDigits: digits })
    : "–";
}

/**
 * A size in millimetres as it is said of a finding.
 * @param {number|null|undefined} mm
 */
export function size(mm) {
  return typeof mm === "number" && Number.isFinite(mm) ? `${number(mm, mm < 10 ? 1 : 0)} mm` : null;
}

/**
 * A count with its noun.
 * @param {number} count
 * @param {string} one
 * @param {string} [many]
 */
export function counted(count, one, many = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : many}`;
}

/**
 * A text with a capital at its head.
 * @param {string} text
 */
export function capital(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : text;
}
