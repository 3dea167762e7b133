/**
 * The question that a state asks, and how it is put to the server.
 * @module question
 */

import { ApiError, get, isAborted, post } from "/static/api.js";

/** @typedef {import("/static/state.js").State} State */

const FIRST_WORD = 150; // ms without an answer after which the page says what it waits for
const LOOK = 500; // ms between two looks at the queue
const TRIES = 6; // times that a busy server is asked in all
const LONGEST_PAUSE = 8; // s

/** What becomes of the state when another finding is asked about: filters and sliders stay, the rest was about the old one. */
export const ANOTHER_FINDING = Object.freeze({
  row: "", detection: "", ask: true, up: [], down: [], further: [], compare: "", k: 10, show: "",
});

/**
 * Whether a gallery compares whole breasts: a question then has an image, and no place on it.
 * @param {any} session
 */
export function comparesBreasts(session) {
  return session.gallery?.granularity === "breast";
}

/**
 * The body of `/query` and of `/opinion`; null where the state asks nothing.
 * @param {State} state
 * @param {boolean} breasts Whether whole breasts are compared.
 * @returns {object|null}
 */
export function questionOf(state, breasts) {
  if (!state.ask || !(state.row || (state.image && (breasts || state.box)))) return null;
  const place = ({ image, box }) => ({ image, box: breasts ? null : box });
  return {
    ...(state.row ? { row: state.row } : place(state)),
    further: state.row ? [] : state.further.map(place),
    k: state.k,
    filters: {
      density: state.density, view: state.view, lesion_type: state.lesion, dataset: state.dataset, age: state.age,
    },
    typical: state.typical,
    facets: Object.entries(state.weights).map(([column, weight]) => ({ column, weight, value: null })),
    positive: state.up,
    negative: state.down,
    two_rows: state.two,
  };
}

/**
 * What is asked about is called.
 * @param {State} state
 * @param {boolean} breasts
 */
export function questionName(state, breasts) {
  return state.row ? "The case asked with" : breasts ? "Your image" : "Your finding";
}

/**
 * Where the picture of a question comes from.
 * @param {State} state
 * @param {number|null} mm Millimetres that it shows; null where the scale is unknown.
 * @param {number} pixels
 * @param {boolean} breasts
 */
export function questionPicture(state, mm, pixels, breasts) {
  if (state.row || !state.image) return rowPicture(state.row, mm, pixels);
  return imagePicture(state.image, breasts ? null : state.box, mm, pixels);
}

/**
 * The address of the picture of a place on an image.
 * @param {string} image
 * @param {import("/static/state.js").Box|null} box The place; null for the whole image.
 * @param {number|null} mm
 * @param {number} pixels
 */
function imagePicture(image, box, mm, pixels) {
  const corners = box ? Object.fromEntries(["x0", "y0", "x1", "y1"].map((name, at) => [name, String(box[at])])) : {};
  return `/images/${encodeURIComponent(image)}/crop?${scaled(corners, mm, pixels)}`;
}

/**
 * The address of the picture of a row of the gallery.
 * @param {string} row
 * @param {number|null} mm
 * @param {number} pixels
 */
export function rowPicture(row, mm, pixels) {
  return `/rows/${encodeURIComponent(row)}/crop?${scaled({}, mm, pixels)}`;
}

/**
 * @param {Object<string, string>} query
 * @param {number|null} mm
 * @param {number} pixels
 */
function scaled(query, mm, pixels) {
  return new URLSearchParams({ ...query, ...(mm ? { mm: String(mm) } : {}), pixels: String(pixels) });
}

/** Puts one question at a time; a newer one takes the place of an older. */
export class Asker {
  /**
   * @param {function(string): void} say Told in words what is waited for.
   * @param {string} [word] What is waited for, where that is not the embedder and its queue.
   */
  constructor(say, word = "") {
    this._say = say;
    this._word = word;
  }

  /**
   * Ask.
   * @param {string} path `/query` or `/opinion`.
   * @param {object} body
   * @returns {Promise<any>}
   * @throws {ApiError} Or an AbortError, where a newer question took its place.
   */
  async ask(path, body) {
    this.stop();
    const asking = (this._asking = new AbortController());
    const stop = this._watch(asking.signal);
    try {
      for (let left = TRIES - 1; ; left -= 1) {
        try {
          return await post(path, body, { signal: asking.signal });
        } catch (error) {
          if (!(error instanceof ApiError) || !error.busy || left === 0) throw error;
          await this._pause(error, asking.signal);
        }
      }
    } finally {
      stop();
    }
  }

  /** Give up what is being asked. */
  stop() {
    this._asking?.abort();
  }

  /**
   * Look at the queue now and then and say what is waited for.
   * @param {AbortSignal} signal
   * @returns {function(): void} Ends it.
   */
  _watch(signal) {
    let ended = false;
    const look = async () => {
      if (ended) return;
      let text = this._word || "reading the film";
      try {
        const { waiting } = this._word ? { waiting: 0 } : await get("/queue", { signal });
        if (waiting > 1) text = `waiting behind ${waiting - 1}`;
      } catch (error) {
        if (isAborted(error)) return;
      }
      if (ended) return;
      if (!this._pausing) this._say(text);
      timer = setTimeout(look, LOOK);
    };
    let timer = setTimeout(look, FIRST_WORD);
    return () => {
      ended = true;
      clearTimeout(timer);
    };
  }

  /**
   * @param {ApiError} error
   * @param {AbortSignal} signal
   */
  async _pause(error, signal) {
    const seconds = Math.min(error.retryAfter ?? 1, LONGEST_PAUSE);
    this._say(`the server is busy; asking again in ${Math.max(1, Math.round(seconds))} s`);
    this._pausing = true;
    try {
      await new Promise((resolve, reject) => {
        const timer = setTimeout(resolve, seconds * 1000);
        signal.addEventListener("abort", () => {
          clearTimeout(timer);
          reject(signal.reason);
        }, { once: true });
      });
    } finally {
      this._pausing = false;
    }
  }
}
