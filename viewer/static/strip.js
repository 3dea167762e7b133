/**
 * The strip: similar findings as pictures at one scale, each with its outcome, in one row or in two that face each other.
 * @module strip
 */

import { button, draw, fill, make, press } from "/static/elements.js";
import { CropView } from "/static/image/cropview.js";
import { questionName, questionPicture, rowPicture } from "/static/question.js";
import { counted, outcomeKind, outcomeMark, outcomeWord, size, viewName } from "/static/words.js";

const ATYPICAL = 0.3; // where 0.5 is chance: the neighbours of such a case contradict its label
const LARGEST_PICTURE = 512; // pixels

/**
 * @typedef {object} Steps What a card can ask for.
 * @property {function(string): void} compare
 * @property {function(string): void} up
 * @property {function(string): void} down
 */

/** The strip of one answer. */
export class Strip {
  /**
   * @param {HTMLElement} element
   * @param {Steps} steps
   * @param {boolean} breasts Whether whole breasts are compared.
   */
  constructor(element, steps, breasts) {
    this._element = element;
    this._steps = steps;
    this._breasts = breasts;
    /** @type {Map<string, Card>} Cards that are shown, by row and scale. */
    this._cards = new Map();
  }

  /**
   * Show an answer. Cards that stay keep their picture, zoom and window.
   * @param {any} answer Of `/query`.
   * @param {import("/static/state.js").State} state
   * @param {number} side Of a picture, in CSS pixels.
   */
  show(answer, state, side) {
    const pixels = Math.min(Math.ceil((side * (window.devicePixelRatio || 1)) / 32) * 32, LARGEST_PICTURE);
    const mm = answer.suggested_mm ?? null;
    const kept = new Map();
    const card = (neighbour) => {
      const key = `${neighbour.row} ${mm} ${pixels}`;
      const found = this._cards.get(key) ?? new Card(neighbour, rowPicture(neighbour.row, mm, pixels), this._steps);
      kept.set(key, found);
      found.update(neighbour, state);
      return found.element;
    };
    const own = this._question(state, mm, pixels, kept);
    this._element.classList.toggle("facing", state.two);
    fill(this._element, state.two && answer.classes
      ? [own, answer.classes.map((part) => this._row(part, answer.neighbours, card))]
      : [make("ol.cards", { role: "list" }, make("li.own", {}, own), answer.neighbours.map((one) => make("li", {}, card(one))))]);
    for (const one of kept.values()) one.begin();
    for (const [key, gone] of this._cards) if (!kept.has(key)) gone.destroy();
    this._cards = kept;
  }

  /** Take everything away. */
  clear() {
    for (const card of this._cards.values()) card.destroy();
    this._cards.clear();
    fill(this._element);
  }

  /**
   * Give the focus to the next card, or to the one before.
   * @param {number} by
   * @returns {string|null} Its row; null where there is none.
   */
  step(by) {
    const cards = [...this._element.querySelectorAll("article[data-row]")];
    const at = cards.findIndex((card) => card.contains(document.activeElement));
    const next = /** @type {HTMLElement|undefined} */ (cards[Math.min(Math.max(at + by, 0), cards.length - 1)]);
    next?.focus();
    return next?.dataset.row ?? null;
  }

  /** The row of the card that has the focus; null where none has. */
  get focused() {
    const card = document.activeElement?.closest?.("article[data-row]");
    return card && this._element.contains(card) ? /** @type {HTMLElement} */ (card).dataset.row ?? null : null;
  }

  /**
   * @param {any} part One class of an answer.
   * @param {any[]} neighbours
   * @param {function(any): HTMLElement} card
   */
  _row(part, neighbours, card) {
    const own = neighbours.filter((neighbour) => neighbour.outcome === part.value);
    return make(`section.row`, { "aria-label": `nearest ${outcomeWord(part.value)} findings` },
      make("h3", {}, outcomeMark(part.value), make("span.dim", {}, ` nearest ${own.length} of ${counted(part.allowed_rows, this._breasts ? "image" : "finding")}`)),
      own.length
        ? make("ol.cards", { role: "list", tabIndex: 0, "aria-label": `${outcomeWord(part.value)} findings` },
          own.map((one) => make("li", {}, card(one))))
        : make("p.dim", {}, "None may answer."));
  }

  /**
   * The picture that is asked with, at the scale of the others.
   * @param {import("/static/state.js").State} state
   * @param {number|null} mm
   * @param {number} pixels
   * @param {Map<string, any>} kept
   */
  _question(state, mm, pixels, kept) {
    const url = questionPicture(state, mm, pixels, this._breasts);
    const found = this._cards.get(url) ?? new Question(url, questionName(state, this._breasts));
    kept.set(url, /** @type {any} */ (found));
    return found.element;
  }
}

/** The finding that is asked about. */
class Question {
  /**
   * @param {string} url
   * @param {string} name
   */
  constructor(url, name) {
    const frame = make("div.frame");
    this.element = make("article.card.question", { "aria-label": name }, frame, make("p", {}, make("b", {}, name)));
    this._begin = () => picture(frame, url, { label: name });
  }

  /** Fetch the picture, once the card stands on the page. */
  begin() {
    this._crop ??= this._begin();
  }

  destroy() {
    this._crop?.destroy();
  }
}

/** One similar finding. */
class Card {
  /**
   * @param {any} neighbour
   * @param {string} url
   * @param {Steps} steps
   */
  constructor(neighbour, url, steps) {
    const { row, woman } = neighbour;
    const frame = make("div.frame");
    this._up = thumbButton("up", `More like ${woman}`, "y", () => steps.up(row));
    this._down = thumbButton("down", `Less like ${woman}`, "x", () => steps.down(row));
    this._compare = button("Compare", () => steps.compare(row), {
      name: `Compare ${woman} with yours`, kind: "small compare-it", title: "Compare with yours (key: c)",
    });
    this._compare.prepend(draw("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" },
      draw("path", { d: "M3 5h7v14H3zM14 5h7v14h-7z" })));
    this._words = make("div.words");
    this.element = make("article.card", { tabIndex: -1, data: { row } },
      frame, this._words, make("div.actions", {}, this._up, this._down, this._compare));
    this._begin = () => (neighbour.has_picture
      ? picture(frame, url, {
        label: `${woman}, ${outcomeWord(neighbour.outcome)}`, tone: outcomeKind(neighbour.outcome), open: () => steps.compare(row),
      })
      : noPicture(frame));
  }

  /** Fetch the picture, once the card stands on the page. */
  begin() {
    this._crop ??= this._begin();
  }

  /**
   * @param {any} neighbour
   * @param {import("/static/state.js").State} state
   */
  update(neighbour, state) {
    const spoken = [
      `${neighbour.rank}: ${neighbour.woman}`, outcomeWord(neighbour.outcome), neighbour.lesion_type, size(neighbour.size_mm),
    ].filter(Boolean);
    this.element.setAttribute("aria-label", spoken.join(", "));
    this.element.classList.toggle("compared", state.compare === neighbour.row);
    press(this._up, state.up.includes(neighbour.row));
    press(this._down, state.down.includes(neighbour.row));
    press(this._compare, state.compare === neighbour.row);
    const doubtful = typeof neighbour.typicality === "number" && neighbour.typicality < ATYPICAL;
    fill(this._words,
      make("p.first", {}, outcomeMark(neighbour.outcome), make("span.rank", { "aria-hidden": "true" }, String(neighbour.rank))),
      make("p", {}, neighbour.lesion_type ?? (neighbour.outcome === "normal" ? "no lesion" : "type unknown")),
      make("p.dim", {}, factsOf(neighbour).join(" · ")),
      doubtful ? make("p.warn", { title: "The findings most like this one mostly had another outcome" }, "atypical look") : null);
  }

  destroy() {
    this._crop?.destroy();
  }
}

/**
 * What is said small below a picture.
 * @param {any} neighbour
 * @returns {string[]}
 */
export function factsOf(neighbour) {
  return [
    size(neighbour.size_mm),
    typeof neighbour.age === "number" ? `age ${neighbour.age}` : null,
    neighbour.density ? `density ${neighbour.density}` : null,
    neighbour.view ? viewName({ view: neighbour.view, laterality: neighbour.laterality }) : null,
  ].filter((fact) => fact !== null);
}

/**
 * Say in the place of a picture that there is none.
 * @param {HTMLElement} frame
 * @returns {null}
 */
export function noPicture(frame) {
  fill(frame, make("p.none", {}, "no picture kept"));
  return null;
}

/**
 * A picture with its own zoom and window; where it can't be had it says so itself.
 * @param {HTMLElement} frame
 * @param {string} url
 * @param {{label: string, tone?: string|null, open?: function(): void}} how `label` for a screen reader, `tone` the
 *     outcome that colours its box, `open` what a double click or Enter does.
 * @returns {CropView}
 */
export function picture(frame, url, how) {
  const crop = new CropView(frame, how.open ? { onOpen: how.open } : {}, { label: how.label, tone: how.tone ?? null });
  crop.load(url).catch(() => {}); // the picture says it itself
  return crop;
}

/**
 * @param {"up"|"down"} way
 * @param {string} name
 * @param {string} key
 * @param {function(): void} act
 */
function thumbButton(way, name, key, act) {
  const made = make("button.icon", {
    type: "button", "aria-label": name, title: `${name} (key: ${key})`, "aria-pressed": "false", on: { click: act },
  });
  made.append(draw("svg", { viewBox: "0 0 24 24", "aria-hidden": "true", class: way },
    draw("path", { d: "M7 11v9H3v-9zM9 20V11l4-8c1.6 0 2.5 1.2 2.2 2.8L14.6 9H20c1 0 1.7.9 1.4 1.9l-2.2 7.6c-.3.9-1 1.5-2 1.5z" })));
  return made;
}
