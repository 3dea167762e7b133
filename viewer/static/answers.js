/**
 * The panel beside the image: how close the precedents are, the strip, what steers it, and the opinion.
 * @module answers
 */

import { isAborted } from "/static/api.js";
import { announce, button, fill, make, press, tip } from "/static/elements.js";
import { bind } from "/static/keys.js";
import { empty, failed, waiting } from "/static/notices.js";
import { Opinion } from "/static/opinion.js";
import { Asker, comparesBreasts, questionOf } from "/static/question.js";
import { keep, setting } from "/static/settings.js";
import { chips, Steering } from "/static/steer.js";
import { Strip } from "/static/strip.js";
import { capital, counted, number } from "/static/words.js";

const SIDES = { small: 7, middle: 9.5, large: 15 }; // rem of a picture
const MORE = 10;
const MOST = 50;

/** All that a question brings. It tells its listeners of a new answer by the event `answer`. */
export class Answers extends EventTarget {
  /**
   * @param {HTMLElement} element
   * @param {import("/static/state.js").Address} address
   * @param {any} session
   * @param {{addView: function(): void, askImage: function(): void, imageName: function(string): string}} study What the
   *     study knows.
   */
  constructor(element, address, session, study) {
    super();
    this._address = address;
    this._study = study;
    this._breasts = comparesBreasts(session);
    this._women = new Map();
    this._asked = null;
    this._k = MOST;
    /** The last answer; null while there is none. */
    this.answer = null;
    this._side = Object.hasOwn(SIDES, setting("cards") ?? "") ? /** @type {any} */ (setting("cards")) : "middle";

    this._undo = button("Undo", () => address.undo(), { key: "z" });
    this._redo = button("Redo", () => address.redo(), { title: "Take the undone step again (key: Shift+z)" });
    this._two = button("Benign | malignant", () => this._toggle("two", "two rows", "one row"), {
      key: "t", pressed: false, title: "Nearest benign and nearest malignant findings in two rows",
    });
    this._steerButton = button("Filters", () => this._openSteering(), { key: "e", title: "Filters, and what should match" });
    this._steerButton.setAttribute("aria-controls", "steering");
    this._view = button("Add view", () => study.addView(), { key: "v", title: "Add the other view of the same finding" });
    this._sizes = /** @type {HTMLSelectElement} */ (make("select", {
      "aria-label": "Size of the pictures", title: "Size of the pictures", on: { change: () => this._resize() },
    }, Object.keys(SIDES).map((name) => make("option", { value: name, selected: name === this._side }, name))));

    this._chips = make("div.chips", { role: "group", "aria-label": "What steers the question" });
    this._panel = make("div.steering", { id: "steering", hidden: true });
    this._says = make("div.says", { role: "status" });
    this._list = make("div.strip");
    this._more = make("div.more");
    this._opinionPlace = make("section.opinion", { "aria-label": "Opinion", hidden: true });
    this._found = make("div");
    fill(element,
      make("div.bar", {}, make("h2", {}, this._breasts ? "Similar breasts" : "Similar findings"), this._undo, this._redo, this._sizes, this._two, this._steerButton, this._view),
      this._panel, this._chips,
      (this._scroll = make("div.answers-scroll", {}, this._says, this._list, this._more, this._opinionPlace, this._found)));
    this._steering = new Steering(this._panel, address, session);
    this._strip = new Strip(this._list, {
      compare: (row) => this._compare(row),
      up: (row) => this._thumb("up", "down", row),
      down: (row) => this._thumb("down", "up", row),
    }, this._breasts);
    this._opinion = new Opinion(this._opinionPlace, session.opinion_hidden !== false);
    this._asker = new Asker((text) => this._wait(text));
    this._unbind = bind(this._keys());
    this.update();
  }

  /** Show what the address says, and ask where it asks something new. */
  update() {
    const state = this._address.state;
    const undoable = this._address.undoable;
    this._undo.disabled = undoable === null;
    this._undo.title = tip(undoable ? `Undo: ${undoable}` : "Nothing to undo", "z");
    this._redo.disabled = !this._address.redoable;
    press(this._two, state.two);
    this._view.disabled = !state.ask || Boolean(state.row);
    this._steering.update();
    fill(this._chips, chips(this._address, (row) => this._women.get(row) ?? row, this._study.imageName));
    this._list.style.setProperty("--side", `${SIDES[this._side]}rem`);
    const body = questionOf(state, this._breasts);
    const asked = body ? JSON.stringify(body) : "";
    if (asked !== this._asked) {
      this._asked = asked;
      this._ask(body);
    } else if (this.answer) {
      this._strip.show(this.answer, state, this._pixels);
    }
  }

  /** Leave the panel. */
  destroy() {
    this._unbind();
    this._asker.stop();
    this._opinion.set(null);
    this._strip.clear();
  }

  /**
   * Compare the next neighbour, or the one before.
   * @param {number} by
   */
  step(by) {
    const { compare } = this._address.state;
    const rows = (this.answer?.neighbours ?? []).map((neighbour) => neighbour.row);
    if (!compare || !rows.length) {
      this._strip.step(by);
      return;
    }
    const at = rows.indexOf(compare);
    this._address.go({ compare: rows[Math.min(Math.max(at + by, 0), rows.length - 1)] });
  }

  /** A picture's side in CSS pixels. */
  get _pixels() {
    return SIDES[this._side] * parseFloat(getComputedStyle(document.documentElement).fontSize);
  }

  /** @param {object|null} body */
  async _ask(body) {
    this.answer = null;
    this._opinion.set(null);
    fill(this._found);
    fill(this._more);
    if (!body) {
      this._asker.stop();
      this._strip.clear();
      fill(this._says, this._invitation());
      this._list.removeAttribute("aria-busy");
      this._tell();
      return;
    }
    this._list.setAttribute("aria-busy", "true");
    const started = performance.now();
    try {
      const answer = await this._asker.ask("/query", body);
      this.answer = answer;
      for (const { row, woman } of answer.neighbours) this._women.set(row, woman);
      this._show(answer, body);
      performance.measure("mammoseek.answer", { start: started }); // for whoever measures: from the question to its strip
      this._tell();
    } catch (error) {
      if (isAborted(error)) return;
      this._strip.clear();
      fill(this._says, failed(error, () => this._ask(body)));
      this._tell();
    }
    this._list.removeAttribute("aria-busy");
  }

  /**
   * @param {any} answer
   * @param {object} body
   */
  _show(answer, body) {
    const state = this._address.state;
    fill(this._chips, chips(this._address, (row) => this._women.get(row) ?? row, this._study.imageName));
    fill(this._says, precedent(answer));
    if (!answer.neighbours.length) {
      this._strip.clear();
      this._says.append(empty("No finding may answer under these filters.", button("Remove all filters", () => this._address.go(
        { density: [], view: [], lesion: [], dataset: [], age: null, typical: false }, "without filters"))));
    } else {
      this._strip.show(answer, state, this._pixels);
      if (state.k <= this._k) this._scroll.scrollTop = 0; // other neighbours: the nearest first
      this._k = state.k;
    }
    const more = !state.two && answer.neighbours.length >= state.k && state.k < MOST && answer.allowed_rows > state.k;
    fill(this._more, more
      ? button(`Show ${MORE} more`, () => this._address.go({ k: Math.min(state.k + MORE, MOST) }, `${MORE} more`)) : null);
    this._opinion.set(answer.neighbours.length ? body : null);
    fill(this._found, account(answer));
    announce(`${counted(answer.neighbours.length, "similar finding")}. ${answer.closeness?.sentence ?? ""}`);
  }

  /** @param {string} text */
  _wait(text) {
    if (!this.answer) fill(this._says, waiting(text));
  }

  _invitation() {
    if (this._breasts) {
      return make("div.notice.empty", {},
        make("p", {}, "This gallery compares whole breasts: the most similar images of other women appear here, with what became of them."),
        button("Ask about this image", () => this._study.askImage(), { key: "a" }),
        make("p.dim", {}, "? lists all keys."));
    }
    return make("div.notice.empty", {},
      make("p", {}, "Draw a box round a finding, or pick a detection: the most similar findings of other women appear here, with what became of them."),
      make("p.dim", {}, "b draws a box, n picks the next detection, ? lists all keys."));
  }

  _tell() {
    this.dispatchEvent(new CustomEvent("answer"));
  }

  /**
   * @param {"two"|"typical"} key
   * @param {string} on
   * @param {string} off
   */
  _toggle(key, on, off) {
    const next = !this._address.state[key];
    this._address.go({ [key]: next }, next ? on : off);
  }

  /** @param {string} row */
  _compare(row) {
    const same = this._address.state.compare === row;
    const name = this._women.get(row) ?? row;
    this._address.go({ compare: same ? "" : row }, same ? `closed ${name}` : `compared ${name}`);
  }

  /**
   * @param {"up"|"down"} way
   * @param {"up"|"down"} other
   * @param {string} row
   */
  _thumb(way, other, row) {
    const state = this._address.state;
    const on = !state[way].includes(row);
    const name = this._women.get(row) ?? row;
    this._address.go({
      [way]: on ? [...state[way], row] : state[way].filter((one) => one !== row),
      [other]: state[other].filter((one) => one !== row),
    }, on ? `${way === "up" ? "more" : "less"} like ${name}` : `no thumb on ${name}`);
  }

  /** @param {boolean} [open] */
  _openSteering(open = this._panel.hidden) {
    this._panel.hidden = !open;
    this._steerButton.setAttribute("aria-expanded", String(open));
    if (open) /** @type {HTMLElement|null} */ (this._panel.querySelector("input"))?.focus();
  }

  _resize() {
    this._side = /** @type {any} */ (this._sizes.value);
    keep("cards", this._side);
    this.update();
  }

  _keys() {
    const group = "Similar findings";
    const focused = () => this._strip.focused || this._address.state.compare;
    const on = (act) => () => act(/** @type {string} */ (focused()));
    const first = () => this.answer?.neighbours[0]?.row;
    return [
      { group, key: "j", does: "Next finding", act: () => this.step(1) },
      { group, key: "k", does: "Finding before", act: () => this.step(-1) },
      { group, key: "c", does: "Compare it with yours, or stop comparing", when: () => Boolean(focused() || first()),
        act: () => this._compare(focused() || first()) },
      { group, key: "y", does: "More like it", when: () => Boolean(focused()), act: on((row) => this._thumb("up", "down", row)) },
      { group, key: "x", does: "Less like it", when: () => Boolean(focused()), act: on((row) => this._thumb("down", "up", row)) },
      { group, key: "t", does: "One row, or benign facing malignant", act: () => this._two.click() },
      { group, key: "e", does: "Filters and sliders", act: () => this._openSteering() },
      { group, key: "v", does: "Add the other view", act: () => this._view.click() },
      { group, key: "o", does: "Show how they turned out, counted", when: () => Boolean(this.answer), act: () => this._opinion.reveal() },
      { group, key: "z", does: "Undo the last step", act: () => this._address.undo() },
      { group, key: "Shift+z", does: "Take it again", act: () => this._address.redo() },
    ];
  }
}

/**
 * How close the precedents are, in words above the strip.
 * @param {any} answer
 */
function precedent(answer) {
  const { no_close_precedent: far, sentence } = answer.closeness ?? {};
  if (far) {
    return make("div.precedent.far", {}, make("b", {}, "No close precedent."), ` ${capital(withoutHead(sentence ?? ""))}`);
  }
  return sentence ? make("p.precedent.dim", {}, capital(sentence)) : null;
}

/** @param {string} sentence */
function withoutHead(sentence) {
  return sentence.replace(/^no close precedent[:.,;]?\s*/i, "");
}

/**
 * How an answer was found, for those who ask.
 * @param {any} answer
 */
function account(answer) {
  const times = answer.milliseconds ?? {};
  const facts = [
    ["Findings that could answer", number(answer.allowed_rows)],
    ["Left out as the same woman's", number(answer.excluded_rows)],
    ["Time", ["queued", "embedding", "search", "all"].filter((name) => typeof times[name] === "number")
      .map((name) => `${name} ${number(times[name], 0)} ms`).join(", ")],
    ["Question", answer.question_id],
    ...Object.entries(answer.replay ?? {}).map(([name, value]) => [name.replaceAll("_", " "), String(value)]),
  ];
  return [
    (answer.notes ?? []).length ? make("ul.notes", {}, answer.notes.map((note) => make("li", {}, capital(note)))) : null,
    make("details.account", {}, make("summary", {}, "How this was found"),
      make("dl", {}, facts.map(([name, value]) => [make("dt", {}, capital(String(name))), make("dd", {}, value ?? "–")]))),
  ];
}
