/**
 * One square picture of a finding, as /images/{id}/crop and /rows/{row}/crop give it: own zoom, pan and window, the
 * box, a scale bar.
 */

import { arrow, make, plain } from "./dom.js";
import { drawMark } from "./marks.js";
import { PixelView } from "./pixelview.js";
import { WholePicture } from "./tiles.js";

const PAN_STEP = 30; // CSS pixels that an arrow key moves the picture by
const ZOOM_STEP = 1.25;

/** Callbacks, all optional: onOpen() on double click or Enter; onView(state); onWindow({centre, width}). */
export class CropView extends PixelView {
  /** @param {object} options tone: an outcome that colours the box; label: what a screen reader calls the picture. */
  constructor(element, callbacks = {}, { label = "Finding", tone = null } = {}) {
    super(element, callbacks);
    this.tone = tone;
    this.box = null;
    this.boxShown = true;
    this.loading = null;
    /** Where the pixels came from: "image", "thumbnail", or null before they came. */
    this.origin = null;
    this.note = make("div", "picture-trouble");
    this.note.hidden = true;
    element.append(this.note);
    element.tabIndex = 0;
    element.setAttribute("role", "application");
    element.setAttribute("aria-roledescription", "picture of a finding");
    element.setAttribute("aria-label", label);
  }

  /**
   * Loads a crop's address. Resolves with true once drawn, with false where another was loaded meanwhile or there is no
   * picture (404: said in the element); rejects on any other failure. `window` is {centre, width}; without it the last
   * one stays.
   */
  async load(url, { window = null } = {}) {
    this.loading?.abort();
    this.loading = new AbortController();
    const { signal } = this.loading;
    this.element.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(url, { signal, credentials: "same-origin" });
      if (answer.status === 404) return this.without("No picture of this finding is here");
      if (!answer.ok) throw new Error(`the server answered ${answer.status} for the picture`);
      const values = new Uint16Array(await answer.arrayBuffer());
      if (signal.aborted) return false;
      this.take(values, answer.headers, window);
      return await this.drawn();
    } catch (error) {
      if (signal.aborted) return false;
      this.without("The picture could not be loaded");
      throw error;
    } finally {
      if (!signal.aborted) this.element.removeAttribute("aria-busy");
    }
  }

  take(values, headers, window) {
    const number = (name) => Number(headers.get(name)) || null;
    const [rows, columns] = [number("X-Rows"), number("X-Columns")];
    if (!rows || rows * columns !== values.length) throw new Error("the picture has an unexpected size");
    const box = (headers.get("X-Box") ?? "").split(",").map(Number);
    this.box = box.length === 4 && box.every(Number.isFinite) ? box : null;
    this.origin = headers.get("X-Source");
    this.note.textContent = this.origin === "thumbnail" ? "small copy, 8 bit" : "";
    this.note.hidden = !this.note.textContent;
    this.show(new WholePicture(values, rows, columns), { rows, columns, spacing: number("X-Mm-Per-Pixel"), window });
  }

  without(words) {
    this.source?.close();
    this.source = null;
    this.origin = null;
    this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    this.bar.hide();
    this.note.textContent = words;
    this.note.hidden = false;
    return false;
  }

  /** Shows or hides the finding's box. */
  showBox(shown) {
    this.boxShown = shown;
    this.requestDraw();
  }

  press(place, event) {
    if (!this.source) return null;
    const drag = super.press(place, event);
    return event.shiftKey && event.button === 0 ? this.windowDrag(place) : drag;
  }

  double() {
    this.callbacks.onOpen?.();
  }

  pan(dx, dy) {
    if (this.source) super.pan(dx, dy);
  }

  zoom(factor, place) {
    if (this.source) super.zoom(factor, place);
  }

  /** Arrows pan, with shift set the window; plus, minus, 0, 1 and I as on a mammogram; Enter opens. */
  key(event) {
    if (event.target !== this.element || !plain(event)) return;
    const step = arrow(event.key);
    if (event.key === "Enter" && this.callbacks.onOpen) this.callbacks.onOpen();
    else if (!this.source) return;
    else if (step && event.shiftKey) this.nudgeWindow(step[0] * 1024, step[1] * 1024);
    else if (step) this.panBy(-step[0] * PAN_STEP, -step[1] * PAN_STEP);
    else if (event.key === "+" || event.key === "=") this.zoomBy(ZOOM_STEP);
    else if (event.key === "-") this.zoomBy(1 / ZOOM_STEP);
    else if (event.key === "0") this.fit();
    else if (event.key === "1") this.zoomTo(1);
    else if (event.key.toLowerCase() === "i") this.invert(!this.greys.inverted);
    else return;
    event.preventDefault();
  }

  paintOver(context) {
    if (!this.box || !this.boxShown) return;
    drawMark(context, this.camera, { kind: "finding", tone: this.tone, box: this.box }, null, this.colours, this.ratio);
  }

  destroy() {
    this.loading?.abort();
    super.destroy();
  }
}
