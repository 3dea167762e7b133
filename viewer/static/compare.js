/**
 * Comparing: a similar finding beside the one that is asked about, at one scale, with zoom and window linked, its other
 * views and what its report says.
 * @module compare
 */

import { get, isAborted } from "/static/api.js";
import { button, fill, make, press } from "/static/elements.js";
import { ImageView } from "/static/image/imageview.js";
import { failed, waiting } from "/static/notices.js";
import { questionName, questionPicture, rowPicture } from "/static/question.js";
import { noPicture, picture } from "/static/strip.js";
import { capital, number, outcomeKind, outcomeMark, viewName } from "/static/words.js";

const PIXELS = 768;

/** Two pictures side by side. */
export class Compare {
  /**
   * @param {HTMLElement} element
   * @param {import("/static/state.js").Address} address
   * @param {function(): any} answerOf The answer that the neighbour belongs to; null while there is none.
   * @param {function(number): void} step Goes to the next neighbour, or to the one before.
   * @param {boolean} breasts Whether whole breasts are compared.
   */
  constructor(element, address, answerOf, step, breasts) {
    this._element = element;
    this._address = address;
    this._answerOf = answerOf;
    this._step = step;
    this._breasts = breasts;
    this._linked = true;
    this._whole = false;
    this._views = [];
    this._shown = "";
    this.update();
  }

  /** Show what the address says. */
  async update() {
    const state = this._address.state;
    const mm = this._answerOf()?.suggested_mm ?? null;
    const key = JSON.stringify([state.compare, state.image, state.box, state.row, mm, Boolean(this._answerOf())]);
    if (key === this._shown) return;
    this._shown = key;
    this._loading?.abort();
    const loading = (this._loading = new AbortController());
    if (!this._element.firstChild) fill(this._element, waiting("fetching the case"));
    try {
      const found = await get(`/rows/${encodeURIComponent(state.compare)}`, { signal: loading.signal });
      this._found = found;
      this._mm = mm;
      this._draw();
    } catch (error) {
      if (!isAborted(error)) fill(this._element, failed(error, () => {
        this._shown = "";
        this.update();
      }));
    }
  }

  /** Leave. */
  destroy() {
    this._loading?.abort();
    this._clear();
    fill(this._element);
  }

  _clear() {
    this._unlink?.();
    this._unlink = null;
    for (const view of this._views) view?.destroy?.();
    this._views = [];
  }

  _draw() {
    this._clear();
    const state = this._address.state;
    const found = this._found;
    const neighbour = (this._answerOf()?.neighbours ?? []).find((one) => one.row === state.compare);
    const link = button("Linked", () => this._link(), { pressed: this._linked, title: "Zoom and window together" });
    this._linkButton = link;
    const whole = button("Whole images", () => this._toggleWhole(), {
      pressed: this._whole, disabled: !found.image || !state.image,
      title: found.image ? "Whole images in the place of the findings" : "The whole image of this case is not here",
    });
    const own = make("div.frame");
    const other = make("div.frame");
    fill(this._element,
      make("div.bar", {},
        make("h2", {}, "Compare"), link, whole,
        button("Ask with this case", () => this._askWith(found.row), { title: "Find the cases that are like this one" }),
        button("Before", () => this._step(-1), { key: "k" }), button("Next", () => this._step(1), { key: "j" }),
        button("Close", () => this._address.go({ compare: "" }, "stopped comparing"), { key: "Escape" })),
      make("div.pair", {},
        make("figure", {}, own, make("figcaption", {}, make("b", {}, questionName(state, this._breasts)))),
        make("figure", {}, other, make("figcaption", {}, outcomeMark(found.outcome),
          make("span", {}, ` ${found.woman ?? "another woman"}`)))),
      this._otherViews(found),
      make("section.facts", { "aria-label": "What the report says" },
        make("h3", {}, "What is known of it"),
        make("dl", {}, factRows(found, neighbour).map(([name, value]) => [make("dt", {}, capital(name)), make("dd", {}, value)]))));
    if (this._whole && found.image && state.image) this._images(own, other, found);
    else this._crops(own, other, found);
  }

  /**
   * @param {HTMLElement} own
   * @param {HTMLElement} other
   * @param {any} found
   */
  _crops(own, other, found) {
    this._views = [
      picture(own, questionPicture(this._address.state, this._mm, PIXELS, this._breasts), {
        label: questionName(this._address.state, this._breasts),
      }),
      found.has_picture ? picture(other, rowPicture(found.row, this._mm, PIXELS), { label: "the case compared", tone: outcomeKind(found.outcome) }) : noPicture(other),
    ];
    this._applyLink();
  }

  /**
   * @param {HTMLElement} own
   * @param {HTMLElement} other
   * @param {any} found
   */
  async _images(own, other, found) {
    const state = this._address.state;
    const views = (this._views = [[own, "Your mammogram"], [other, "The mammogram of the case compared"]].map(
      ([place, label]) => new ImageView(place, {}, { label })));
    try {
      const infos = await Promise.all([state.image, found.image].map((id) => get(`/images/${encodeURIComponent(id)}`)));
      await Promise.all(views.map((view, at) => view.open(infos[at])));
      if (views !== this._views) return;
      const boxes = [state.box, found.box];
      views.forEach((view, at) => {
        view.setTool("pan");
        if (boxes[at]) view.setMarks([{ id: "place", box: boxes[at], outline: null, label: "", kind: at ? "finding" : "query", tone: at ? outcomeKind(found.outcome) : null,
          selected: true }]);
      });
      this._applyLink();
    } catch (error) {
      if (!isAborted(error) && views === this._views) fill(other, failed(error));
    }
  }

  /** @param {string} row */
  _askWith(row) {
    this._address.go({ row, compare: "", up: [], down: [], further: [], k: 10 }, "asked with a case");
  }

  _link() {
    this._linked = !this._linked;
    press(this._linkButton, this._linked);
    this._applyLink();
  }

  _applyLink() {
    const [own, other] = this._views;
    this._unlink?.();
    this._unlink = this._linked && own && other ? own.link(other) : null;
  }

  _toggleWhole() {
    this._whole = !this._whole;
    this._draw();
  }

  /** @param {any} found */
  _otherViews(found) {
    const views = (found.other_views ?? []).filter((one) => one.row !== found.row);
    if (!views.length) return null;
    return make("div.bar.other-views", { role: "group", "aria-label": "Other views of it" }, make("span.dim", {}, "Its other views"),
      views.map((one) => button(viewName(one), () => this._address.go({ compare: one.row }, `compared ${viewName(one)}`), {
        kind: "small",
      })));
  }
}

/**
 * @param {any} found
 * @param {any} neighbour
 * @returns {[string, string][]}
 */
function factRows(found, neighbour) {
  const rows = (found.facts ?? []).map(({ name, value }) => [String(name).replaceAll("_", " "), value === null ? "–" : String(value)]);
  if (neighbour) rows.push(["similarity", `${number(neighbour.similarity, 3)} (1 is the same picture)`]);
  return rows;
}
