/**
 * Small pictures of whole images: the coarsest level of their tiles, drawn once.
 * @module thumbs
 */

import { get, getBytes, isAborted } from "/static/api.js";
import { make } from "/static/elements.js";
import { viewSpoken } from "/static/words.js";

const AT_ONCE = 2;
const WANTED = 320; // pixels of the longer side; the nearest level above it is drawn

/** @type {{run: function(): Promise<void>, signal: AbortSignal}[]} */
const queue = [];
let running = 0;

/**
 * A small picture of an image, black until its pixels are there.
 * @param {{image: string, view?: string|null, laterality?: string|null}} image
 * @param {AbortSignal} signal Ends the loading.
 * @param {string} [name] What a screen reader says; the view, if left out. Empty for a picture beside its name.
 * @returns {HTMLCanvasElement}
 */
export function thumb(image, signal, name = viewSpoken(image)) {
  const canvas = /** @type {HTMLCanvasElement} */ (make("canvas.thumb", name
    ? { role: "img", "aria-label": name, width: 1, height: 1 }
    : { "aria-hidden": "true", width: 1, height: 1 }));
  queue.push({ run: () => load(image.image, canvas, signal), signal });
  advance();
  return canvas;
}

function advance() {
  while (running < AT_ONCE && queue.length) {
    const { run, signal } = /** @type {any} */ (queue.shift());
    if (signal.aborted) continue;
    running += 1;
    run().finally(() => {
      running -= 1;
      advance();
    });
  }
}

/**
 * @param {string} id
 * @param {HTMLCanvasElement} canvas
 * @param {AbortSignal} signal
 */
async function load(id, canvas, signal) {
  try {
    const info = await get(`/images/${encodeURIComponent(id)}`, { signal });
    const fitting = info.levels.filter((level) => level.rows <= info.tile && level.columns <= info.tile);
    const level = fitting.findLast((one) => Math.max(one.rows, one.columns) >= WANTED) ?? fitting[0] ?? info.levels.at(-1);
    const response = await getBytes(`/images/${encodeURIComponent(id)}/tiles/${level.level}/0/0`, { signal });
    const rows = Number(response.headers.get("X-Rows"));
    const columns = Number(response.headers.get("X-Columns"));
    paint(canvas, new Uint16Array(await response.arrayBuffer()), rows, columns, info.windows[0]);
  } catch (error) {
    if (!isAborted(error)) canvas.classList.add("missing");
  }
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {Uint16Array} values
 * @param {number} rows
 * @param {number} columns
 * @param {{centre: number, width: number}|undefined} window
 */
function paint(canvas, values, rows, columns, window) {
  const { centre, width } = window ?? { centre: 32768, width: 65536 };
  const low = centre - width / 2;
  canvas.width = columns;
  canvas.height = rows;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const picture = context.createImageData(columns, rows);
  for (let at = 0; at < values.length; at += 1) {
    const grey = ((values[at] - low) * 255) / width; // clamped by the array
    picture.data[4 * at] = picture.data[4 * at + 1] = picture.data[4 * at + 2] = grey;
    picture.data[4 * at + 3] = 255;
  }
  context.putImageData(picture, 0, 0);
}
