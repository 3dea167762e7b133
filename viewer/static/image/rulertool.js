/**
 * Rulers on a picture: lines between two stored places, in mm where the spacing is known, else in pixels, said so.
 */

import { arrow } from "./dom.js";

const GRIP = { mouse: 9, pen: 12, touch: 24 }; // CSS pixels around an end that still take it
const STEP = 6; // CSS pixels that an arrow key moves an end by
const MOST = 8; // rulers on one picture; a further one takes the place of the oldest
const SHORTEST = 3; // CSS pixels below which a drag was a click

/** Length of a line [[x, y], [x, y]] in stored pixels: {length, unit: "mm" or "px", text}. */
export function measured([[ax, ay], [bx, by]], spacing) {
  const pixels = Math.hypot(bx - ax, by - ay);
  if (!spacing) return { length: pixels, unit: "px", text: `${Math.round(pixels)} px (mm unknown)` };
  const length = pixels * spacing;
  return { length, unit: "mm", text: `${length.toFixed(1)} mm` };
}

/** Keeps the rulers of one ImageView. */
export class RulerTool {
  constructor(view) {
    this.view = view;
    this.lines = [];
    this.laying = false; // a ruler is being laid by keyboard
  }

  clear() {
    this.lines = [];
    this.laying = false;
    this.view.requestDraw();
  }

  press(place, event) {
    const { view } = this;
    const before = this.lines.map((line) => [...line]);
    const stored = view.camera.toStored(...place);
    const held = this.endAt(place, (GRIP[event.pointerType] ?? GRIP.mouse) * view.ratio);
    const [line, end] = held ?? [this.add([stored, stored]), 1];
    return {
      move: (now) => {
        line[end] = this.inside(view.camera.toStored(...now));
        view.requestDraw();
      },
      end: () => {
        if (measured(line, null).length * view.camera.zoom < SHORTEST * view.ratio) {
          this.lines = before;
          view.requestDraw();
        } else view.measureDone(measured(line, view.spacing));
      },
      cancel: () => {
        this.lines = before;
        view.requestDraw();
      },
    };
  }

  add(line) {
    const fresh = line.map((place) => this.inside(place));
    this.lines = [...this.lines, fresh].slice(-MOST);
    return fresh;
  }

  inside([x, y]) {
    const { rows, columns } = this.view.camera;
    return [Math.min(columns, Math.max(0, x)), Math.min(rows, Math.max(0, y))];
  }

  endAt([sx, sy], reach) {
    for (const line of this.lines) {
      for (const end of [0, 1]) {
        const [x, y] = this.view.camera.toScreen(...line[end]);
        if (Math.hypot(x - sx, y - sy) <= reach) return [line, end];
      }
    }
    return null;
  }

  /** Enter begins and finishes a ruler, arrows move its end, with shift its start, with ctrl finely; Delete removes. */
  key(event) {
    const { view } = this;
    const step = arrow(event.key);
    const last = this.lines.at(-1);
    if (event.key === "Enter") {
      if (!this.laying) {
        const reach = Math.min(view.camera.width, view.camera.height) / 8 / view.camera.zoom;
        this.add([[view.camera.x - reach, view.camera.y], [view.camera.x + reach, view.camera.y]]);
      }
      this.laying = !this.laying;
      view.measureDone(measured(this.lines.at(-1), view.spacing));
    } else if ((event.key === "Delete" || event.key === "Backspace") && last) {
      this.lines = this.lines.slice(0, -1);
      this.laying = false;
    } else if (step && this.laying) {
      const end = event.shiftKey ? 0 : 1;
      const by = event.ctrlKey ? 1 : Math.max(1, (STEP * view.ratio) / view.camera.zoom);
      const [x, y] = last[end];
      last[end] = this.inside([x + (view.camera.flip ? -step[0] : step[0]) * by, y + step[1] * by]);
      view.say(measured(last, view.spacing).text);
    } else return false;
    view.requestDraw();
    return true;
  }

  draw(context) {
    const { camera, ratio, spacing, colours } = this.view;
    context.save();
    context.lineCap = "round";
    for (const line of this.lines) {
      const [[ax, ay], [bx, by]] = line.map((place) => camera.toScreen(...place));
      const away = Math.hypot(bx - ax, by - ay) || 1;
      const [nx, ny] = [((by - ay) / away) * 7 * ratio, ((ax - bx) / away) * 7 * ratio];
      context.beginPath();
      context.moveTo(ax, ay);
      context.lineTo(bx, by);
      for (const [x, y] of [[ax, ay], [bx, by]]) {
        context.moveTo(x - nx, y - ny);
        context.lineTo(x + nx, y + ny);
      }
      context.strokeStyle = "rgb(0 0 0 / 70%)";
      context.lineWidth = 4.5 * ratio;
      context.stroke();
      context.strokeStyle = colours.ink;
      context.lineWidth = 2 * ratio;
      context.stroke();
      const leftwards = bx < ax;
      const beside = [bx + (leftwards ? -10 : 10) * ratio, by];
      writeLength(context, measured(line, spacing).text, beside, leftwards, this.view);
    }
    context.restore();
  }
}

/** Writes on a dark plate beside a place, held inside the view. */
function writeLength(context, text, [x, y], leftwards, { camera, colours, ratio }) {
  context.font = `600 ${14 * ratio}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  context.textAlign = "left";
  const [width, height] = [context.measureText(text).width + 10 * ratio, 22 * ratio];
  const left = Math.max(2, Math.min(camera.width - width - 2, leftwards ? x - width : x));
  const top = Math.max(2, Math.min(camera.height - height - 2, y - height / 2));
  context.fillStyle = "rgb(0 0 0 / 80%)";
  context.fillRect(left, top, width, height);
  context.fillStyle = colours.ink;
  context.fillText(text, left + 5 * ratio, top + height / 2);
}
