/**
 * How the page asks its server: JSON in and out, each failure as one sentence that says what to do.
 * @module api
 */

import { capital } from "/static/words.js";

/** What went wrong, in the server's words or in the page's. */
export class ApiError extends Error {
  /**
   * @param {{subject: string, cause: string, remedy: string}} what
   * @param {number} [status] The HTTP status; 0 where no answer came.
   * @param {number|null} [retryAfter] Seconds after which to try again; null where the server does not say.
   */
  constructor(what, status = 0, retryAfter = null) {
    const remedy = what.remedy ? `; ${what.remedy}` : "";
    super(`${capital(what.subject)}: ${what.cause}${remedy}.`.replace(/\.\.$/, "."));
    this.name = "ApiError";
    this.status = status;
    this.retryAfter = retryAfter;
  }

  /** Whether the server is only busy, or was asked too often. */
  get busy() {
    return this.status === 503 || this.status === 429;
  }
}

const SILENT = { subject: "server", cause: "it does not answer", remedy: "check that `mammoseek serve` runs, then try again" };

/**
 * Fetch JSON.
 * @param {string} path
 * @param {{signal?: AbortSignal}} [how]
 * @returns {Promise<any>}
 * @throws {ApiError}
 */
export async function get(path, how = {}) {
  return (await answer(path, { signal: how.signal, headers: { Accept: "application/json" } })).json();
}

/**
 * Send JSON and fetch the answer.
 * @param {string} path
 * @param {object} body
 * @param {{signal?: AbortSignal}} [how]
 * @returns {Promise<any>} Null where the answer has no body.
 * @throws {ApiError}
 */
export async function post(path, body, how = {}) {
  const response = await answer(path, {
    method: "POST",
    signal: how.signal,
    headers: { "Content-Type": "application/json", Accept: "application/json", "X-Mammoseek": "1" },
    body: JSON.stringify(body),
  });
  const text = await response.text();
  return text ? JSON.parse(text) : null;
}

/**
 * Fetch bytes, such as pixels or a file.
 * @param {string} path
 * @param {{signal?: AbortSignal}} [how]
 * @returns {Promise<Response>}
 * @throws {ApiError}
 */
export async function getBytes(path, how = {}) {
  return answer(path, { signal: how.signal });
}

/**
 * Fetch a file and let the browser keep it.
 * @param {string} path
 * @param {string} name What the file is called.
 * @throws {ApiError}
 */
export async function download(path, name) {
  const content = await (await getBytes(path)).blob();
  const address = URL.createObjectURL(content);
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/**
 * Whether a failure is only that nobody waits for the answer any more.
 * @param {*} error
 */
export function isAborted(error) {
  return error?.name === "AbortError";
}

/**
 * Any failure as one sentence.
 * @param {*} error
 * @returns {string}
 */
export function sentenceOf(error) {
  if (error instanceof ApiError) return error.message;
  return `The page failed: ${error?.message ?? error}; load it again.`;
}

/**
 * @param {string} path
 * @param {RequestInit} how
 * @returns {Promise<Response>}
 */
async function answer(path, how) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...how });
  } catch (error) {
    if (isAborted(error)) throw error;
    throw new ApiError(SILENT);
  }
  if (response.ok) return response;
  const failure = new ApiError(await said(response), response.status, seconds(response.headers.get("Retry-After")));
  if (response.status === 401) window.dispatchEvent(new CustomEvent("loggedout"));
  throw failure;
}

/** @param {Response} response */
async function said(response) {
  try {
    const { error } = await response.json();
    if (error && typeof error.cause === "string") {
      return { subject: String(error.subject ?? "request"), cause: error.cause, remedy: String(error.remedy ?? "") };
    }
  } catch {
    // No JSON: say the status instead.
  }
  return { subject: "server", cause: `it answered ${response.status} ${response.statusText}`.trim(), remedy: "try again" };
}

/** @param {string|null} text */
function seconds(text) {
  const value = Number(text);
  return text && Number.isFinite(value) && value >= 0 ? value : null;
}
