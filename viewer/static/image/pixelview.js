/**
 * A picture that can be looked at: camera, window, drawing by frames, links to other pictures. ImageView and CropView
 * are made on it.
 */

import { Camera } from "./camera.js";
import { colours, make } from "./dom.js";
import { Gestures } from "./gestures.js";
import { Greys } from "./greys.js";
import { link, spread, unlinkAll } from "./links.js";
import { Pace } from "./pace.js";
import { chooseLevel, paint } from "./painter.js";
import { ScaleBar } from "./scalebar.js";

const WANT_EVERY = 80; // milliseconds between two looks at which tiles are wanted, while the picture moves
const KEPT_TIMES = 240;

/** Base class; `element` becomes the picture's frame. */
export class PixelView {
  constructor(element, callbacks = {}) {
    this.element = element;
    this.callbacks = callbacks;
    this.camera = new Camera();
    this.greys = new Greys();
    this.source = null;
    this.spacing = null;
    this.links = new Set();
    /** Counters for benchmarks: frames drawn, milliseconds each took, milliseconds between one and the next. */
    this.frames = { drawn: 0, milliseconds: [], intervals: [] };
    this.frame = 0;
    this.wantTimer = 0;
    this.pace = new Pace(() => this.rest());
    this.painted = null; // what the last frame showed, while only tiles change
    this.lastFrame = 0;
    this.waiting = [];
    this.build();
  }

  build() {
    this.element.classList.add("picture");
    this.canvas = make("canvas", "picture-pixels");
    this.canvas.setAttribute("aria-hidden", "true");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.bar = new ScaleBar();
    this.foot = make("div", "picture-foot");
    this.foot.append(this.bar.element);
    this.element.replaceChildren(this.canvas, this.foot);
    this.colours = colours(this.element);
    this.gestures = new Gestures(this.canvas, this);
    this.stop = new AbortController();
    this.element.addEventListener("keydown", (event) => this.key(event), { signal: this.stop.signal });
    this.resizes = new ResizeObserver(([entry]) => this.measure(entry.devicePixelContentBoxSize?.[0]));
    try {
      this.resizes.observe(this.canvas, { box: "device-pixel-content-box" });
    } catch {
      this.resizes.observe(this.canvas);
    }
    this.measure();
  }

  /** Device pixels per CSS pixel. */
  get ratio() {
    return window.devicePixelRatio || 1;
  }

  /** Takes the size in device pixels: the browser's own count, where it gives one that agrees with its ratio. */
  measure(exact = undefined) {
    const frame = this.canvas.getBoundingClientRect();
    const [width, height] = [frame.width * this.ratio, frame.height * this.ratio];
    const agrees = exact && Math.abs(exact.inlineSize - width) < 1 && Math.abs(exact.blockSize - height) < 1;
    if (agrees) this.setSize(exact.inlineSize, exact.blockSize);
    else this.setSize(Math.round(width), Math.round(height));
  }

  setSize(width, height) {
    const same = width === this.camera.width && height === this.camera.height;
    if (!width || !height || same) return;
    this.canvas.width = width;
    this.canvas.height = height;
    this.camera.setView(width, height);
    this.viewChanged = true;
    this.painted = null;
    if (this.source) this.draw(performance.now()); // at once: a new size has emptied the canvas
  }

  // -- what is shown ------------------------------------------------------------------------------------------------

  /** Shows another picture; the window stays where `window` is not given. */
  show(source, { rows, columns, spacing = null, window = null }) {
    this.source?.close();
    this.release();
    this.source = source;
    this.spacing = spacing > 0 ? spacing : null;
    this.camera.setPicture(rows, columns);
    if (window) this.greys.set({ ...window, inverted: false });
    this.frames = { drawn: 0, milliseconds: [], intervals: [] };
    this.want();
    this.requestDraw();
  }

  /** Sets {centre, width} and, if given, inverted, in values of the picture (0..65535). */
  setWindow(window) {
    if (!this.greys.set(window)) return;
    this.windowChanged();
  }

  /** Shows dense tissue dark (true) or bright (false). */
  invert(inverted) {
    this.setWindow({ inverted });
  }

  /** Shows the whole picture. */
  fit() {
    this.camera.fit();
    this.moved();
  }

  /** Sets device pixels per stored pixel; 1 shows original pixels. */
  zoomTo(zoom, place = undefined) {
    this.camera.zoomTo(zoom, ...(place ?? []));
    this.moved();
  }

  /** Zooms by a factor about the middle, or about a screen place [sx, sy]. */
  zoomBy(factor, place = undefined) {
    this.zoomTo(this.camera.zoom * factor, place);
  }

  /** Moves the picture by CSS pixels. */
  panBy(dx, dy) {
    this.pan(dx * this.ratio, dy * this.ratio);
  }

  /** Puts a stored pixel into the middle. */
  centreOn(x, y) {
    this.camera.centreOn(x, y);
    this.moved();
  }

  /** {x, y, zoom, fitted, centre, width, inverted}: all that `restore` needs. */
  get state() {
    const { x, y, zoom, fitted } = this.camera;
    const { centre, width, inverted } = this.greys;
    return { x, y, zoom, fitted, centre, width, inverted };
  }

  /** Goes back to a state, whole or in part. */
  restore(state) {
    if (state.fitted) this.fit();
    else if (state.zoom) {
      this.camera.zoomTo(state.zoom);
      this.centreOn(state.x ?? this.camera.x, state.y ?? this.camera.y);
    }
    this.setWindow({
      centre: state.centre ?? this.greys.centre,
      width: state.width ?? this.greys.width,
      inverted: state.inverted ?? this.greys.inverted,
    });
  }

  // -- links --------------------------------------------------------------------------------------------------------

  /** Links zoom (in mm where both spacings are known) and window with another view; returns a function that unlinks. */
  link(other) {
    return link(this, other);
  }

  follow(leader, what) {
    if (!this.source || !leader.source) return;
    if (what === "window") {
      const { centre, width, inverted } = leader.greys;
      if (this.greys.set({ centre, width, inverted })) this.windowChanged(false);
      return;
    }
    const scale = this.spacing && leader.spacing ? this.spacing / leader.spacing : 1;
    this.camera.zoomTo(leader.camera.zoom * scale);
    this.moved(false);
  }

  // -- gestures -----------------------------------------------------------------------------------------------------

  /** Fingers and drags move the picture by device pixels. */
  pan(dx, dy) {
    this.camera.panBy(dx, dy);
    this.moved();
  }

  /** Wheel and fingers zoom about a screen place. */
  zoom(factor, place) {
    this.zoomBy(factor, place);
  }

  /** Double click: original pixels here, or all of the picture again. */
  double(place) {
    if (this.camera.fitted) this.zoomTo(1, place);
    else this.fit();
  }

  hover() {}

  /** The right button sets the window and the middle one pans, whatever the tool. */
  press(place, event) {
    this.element.focus({ preventScroll: true });
    if (event.button === 2) return this.windowDrag(place);
    return this.panDrag(place);
  }

  panDrag(start) {
    let last = start;
    const move = (place) => {
      this.pan(place[0] - last[0], place[1] - last[1]);
      last = place;
    };
    return { move, end() {}, cancel() {} };
  }

  /** Right is wider, up is brighter; across the view goes once through the values. */
  windowDrag(start) {
    let last = start;
    const before = this.state;
    const step = 65536 / Math.max(400, Math.min(this.camera.width, this.camera.height));
    const move = (place) => {
      this.nudgeWindow((place[0] - last[0]) * step, (place[1] - last[1]) * step);
      last = place;
    };
    return { move, end() {}, cancel: () => this.setWindow(before) };
  }

  nudgeWindow(width, centre) {
    this.pace.keep("windowing");
    this.setWindow({ centre: this.greys.centre + centre, width: this.greys.width + width });
  }

  key() {}

  // -- drawing ------------------------------------------------------------------------------------------------------

  moved(leads = true) {
    if (leads) spread(this, "zoom");
    this.viewChanged = true;
    this.pace.keep("moving");
    this.requestDraw();
    this.wantSoon();
  }

  /** The hand has let go: what was drawn roughly is drawn well. */
  rest() {
    this.requestTiles();
    this.wantSoon();
  }

  windowChanged(leads = true) {
    if (leads) spread(this, "window");
    this.greysChanged = true;
    this.requestDraw();
  }

  /** Draws everything anew at the next frame. */
  requestDraw() {
    this.painted = null;
    this.requestTiles();
  }

  /** Draws what came newly at the next frame. */
  requestTiles() {
    this.frame ||= requestAnimationFrame((time) => this.draw(time));
  }

  /** Draws what lies over the picture again where new tiles have covered it. */
  paintOverFresh(rectangles) {
    if (!rectangles.length) return;
    const { context } = this;
    context.save();
    context.beginPath();
    for (const rectangle of rectangles) context.rect(...rectangle);
    context.clip();
    this.paintOver(context);
    context.restore();
  }

  /** Looks at which tiles are wanted a moment from now, however often it is called till then. */
  wantSoon() {
    this.wantTimer ||= setTimeout(() => this.want(), WANT_EVERY);
  }

  want() {
    clearTimeout(this.wantTimer);
    this.wantTimer = 0;
    if (!this.source) return;
    const { source, camera } = this;
    const whole = { x0: 0, y0: 0, x1: camera.columns, y1: camera.rows };
    const index = chooseLevel(source, camera, this.pace.rough ? this.pace.effort.limits : {});
    const wanted = [...source.covering(source.coarsest, whole), ...source.covering(index, camera.visible)];
    // The next coarser level is what is drawn while the window is dragged.
    if (index + 1 < source.coarsest) wanted.push(...source.covering(index + 1, camera.visible));
    source.want([...wanted, ...this.alsoWanted()]);
  }

  alsoWanted() {
    return [];
  }

  draw(time) {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    if (!this.source) return;
    const start = performance.now();
    const { camera } = this;
    this.pace.learn(time - this.lastFrame);
    const { limits, milliseconds, smooth } = this.pace.effort;
    const index = chooseLevel(this.source, camera, limits);
    const last = this.painted?.index === index && this.painted.smooth === smooth ? this.painted : null;
    const how = { index, milliseconds, smooth, last };
    const result = paint(this.context, camera, this.source, this.greys, how);
    this.painted = { ...result, index, smooth };
    if (last) this.paintOverFresh(result.fresh);
    else this.paintOver(this.context);
    this.bar.show(this.spacing ? camera.zoom / this.spacing / this.ratio : 0, camera.width / this.ratio);
    const { frames } = this;
    frames.drawn++;
    frames.milliseconds.push(performance.now() - start);
    frames.intervals.push(time - this.lastFrame);
    this.lastFrame = time;
    if (frames.milliseconds.length > KEPT_TIMES) frames.milliseconds.shift();
    if (frames.intervals.length > KEPT_TIMES) frames.intervals.shift();
    if (result.stale) this.requestTiles();
    if (result.missing) this.wantSoon();
    this.tell(result);
  }

  tell(result) {
    if (this.viewChanged) this.callbacks.onView?.(this.state);
    if (this.greysChanged) this.callbacks.onWindow?.({ centre: this.greys.centre, width: this.greys.width });
    this.viewChanged = false;
    this.greysChanged = false;
    const complete = result.based && !result.missing && !result.stale;
    const settled = complete && this.painted.smooth && !this.pace.windowing;
    this.waiting = this.waiting.filter(({ fine, resolve }) => {
      if (!(fine ? settled : result.based)) return true;
      resolve(true);
      return false;
    });
  }

  /** Resolves with true at the next frame that shows the picture everywhere, or (`fine`) in full detail. */
  drawn(fine = false) {
    return new Promise((resolve, reject) => {
      this.waiting.push({ fine, resolve, reject });
      this.requestDraw();
    });
  }

  release(error = null) {
    const { waiting } = this;
    this.waiting = [];
    for (const { resolve, reject } of waiting) {
      if (error) reject(error);
      else resolve(false);
    }
  }

  paintOver() {}

  /** Lets go of everything; the element is empty afterwards. */
  destroy() {
    this.source?.close();
    this.source = null;
    this.release();
    unlinkAll(this);
    cancelAnimationFrame(this.frame);
    clearTimeout(this.wantTimer);
    this.pace.stop();
    this.gestures.destroy();
    this.resizes.disconnect();
    this.stop.abort();
    this.element.replaceChildren();
    this.element.classList.remove("picture");
  }
}
