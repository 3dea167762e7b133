/**
 * The box that the question is about: drawn by dragging, adjusted by eight handles, moved by its inside; the same by
 * arrow keys. Coordinates are stored pixels, whole, inside the picture.
 */

import { arrow } from "./dom.js";

const HANDLE = 9; // CSS pixels: side of a drawn handle
const ROOM = 4 * HANDLE; // CSS pixels: a shorter side has none in its middle
const REACH = { mouse: 9, pen: 12, touch: 24 }; // CSS pixels around a handle that still take it
const LEAST = 8; // stored pixels: the smallest box
const CLICK = 4; // CSS pixels that a press may wander and still be a click
const STEP = 6; // CSS pixels that an arrow key moves an edge by
const QUIET = 500; // milliseconds after the last key until the box counts as drawn

/** Handles of a screen rectangle: [x, y, which edges they move]; between corners only where there is room for them. */
function handles({ left, top, right, bottom }, ratio) {
  const [middle, centre] = [(left + right) / 2, (top + bottom) / 2];
  const corners = [
    [left, top, "left top"], [right, top, "right top"], [left, bottom, "left bottom"], [right, bottom, "right bottom"],
  ];
  const wide = right - left >= ROOM * ratio ? [[middle, top, "top"], [middle, bottom, "bottom"]] : [];
  const high = bottom - top >= ROOM * ratio ? [[left, centre, "left"], [right, centre, "right"]] : [];
  return [...corners, ...wide, ...high];
}

/** Keeps the box of one ImageView and changes it by gestures and keys. */
export class BoxTool {
  /** @param {object} view the ImageView: camera, ratio, requestDraw, and boxDone(box) and clicked(place) to tell. */
  constructor(view) {
    this.view = view;
    this.box = null;
    this.timer = 0;
  }

  set(box) {
    clearTimeout(this.timer);
    this.box = box ? [...box] : null;
    this.view.requestDraw();
  }

  /** A drag that begins on a handle adjusts, inside the box moves, elsewhere draws anew; a click picks a mark. */
  press(place, event) {
    const before = this.box;
    const handle = this.handleAt(place, REACH[event.pointerType] ?? REACH.mouse);
    const change = handle ? this.adjusting(handle) : this.contains(place) ? this.moving(place) : this.drawing(place);
    let wandered = false;
    const { view } = this;
    return {
      move: (now) => {
        wandered ||= Math.hypot(now[0] - place[0], now[1] - place[1]) > CLICK * view.ratio;
        if (wandered) this.set(change(now));
      },
      end: () => {
        if (!wandered) view.clicked(place);
        else if (tooSmall(this.box)) this.set(before);
        else view.boxDone(this.box);
      },
      cancel: () => this.set(before),
    };
  }

  adjusting(edges) {
    const start = this.view.camera.boxToScreen(this.box);
    return ([sx, sy]) => {
      const { left, top, right, bottom } = start;
      return this.between(
        [edges.includes("left") ? sx : left, edges.includes("top") ? sy : top],
        [edges.includes("right") ? sx : right, edges.includes("bottom") ? sy : bottom],
      );
    };
  }

  moving([sx, sy]) {
    const { camera } = this.view;
    const [x, y] = camera.toStored(sx, sy);
    const start = this.box;
    return (now) => {
      const [nx, ny] = camera.toStored(...now);
      return this.shifted(start, Math.round(nx - x), Math.round(ny - y));
    };
  }

  drawing(start) {
    const corner = this.view.camera.toStored(...start);
    return (now) => this.view.camera.boxBetween(corner, this.view.camera.toStored(...now));
  }

  between(a, b) {
    const { camera } = this.view;
    return camera.boxBetween(camera.toStored(...a), camera.toStored(...b));
  }

  /** The box moved by stored pixels, held inside the picture. */
  shifted([x0, y0, x1, y1], dx, dy) {
    const { columns, rows } = this.view.camera;
    const right = Math.min(columns - x1, Math.max(-x0, dx));
    const down = Math.min(rows - y1, Math.max(-y0, dy));
    return [x0 + right, y0 + down, x1 + right, y1 + down];
  }

  handleAt([sx, sy], reach) {
    if (!this.box) return null;
    const close = ([x, y]) => Math.max(Math.abs(x - sx), Math.abs(y - sy)) <= reach * this.view.ratio;
    return handles(this.view.camera.boxToScreen(this.box), this.view.ratio).find(close)?.[2] ?? null;
  }

  contains([sx, sy]) {
    if (!this.box) return false;
    const { left, top, right, bottom } = this.view.camera.boxToScreen(this.box);
    return sx > left && sx < right && sy > top && sy < bottom;
  }

  /** Which pointer to show over a place. */
  cursorAt(place) {
    const edges = this.handleAt(place, REACH.mouse);
    if (!edges) return this.contains(place) ? "move" : "";
    if (!edges.includes(" ")) return edges === "top" || edges === "bottom" ? "ns-resize" : "ew-resize";
    return edges === "left top" || edges === "right bottom" ? "nwse-resize" : "nesw-resize";
  }

  /** Arrows move, with shift resize (right and down grow), with ctrl by single pixels; Enter draws or finishes. */
  key(event) {
    const step = arrow(event.key);
    if (event.key === "Enter") {
      if (this.box) this.finish();
      else this.place();
      return true;
    }
    if ((event.key === "Delete" || event.key === "Backspace") && this.box) {
      this.set(null);
      this.view.boxDone(null);
      return true;
    }
    if (!step || !this.box) return false;
    const { camera, ratio } = this.view;
    const by = event.ctrlKey ? 1 : Math.max(1, Math.round((STEP * ratio) / camera.zoom));
    this.set(event.shiftKey ? this.resized(step, by) : this.stepped(step, by));
    this.view.keepInSight(this.box);
    this.timer = setTimeout(() => this.finish(), QUIET);
    return true;
  }

  stepped([right, down], by) {
    return this.shifted(this.box, (this.view.camera.flip ? -right : right) * by, down * by);
  }

  resized([right, down], by) {
    let [x0, y0, x1, y1] = this.box;
    const { flip, columns, rows } = this.view.camera;
    if (flip) x0 = Math.max(0, Math.min(x1 - LEAST, x0 - right * by));
    else x1 = Math.min(columns, Math.max(x0 + LEAST, x1 + right * by));
    y1 = Math.min(rows, Math.max(y0 + LEAST, y1 + down * by));
    return [x0, y0, x1, y1];
  }

  /** A first box by keyboard: in the middle of the view, a fifth of its shorter side. */
  place() {
    const { camera } = this.view;
    const half = Math.max(LEAST, Math.min(camera.width, camera.height) / 5 / camera.zoom) / 2;
    this.set(camera.boxBetween([camera.x - half, camera.y - half], [camera.x + half, camera.y + half]));
    this.timer = setTimeout(() => this.finish(), QUIET);
  }

  finish() {
    clearTimeout(this.timer);
    if (this.box) this.view.boxDone(this.box);
  }

  /** Draws the handles, while the tool is in the hand. */
  drawHandles(context) {
    if (!this.box) return;
    const { camera, ratio, colours } = this.view;
    const side = HANDLE * ratio;
    for (const [x, y] of handles(camera.boxToScreen(this.box), ratio)) {
      context.fillStyle = colours.focus;
      context.strokeStyle = "#000";
      context.lineWidth = 1.5 * ratio;
      context.beginPath();
      context.rect(x - side / 2, y - side / 2, side, side);
      context.fill();
      context.stroke();
    }
  }
}

function tooSmall(box) {
  return !box || box[2] - box[0] < LEAST || box[3] - box[1] < LEAST;
}
