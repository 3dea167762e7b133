/**
 * One bound on what all the pictures of a page hold together: the longest unused goes first.
 */

/** Things of known size, kept until their sum passes a limit. */
export class Memory {
  /** @param {number} limit bytes that may be held. */
  constructor(limit) {
    this.limit = limit;
    this.held = 0;
    this.entries = new Map(); // insertion order = order of use
  }

  /** Keeps `drop` to be called when `key` has to go, or marks a kept one as just used. */
  use(key, bytes, drop) {
    const known = this.entries.get(key);
    if (known) {
      this.entries.delete(key);
      this.entries.set(key, known);
      return;
    }
    this.entries.set(key, { bytes, drop });
    this.held += bytes;
    for (const oldest of this.entries.keys()) {
      if (this.held <= this.limit || oldest === key) break;
      this.forget(oldest);
    }
  }

  /** Lets one go, if it is kept. */
  forget(key) {
    const entry = this.entries.get(key);
    if (!entry) return;
    this.entries.delete(key);
    this.held -= entry.bytes;
    entry.drop();
  }
}

/** Raw tiles of every view: four full-size mammograms of 4,000 × 5,000 pixels. */
export const rawMemory = new Memory(160 * 2 ** 20);

/** Tiles as greys, ready to be drawn: what a 5-megapixel screen needs at the worst zoom, and a margin. */
export const greyMemory = new Memory(144 * 2 ** 20);
