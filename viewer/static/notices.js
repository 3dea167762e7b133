/**
 * What a panel says while it has nothing to show: loading, empty, failed, busy.
 * @module notices
 */

import { button, make } from "/static/elements.js";
import { sentenceOf } from "/static/api.js";
import { capital } from "/static/words.js";

/**
 * A panel that waits.
 * @param {string} text What for, as "reading the film".
 * @returns {HTMLElement}
 */
export function waiting(text) {
  return make("p.notice.waiting", { role: "status" }, make("span.turning", { "aria-hidden": "true" }), `${capital(text)} …`);
}

/**
 * A panel that has nothing, and why.
 * @param {string} text
 * @param {...import("/static/elements.js").Child} more
 * @returns {HTMLElement}
 */
export function empty(text, ...more) {
  return make("div.notice.empty", {}, make("p", {}, text), more);
}

/**
 * A panel that failed, with what to do.
 * @param {*} error
 * @param {function(): void} [retry] Tries again.
 * @returns {HTMLElement}
 */
export function failed(error, retry) {
  return make("div.notice.failed", { role: "alert" },
    make("p", {}, sentenceOf(error)),
    retry ? button("Try again", retry) : null);
}
