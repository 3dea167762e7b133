/** A round magnifier: the picture around a place at twice its original pixels (or twice the zoom, if that is more). */

import { chooseLevel, paint } from "./painter.js";

const RADIUS = 110; // CSS pixels
const TIMES = 2;

/** The magnifier of one ImageView; `place` is where it is held, null while it is put away. */
export class Loupe {
  constructor(view) {
    this.view = view;
    this.place = null;
  }

  /** Holds it over a screen place, or puts it away (null). */
  hold(place) {
    this.place = place;
    this.view.requestDraw();
    if (place) this.view.wantSoon();
  }

  /** Moves it by screen steps, from the middle of the view if it was away. */
  step([right, down], by) {
    const { camera } = this.view;
    const [sx, sy] = this.place ?? [camera.width / 2, camera.height / 2];
    const held = (value, limit) => Math.min(limit, Math.max(0, value));
    this.hold([held(sx + right * by, camera.width), held(sy + down * by, camera.height)]);
  }

  get radius() {
    return Math.round(RADIUS * this.view.ratio);
  }

  /** What the loupe sees. */
  get camera() {
    const [x, y] = this.view.camera.toStored(...this.place);
    const camera = this.view.camera.copy();
    camera.width = this.radius * 2;
    camera.height = this.radius * 2;
    camera.zoom = Math.max(TIMES, this.view.camera.zoom * TIMES);
    camera.x = x;
    camera.y = y;
    return camera;
  }

  /** Tiles that it needs. */
  wanted() {
    if (!this.place || !this.view.source) return [];
    const { camera } = this;
    return this.view.source.covering(chooseLevel(this.view.source, camera), camera.visible);
  }

  draw(context) {
    if (!this.place) return;
    const { camera, radius, view } = this;
    const [sx, sy] = this.place.map(Math.round);
    context.save();
    context.translate(sx - radius, sy - radius);
    context.beginPath();
    context.arc(radius, radius, radius, 0, 2 * Math.PI);
    context.save();
    context.clip();
    const how = { index: chooseLevel(view.source, camera), milliseconds: 6 };
    const result = paint(context, camera, view.source, view.greys, how);
    context.restore();
    context.strokeStyle = "#000";
    context.lineWidth = 5 * view.ratio;
    context.stroke();
    context.strokeStyle = view.colours.ink;
    context.lineWidth = 2 * view.ratio;
    context.stroke();
    context.restore();
    if (result.stale) view.requestDraw();
  }
}
