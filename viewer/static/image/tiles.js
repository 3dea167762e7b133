/**
 * The tiles of one picture: fetched when wanted, a few at a time, dropped when no longer wanted, kept within a bound.
 */

import { greyMemory, rawMemory } from "./memory.js";

const AT_ONCE = 6; // requests in flight: what browsers allow one host over HTTP/1.1
const FINE_ENOUGH = 1.15; // device pixels per tile pixel: so little enlargement hides nothing and spares 3 of 4 tiles
const TRIES = 4;
const FIRST_WAIT = 400; // milliseconds before the second try, doubled for each further one

/** One tile: raw values once they came, and a canvas of their greys once they were drawn. */
class Tile {
  /**
   * @param {object} place level (the server's number of it), index (in the list of levels), row, column, scale (stored
   * pixels per pixel) and reach (stored pixels that a whole tile spans).
   */
  constructor({ level, index, row, column, scale, reach }) {
    Object.assign(this, { index, scale, reach });
    this.x0 = column * reach;
    this.y0 = row * reach;
    this.key = `${level}/${row}/${column}`;
    this.values = null;
    this.rows = 0;
    this.columns = 0;
    this.canvas = null;
    this.version = -1;
    this.tries = 0;
    this.notBefore = 0;
    this.failed = false;
    this.pinned = false; // whether its values stay whatever else is looked at
  }

  /** Whether the greys here are those of the window of `greys`. */
  isFresh(greys) {
    return this.canvas !== null && this.version === greys.version;
  }

  /** Turns the values into greys. */
  refresh(greys) {
    if (!this.canvas) {
      this.canvas = document.createElement("canvas");
      this.canvas.width = this.columns;
      this.canvas.height = this.rows;
      this.context = this.canvas.getContext("2d", { alpha: false });
    }
    const image = scratch(this.context, this.columns, this.rows);
    greys.apply(this.values, new Uint32Array(image.data.buffer));
    this.context.putImageData(image, 0, 0);
    this.version = greys.version;
    this.touch();
  }

  /** Marks the tile as just used. */
  touch() {
    if (!this.pinned) {
      rawMemory.use(this, this.values.byteLength, () => {
        this.values = null;
        greyMemory.forget(this);
      });
    }
    if (this.canvas) {
      greyMemory.use(this, this.rows * this.columns * 4, () => {
        this.canvas.width = 0; // frees the pixels at once rather than at the next collection
        this.canvas = null;
        this.context = null;
      });
    }
  }

  /** Takes the values, uint16 row-major. */
  fill(values, rows, columns) {
    this.values = values;
    this.rows = rows;
    this.columns = columns;
    this.version = -1;
    this.touch();
  }

  /** Lets go of all that the tile holds. */
  drop() {
    greyMemory.forget(this);
    rawMemory.forget(this);
  }
}

let shared = null;

/** One ImageData for every tile of the usual size, since `putImageData` copies it. */
function scratch(context, columns, rows) {
  if (!shared || shared.width !== columns || shared.height !== rows) shared = context.createImageData(columns, rows);
  return shared;
}

/**
 * A pyramid of tiles behind the addresses of the server.
 *
 * `info` is what /images/{id} answers; `onTile()` is called when a tile came, `onError(message)` when one can't be had.
 */
export class TilePyramid {
  constructor(info, { base = "", onTile, onError }) {
    this.side = info.tile;
    this.address = `${base}/images/${encodeURIComponent(info.image)}/tiles`;
    this.levels = [...info.levels].sort((a, b) => a.level - b.level);
    this.onTile = onTile;
    this.onError = onError;
    this.tiles = new Map();
    this.flying = new Map(); // tile -> AbortController
    this.queue = [];
    this.closed = false;
    this.timer = 0;
    /** Requests sent since the picture was opened, for tests and benchmarks. */
    this.sent = 0;
  }

  /** The coarsest level: its few tiles are always there to be drawn under what is missing. */
  get coarsest() {
    return this.levels.length - 1;
  }

  /** Index of the coarsest level whose pixels are not larger on the screen than `enough` device pixels. */
  levelFor(zoom, enough = FINE_ENOUGH) {
    let index = 0;
    while (index < this.coarsest && this.levels[index + 1].scale * zoom <= enough) index++;
    return index;
  }

  /** The tile at a place of a level, made empty if it is new. */
  at(index, row, column) {
    const { level, scale } = this.levels[index];
    const key = `${level}/${row}/${column}`;
    let tile = this.tiles.get(key);
    if (!tile) {
      tile = new Tile({ level, index, row, column, scale, reach: this.side * scale });
      tile.pinned = index === this.coarsest; // what stands in for all others
      this.tiles.set(key, tile);
    }
    return tile;
  }

  /** Tiles of a level that touch the stored rectangle {x0, y0, x1, y1}, the nearest to its middle first. */
  covering(index, { x0, y0, x1, y1 }) {
    const { rows, columns, scale } = this.levels[index];
    const reach = this.side * scale;
    const [down, across] = [Math.ceil(rows / this.side), Math.ceil(columns / this.side)];
    const found = [];
    for (let row = Math.max(0, Math.floor(y0 / reach)); row < Math.min(down, Math.ceil(y1 / reach)); row++) {
      const end = Math.min(across, Math.ceil(x1 / reach));
      for (let column = Math.max(0, Math.floor(x0 / reach)); column < end; column++) {
        found.push(this.at(index, row, column));
      }
    }
    const [x, y] = [(x0 + x1) / 2, (y0 + y1) / 2];
    const away = (tile) => Math.hypot(tile.x0 + reach / 2 - x, tile.y0 + reach / 2 - y);
    return found.sort((a, b) => away(a) - away(b));
  }

  /** The tile one level coarser that shows the same place; null above the coarsest. */
  parent(tile) {
    const index = tile.index + 1;
    if (index > this.coarsest) return null;
    const reach = this.side * this.levels[index].scale;
    return this.at(index, Math.floor(tile.y0 / reach), Math.floor(tile.x0 / reach));
  }

  /**
   * Says which tiles are wanted now, in order of urgency. Others that are on their way are given up, others that
   * wait are forgotten.
   */
  want(tiles) {
    if (this.closed) return;
    const wanted = new Set(tiles);
    for (const [tile, control] of this.flying) {
      if (!wanted.has(tile) && tile.index !== this.coarsest) {
        this.flying.delete(tile);
        control.abort();
      }
    }
    this.queue = tiles.filter((tile) => !tile.values && !tile.failed && !this.flying.has(tile));
    this.send();
  }

  send() {
    clearTimeout(this.timer);
    const now = performance.now();
    let soonest = Infinity;
    const later = [];
    for (const tile of this.queue) {
      if (tile.values || tile.failed || this.flying.has(tile)) continue;
      if (tile.notBefore > now) soonest = Math.min(soonest, tile.notBefore);
      if (tile.notBefore > now || this.flying.size >= AT_ONCE) later.push(tile);
      else this.fetch(tile);
    }
    this.queue = later;
    if (soonest < Infinity) this.timer = setTimeout(() => this.send(), soonest - now);
  }

  async fetch(tile) {
    const control = new AbortController();
    this.flying.set(tile, control);
    this.sent++;
    try {
      const answer = await fetch(`${this.address}/${tile.key}`, { signal: control.signal, credentials: "same-origin" });
      if (!answer.ok) throw new Refusal(answer);
      const values = new Uint16Array(await answer.arrayBuffer());
      const rows = Number(answer.headers.get("X-Rows"));
      const columns = Number(answer.headers.get("X-Columns"));
      if (this.closed || control.signal.aborted) return;
      if (!rows || rows * columns !== values.length) throw new Error(`tile ${tile.key} has an unexpected size`);
      this.flying.delete(tile);
      tile.fill(values, rows, columns);
      tile.tries = 0;
      this.onTile();
    } catch (error) {
      if (control.signal.aborted || this.closed) return;
      this.flying.delete(tile);
      this.retry(tile, error);
    }
    this.send();
  }

  retry(tile, error) {
    tile.tries++;
    const hopeless = error instanceof Refusal && error.isFinal;
    if (hopeless || tile.tries >= TRIES) {
      tile.failed = true;
      this.onError(error.message);
      return;
    }
    const asked = error instanceof Refusal ? error.wait : 0;
    tile.notBefore = performance.now() + Math.max(asked, FIRST_WAIT * 2 ** (tile.tries - 1));
    this.queue.push(tile);
  }

  /** Tries once more what could not be had. */
  tryAgain() {
    for (const tile of this.tiles.values()) Object.assign(tile, { failed: false, tries: 0, notBefore: 0 });
  }

  /** Gives up what is on its way and lets go of every tile. */
  close() {
    this.closed = true;
    clearTimeout(this.timer);
    for (const control of this.flying.values()) control.abort();
    for (const tile of this.tiles.values()) tile.drop();
    this.flying.clear();
    this.tiles.clear();
    this.queue = [];
  }
}

/** The server said no: finally (not found, not allowed) or for now (busy, too fast, broken). */
class Refusal extends Error {
  constructor(answer) {
    super(`the server answered ${answer.status} for a part of the picture`);
    this.isFinal = answer.status < 500 && answer.status !== 429 && answer.status !== 408;
    this.wait = 1000 * (Number(answer.headers.get("Retry-After")) || 0);
  }
}

/** A picture that is here already, whole, as its own only tile (a crop). Stands in for a TilePyramid. */
export class WholePicture {
  /** @param {Uint16Array} values row-major, rows × columns. */
  constructor(values, rows, columns) {
    this.coarsest = 0;
    this.levels = [{ level: 0, rows, columns, scale: 1 }];
    this.tile = new Tile({ level: 0, index: 0, row: 0, column: 0, scale: 1, reach: Math.max(rows, columns) });
    Object.assign(this.tile, { values, rows, columns, pinned: true });
  }

  levelFor() {
    return 0;
  }

  covering() {
    return [this.tile];
  }

  parent() {
    return null;
  }

  want() {}

  close() {
    this.tile.drop();
  }
}
