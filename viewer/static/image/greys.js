/**
 * From 16-bit values to the greys of the screen: one table of 65,536 entries per window, then one look-up a pixel.
 */

/** A window: the values from centre - width/2 to centre + width/2 spread over black to white. */
export class Greys {
  constructor() {
    this.centre = 32768;
    this.width = 65536;
    this.inverted = false;
    /** Counts the changes: a picture drawn under another version is stale. */
    this.version = 0;
    this.table = new Uint32Array(65536);
    this.build();
  }

  /** Sets the window; returns whether anything changed. */
  set({ centre = this.centre, width = this.width, inverted = this.inverted }) {
    const held = {
      centre: Math.min(65535, Math.max(0, centre)),
      width: Math.min(131072, Math.max(16, width)),
      inverted: Boolean(inverted),
    };
    if (held.centre === this.centre && held.width === this.width && held.inverted === this.inverted) return false;
    Object.assign(this, held);
    this.build();
    return true;
  }

  build() {
    const low = this.centre - this.width / 2;
    const steep = (this.inverted ? -255 : 255) / this.width;
    const start = this.inverted ? 255 : 0;
    const { table } = this;
    for (let value = 0; value < 65536; value++) {
      const grey = Math.min(255, Math.max(0, Math.floor(start + (value - low) * steep + 0.5)));
      table[value] = 0xff000000 | (grey << 16) | (grey << 8) | grey;
    }
    this.version++;
  }

  /** Writes the greys of `values` (uint16) into `pixels` (uint32, one RGBA a pixel), of the same length. */
  apply(values, pixels) {
    const { table } = this;
    for (let at = 0; at < values.length; at++) pixels[at] = table[values[at]];
  }
}
