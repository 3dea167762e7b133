/**
 * The page's state and its address. The state lives in the fragment, which browsers send neither to the server nor to a
 * proxy's log. Each step is an entry of the browser's history, so undo is the way back, and the browser's own button
 * does the same.
 * @module state
 */

/** @typedef {[number, number, number, number]} Box x0, y0, x1, y1 in pixels of the stored image, half-open. */

/**
 * @typedef {object} State What is looked at and asked.
 * @property {"worklist"|"study"|"collection"} page
 * @property {string} study
 * @property {string} image The image that is asked about.
 * @property {string} show Another image of the study that is looked at meanwhile; "all" for all of them.
 * @property {Box|null} box
 * @property {string} detection
 * @property {string} row A row of the gallery that is the question, in the place of image and box.
 * @property {boolean} ask
 * @property {number} k
 * @property {string[]} density Filters: the values that may answer; none for all.
 * @property {string[]} view
 * @property {string[]} lesion
 * @property {string[]} dataset
 * @property {[number, number]|null} age
 * @property {boolean} typical
 * @property {boolean} two Two rows, one per outcome.
 * @property {Object<string, number>} weights What should match, and how much, by the name of the facet.
 * @property {string[]} up Rows to move the question toward.
 * @property {string[]} down Rows to move it away from.
 * @property {{image: string, box: Box|null}[]} further Other views of the same finding; without a box, whole images.
 * @property {string} compare
 * @property {number|null} ww Width of the window.
 * @property {number|null} wc Its centre.
 * @property {string} search
 * @property {string} state
 * @property {string} sort
 * @property {number} offset
 */

/** @type {State} */
const EMPTY = Object.freeze({
  page: "worklist", study: "", image: "", show: "", box: null, detection: "", row: "", ask: false, k: 10,
  density: [], view: [], lesion: [], dataset: [], age: null, typical: false, two: false, weights: {},
  up: [], down: [], further: [], compare: "", ww: null, wc: null,
  search: "", state: "", sort: "", offset: 0,
});

/** Facets and the names of their weights in the address, where `density` is the filter's. */
const FACET_KEYS = { margin: "margin", shape: "shape", size: "size", density: "like_density" };

const LARGEST_K = 50;
const LISTS = ["density", "view", "lesion", "dataset", "up", "down"];
const TEXTS = ["image", "show", "detection", "row", "compare", "search", "state", "sort"];
const SWITCHES = ["ask", "typical", "two"];

/**
 * The state that an address says. What can't be read is left out.
 * @param {string} hash The fragment, with or without its #.
 * @returns {State}
 */
export function parse(hash) {
  const [path, query = ""] = hash.replace(/^#/, "").split("?", 2);
  const said = new Map(query.split("&").filter(Boolean).map((part) => {
    const [key, ...rest] = part.split("=");
    return [key, rest.join("=")];
  }));
  const text = (key) => decoded(said.get(key) ?? "");
  const [, page, named = ""] = path.split("/");
  // No study, or dots, which browsers take out of the path, would ask the server for something that is no study.
  const study = page === "study" ? decoded(named).replace(/^\.{1,2}$/, "") : "";
  const state = { ...EMPTY, page: study ? "study" : page === "collection" ? "collection" : "worklist", study };
  for (const key of TEXTS) state[key] = text(key);
  for (const key of LISTS) state[key] = (said.get(key) ?? "").split(",").map(decoded).filter(Boolean);
  for (const key of SWITCHES) state[key] = said.get(key) === "1";
  state.box = parseBox(said.get("box"));
  state.k = whole(said.get("k"), 1, LARGEST_K) ?? EMPTY.k;
  state.offset = whole(said.get("offset"), 0, 1e9) ?? 0;
  state.age = parseAge(said.get("age"));
  state.ww = finite(said.get("ww"));
  state.wc = finite(said.get("wc"));
  if (state.ww === null || state.ww <= 0 || state.wc === null) state.ww = state.wc = null;
  state.weights = {};
  for (const [facet, key] of Object.entries(FACET_KEYS)) {
    const weight = finite(said.get(key));
    if (weight !== null && weight > 0 && weight <= 1) state.weights[facet] = weight;
  }
  state.further = (said.get("further") ?? "").split(";").flatMap((part) => {
    const [name, corners] = part.split(":", 2);
    const [image, box] = [decoded(name), parseBox(corners)];
    return image && (box || corners === undefined) ? [{ image, box }] : [];
  });
  return state;
}

/**
 * The address of a state, beginning with #. Equal states have equal addresses.
 * @param {State} state
 * @returns {string}
 */
export function format(state) {
  const parts = [];
  const say = (key, value) => value && parts.push(`${key}=${value}`);
  if (state.page === "study") {
    say("image", coded(state.image));
    say("show", coded(state.show));
    say("box", state.box?.join(","));
    say("detection", coded(state.detection));
    say("row", coded(state.row));
    say("ask", state.ask ? "1" : "");
    say("k", state.k === EMPTY.k ? "" : String(state.k));
    for (const key of ["density", "view", "lesion", "dataset"]) say(key, state[key].map(coded).join(","));
    say("age", state.age?.join("-"));
    say("typical", state.typical ? "1" : "");
    say("two", state.two ? "1" : "");
    for (const [facet, key] of Object.entries(FACET_KEYS)) say(key, state.weights[facet] ? String(state.weights[facet]) : "");
    for (const key of ["up", "down"]) say(key, state[key].map(coded).join(","));
    say("further", state.further.map(({ image, box }) => (box ? `${coded(image)}:${box.join(",")}` : coded(image))).join(";"));
    say("compare", coded(state.compare));
    if (state.ww !== null) parts.push(`ww=${state.ww}`, `wc=${state.wc}`);
  } else if (state.page === "worklist") {
    for (const key of ["search", "state", "sort"]) say(key, coded(state[key]));
    say("offset", state.offset ? String(state.offset) : "");
  }
  const path = state.page === "study" ? `study/${coded(state.study)}` : state.page;
  return `#/${path}${parts.length ? `?${parts.join("&")}` : ""}`;
}

/**
 * The state of another study, or of another page, where nothing is asked yet.
 * @param {Partial<State>} part
 * @returns {State}
 */
export function fresh(part) {
  return { ...EMPTY, weights: {}, ...part };
}

/** The address bar. It tells its listeners of each new state by the event `change`. */
export class Address extends EventTarget {
  constructor() {
    super();
    this.state = parse(location.hash);
    this._href = location.href;
    const kept = history.state;
    this._place = kept && Number.isInteger(kept.step) ? kept : { step: 0, base: 0, label: "" };
    this._top = this._place.step;
    history.replaceState(this._place, "");
    window.addEventListener("popstate", () => this._moved());
    window.addEventListener("hashchange", () => this._moved());
  }

  /**
   * Take a step.
   * @param {Partial<State>} part What becomes different.
   * @param {string} [label] The step in words, for undo; without one the state is only noted, and undo passes over it.
   */
  go(part, label) {
    const next = { ...this.state, ...part };
    const address = format(next);
    if (address === format(this.state)) return;
    const elsewhere = next.page !== this.state.page || next.study !== this.state.study;
    this.state = next;
    if (label === undefined) {
      history.replaceState(this._place, "", address);
    } else {
      const step = this._place.step + 1;
      this._place = { step, base: elsewhere ? step : this._place.base, label };
      this._top = step;
      history.pushState(this._place, "", address);
    }
    this._href = location.href;
    this._tell();
  }

  /** The last step in words; null where there is none in this study. */
  get undoable() {
    return this._place.step > this._place.base ? this._place.label : null;
  }

  /** Whether a step was undone that can be taken again. */
  get redoable() {
    return this._top > this._place.step;
  }

  /** Take the last step back. */
  undo() {
    if (this.undoable !== null) history.back();
  }

  /** Take an undone step again. */
  redo() {
    if (this.redoable) history.forward();
  }

  _moved() {
    if (location.href === this._href) return;
    this._href = location.href;
    const before = this.state;
    this.state = parse(location.hash);
    if (history.state && Number.isInteger(history.state.step)) {
      this._place = history.state;
    } else {
      // An address that was typed or a link that was followed: it is a new step.
      const same = before.page === this.state.page && before.study === this.state.study;
      const step = this._place.step + 1;
      this._place = { step, base: same ? this._place.base : step, label: "followed a link" };
      this._top = step;
      history.replaceState(this._place, "");
    }
    this._tell();
  }

  _tell() {
    this.dispatchEvent(new CustomEvent("change"));
  }
}

/** @param {string} text */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}

/** @param {string} text */
function coded(text) {
  return encodeURIComponent(text);
}

/**
 * @param {string|undefined} text
 * @returns {Box|null}
 */
function parseBox(text) {
  const corners = (text ?? "").split(",").map((part) => whole(part, 0, 1e6));
  if (corners.length !== 4 || corners.includes(null)) return null;
  const [x0, y0, x1, y1] = /** @type {Box} */ (corners);
  return x1 > x0 && y1 > y0 ? [x0, y0, x1, y1] : null;
}

/**
 * @param {string|undefined} text
 * @returns {[number, number]|null}
 */
function parseAge(text) {
  const [low, high, more] = (text ?? "").split("-").map((part) => whole(part, 0, 150));
  return typeof low === "number" && typeof high === "number" && more === undefined && low <= high ? [low, high] : null;
}

/**
 * @param {string|undefined} text
 * @param {number} low
 * @param {number} high
 */
function whole(text, low, high) {
  if (!/^\d{1,9}$/.test(text ?? "")) return null;
  const value = Number(text);
  return value >= low && value <= high ? value : null;
}

/** @param {string|undefined} text */
function finite(text) {
  const value = Number(text);
  return text && Number.isFinite(value) ? value : null;
}
