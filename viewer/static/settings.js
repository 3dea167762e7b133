/**
 * What a reader likes, kept in this browser alone: no patient, no question.
 * @module settings
 */

const PREFIX = "mammoseek.";

/**
 * What was kept; null where nothing was, or where the browser keeps nothing.
 * @param {"letters"|"cards"} name
 * @returns {string|null}
 */
export function setting(name) {
  try {
    return localStorage.getItem(PREFIX + name);
  } catch {
    return null;
  }
}

/**
 * Keep a liking.
 * @param {"letters"|"cards"} name
 * @param {string} value
 */
export function keep(name, value) {
  try {
    localStorage.setItem(PREFIX + name, value);
  } catch {
    // A browser that keeps nothing: it holds until the page is left.
  }
}
