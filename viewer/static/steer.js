/**
 * Steering a question: filters, sliders for what should match, and the list of all that is set, each with its way out.
 * @module steer
 */

import { button, fill, make } from "/static/elements.js";

/** @typedef {import("/static/state.js").State} State */

/** Filters by the state's key: the session's name for its values, and the heading. */
const FILTERS = [
  ["lesion", "lesion_type", "Lesion type"],
  ["density", "density", "Density"],
  ["view", "view", "View"],
  ["dataset", "dataset", "Data set"],
];

const STRONGEST = 0.3; // of a similarity that is at most 1
const STRENGTHS = ["off", "a little", "somewhat", "clearly", "strongly"];

/** The panel of filters and sliders. */
export class Steering {
  /**
   * @param {HTMLElement} element
   * @param {import("/static/state.js").Address} address
   * @param {any} session
   */
  constructor(element, address, session) {
    this._address = address;
    this._session = session;
    this._boxes = new Map();
    this._sliders = new Map();
    fill(element,
      FILTERS.map(([key, name, heading]) => this._choices(key, heading, session.filters?.[name] ?? [])),
      this._ages(session.filters?.age),
      session.typical_label ? this._typical() : null,
      (session.facets ?? []).length ? make("fieldset.sliders", {},
        make("legend", {}, "Should match"), session.facets.map((facet) => this._slider(facet))) : null);
    this.update();
  }

  /** Show what the address says. */
  update() {
    const state = this._address.state;
    for (const [key, inputs] of this._boxes) for (const input of inputs) input.checked = state[key].includes(input.value);
    if (this._low) {
      this._low.value = state.age ? String(state.age[0]) : "";
      this._high.value = state.age ? String(state.age[1]) : "";
    }
    if (this._only) this._only.checked = state.typical;
    for (const [facet, { input, output }] of this._sliders) {
      const step = Math.min(Math.round(((state.weights[facet] ?? 0) / STRONGEST) * (STRENGTHS.length - 1)), STRENGTHS.length - 1);
      input.value = String(step);
      output.textContent = STRENGTHS[step];
      input.setAttribute("aria-valuetext", STRENGTHS[step]);
    }
  }

  /**
   * @param {string} key
   * @param {string} heading
   * @param {string[]} values
   */
  _choices(key, heading, values) {
    if (values.length < 2) return null;
    const inputs = values.map((value) => /** @type {HTMLInputElement} */ (make("input", {
      type: "checkbox", id: `${key}-${value}`, value,
      on: { change: () => this._filter(key, heading) },
    })));
    this._boxes.set(key, inputs);
    return make("fieldset", {}, make("legend", {}, heading),
      make("div.choices", {}, inputs.map((input) => make("span.choice", {}, input, make("label", { for: input.id }, input.value)))));
  }

  /**
   * @param {string} key
   * @param {string} heading
   */
  _filter(key, heading) {
    const chosen = this._boxes.get(key).filter((input) => input.checked).map((input) => input.value);
    const what = heading.toLowerCase();
    this._address.go({ [key]: chosen }, chosen.length ? `${what}: ${chosen.join(", ")}` : `any ${what}`);
  }

  /** @param {[number, number]|null|undefined} range */
  _ages(range) {
    if (!range) return null;
    const input = (id, name, placeholder) => /** @type {HTMLInputElement} */ (make("input.age", {
      type: "number", id, min: "0", max: "150", "aria-label": name, placeholder: String(Math.floor(placeholder)),
      on: { change: () => this._aged() },
    }));
    this._low = input("age-low", "Youngest", range[0]);
    this._high = input("age-high", "Oldest", range[1]);
    return make("fieldset", {}, make("legend", {}, "Age"), this._low, make("span", {}, " to "), this._high);
  }

  _aged() {
    const low = Math.round(Number(this._low?.value || 0));
    const high = Math.round(Number(this._high?.value || 150));
    const open = !this._low?.value && !this._high?.value;
    if (!open && !(low >= 0 && low <= high && high <= 150)) {
      this._high?.setCustomValidity("The oldest comes after the youngest.");
      this._high?.reportValidity();
      return;
    }
    this._high?.setCustomValidity("");
    this._address.go({ age: open ? null : [low, high] }, open ? "any age" : `age ${low} to ${high}`);
  }

  _typical() {
    this._only = /** @type {HTMLInputElement} */ (make("input", {
      type: "checkbox", id: "typical",
      on: { change: (event) => this._address.go({ typical: event.target.checked }, event.target.checked ? "typical only" : "atypical too") },
    }));
    return make("fieldset", {}, make("legend", {}, "Cases"), make("span.choice", {}, this._only,
      make("label", { for: "typical", title: "Leaves out cases whose own neighbours contradict their outcome" }, "typical only")));
  }

  /** @param {string} facet */
  _slider(facet) {
    const id = `match-${facet}`;
    const output = make("output", { htmlFor: id });
    const input = /** @type {HTMLInputElement} */ (make("input", {
      type: "range", id, min: "0", max: String(STRENGTHS.length - 1), step: "1",
      on: {
        input: () => { output.textContent = STRENGTHS[Number(input.value)]; },
        change: () => this._weigh(facet, Number(input.value)),
      },
    }));
    this._sliders.set(facet, { input, output });
    return make("p.slider", {}, make("label", { for: id }, facet), input, output);
  }

  /**
   * @param {string} facet
   * @param {number} step
   */
  _weigh(facet, step) {
    const weights = { ...this._address.state.weights };
    if (step) weights[facet] = Math.round((step / (STRENGTHS.length - 1)) * STRONGEST * 1000) / 1000;
    else delete weights[facet];
    this._address.go({ weights }, `${facet} matters: ${STRENGTHS[step]}`);
  }
}

/**
 * All that steers the question, as buttons that take it away.
 * @param {import("/static/state.js").Address} address
 * @param {function(string): string} nameOf Says a row as "woman 3".
 * @param {function(string): string} imageOf Says an image as "R MLO".
 * @returns {HTMLElement[]}
 */
export function chips(address, nameOf, imageOf) {
  const state = address.state;
  const made = [];
  const chip = (label, part) => made.push(button(`${label} ×`, () => address.go(part, `without ${label}`), {
    kind: "chip", name: `Remove: ${label}`,
  }));
  for (const [key, , heading] of FILTERS) {
    if (state[key].length) chip(`${heading.toLowerCase()} ${state[key].join(", ")}`, { [key]: [] });
  }
  if (state.age) chip(`age ${state.age.join(" to ")}`, { age: null });
  if (state.typical) chip("typical only", { typical: false });
  for (const facet of Object.keys(state.weights)) {
    const weights = { ...state.weights };
    delete weights[facet];
    chip(`${facet} should match`, { weights });
  }
  if (state.row) chip("asked with a case of the gallery", { row: "" });
  for (const row of state.up) chip(`more like ${nameOf(row)}`, { up: state.up.filter((one) => one !== row) });
  for (const row of state.down) chip(`less like ${nameOf(row)}`, { down: state.down.filter((one) => one !== row) });
  for (const view of state.further) {
    chip(`with ${imageOf(view.image)}`, { further: state.further.filter((one) => one !== view) });
  }
  return made;
}
