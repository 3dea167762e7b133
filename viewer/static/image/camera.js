/**
 * Where a picture stands on the screen: the only place that turns stored pixels into screen pixels and back.
 *
 * Lengths on the screen are device pixels, `zoom` is device pixels per stored pixel (1 = original pixels), `x` and `y`
 * are the stored pixel in the middle of the view. A flipped camera mirrors what is drawn; coordinates stay those of the
 * stored picture.
 */

/** Furthest zoom: one stored pixel over this many device pixels. */
export const CLOSEST = 32;

/** The transform between a picture and the view it is looked at through. */
export class Camera {
  constructor() {
    this.rows = 1;
    this.columns = 1;
    this.width = 1;
    this.height = 1;
    this.x = 0.5;
    this.y = 0.5;
    this.zoom = 1;
    this.flip = false;
    /** Which side of the view a fitted picture leans on: "left", "right" or "centre". */
    this.align = "centre";
    /** Whether the whole picture is shown; it then stays so when the view changes its size. */
    this.fitted = true;
    /** Furthest zoom of a fitted picture, so that pictures side by side can be fitted at one scale. */
    this.fitLimit = Infinity;
  }

  /** A copy whose changes leave this one alone. */
  copy() {
    return Object.assign(new Camera(), this);
  }

  /** Takes the size of another picture, in stored pixels, and shows all of it. */
  setPicture(rows, columns) {
    this.rows = rows;
    this.columns = columns;
    this.fit();
  }

  /** Takes the size of the view in device pixels. */
  setView(width, height) {
    this.width = Math.max(1, width);
    this.height = Math.max(1, height);
    if (this.fitted) this.fit();
    else this.clamp();
  }

  /** The zoom at which the whole picture just fits. */
  get fitZoom() {
    return Math.min(this.width / this.columns, this.height / this.rows, this.fitLimit);
  }

  /** Shows the whole picture, leaning on the side that `align` names. */
  fit() {
    this.zoom = this.fitZoom;
    this.y = this.rows / 2;
    const spare = (this.width / this.zoom - this.columns) / 2;
    const lean = { left: 1, right: -1, centre: 0 }[this.align] * (this.flip ? -1 : 1);
    this.x = this.columns / 2 + lean * spare;
    this.fitted = true;
  }

  /** Sets the zoom, keeping the stored pixel under the screen place (`sx`, `sy`) where it is. */
  zoomTo(zoom, sx = this.width / 2, sy = this.height / 2) {
    const [x, y] = this.toStored(sx, sy);
    this.zoom = Math.min(CLOSEST, Math.max(this.fitZoom / 2, zoom));
    const [after, below] = this.toStored(sx, sy);
    this.x += x - after;
    this.y += y - below;
    this.fitted = false;
    this.clamp();
  }

  /** Moves the picture by so many device pixels, as a hand would. */
  panBy(dx, dy) {
    this.x -= (this.flip ? -dx : dx) / this.zoom;
    this.y -= dy / this.zoom;
    this.fitted = false;
    this.clamp();
  }

  /** Puts a stored pixel into the middle of the view. */
  centreOn(x, y) {
    this.x = x;
    this.y = y;
    this.fitted = false;
    this.clamp();
  }

  /** Keeps the middle of the view on the picture, so that it can't be lost. */
  clamp() {
    this.x = Math.min(this.columns, Math.max(0, this.x));
    this.y = Math.min(this.rows, Math.max(0, this.y));
  }

  /** Screen place [sx, sy] of a stored place. */
  toScreen(x, y) {
    const away = (x - this.x) * this.zoom;
    return [this.width / 2 + (this.flip ? -away : away), this.height / 2 + (y - this.y) * this.zoom];
  }

  /** Stored place [x, y] of a screen place. */
  toStored(sx, sy) {
    const away = (sx - this.width / 2) / this.zoom;
    return [this.x + (this.flip ? -away : away), this.y + (sy - this.height / 2) / this.zoom];
  }

  /** Screen rectangle {left, top, right, bottom} of a stored box [x0, y0, x1, y1]. */
  boxToScreen([x0, y0, x1, y1]) {
    const [a, top] = this.toScreen(x0, y0);
    const [b, bottom] = this.toScreen(x1, y1);
    return { left: Math.min(a, b), top, right: Math.max(a, b), bottom };
  }

  /** Stored box [x0, y0, x1, y1], whole pixels inside the picture, between two stored places. */
  boxBetween([ax, ay], [bx, by]) {
    const held = (value, limit) => Math.min(limit, Math.max(0, Math.round(value)));
    return [
      held(Math.min(ax, bx), this.columns),
      held(Math.min(ay, by), this.rows),
      held(Math.max(ax, bx), this.columns),
      held(Math.max(ay, by), this.rows),
    ];
  }

  /** The part of the picture that is on the screen, as {x0, y0, x1, y1} in stored pixels. */
  get visible() {
    const halfWidth = this.width / 2 / this.zoom;
    const halfHeight = this.height / 2 / this.zoom;
    return {
      x0: Math.max(0, this.x - halfWidth),
      y0: Math.max(0, this.y - halfHeight),
      x1: Math.min(this.columns, this.x + halfWidth),
      y1: Math.min(this.rows, this.y + halfHeight),
    };
  }
}
