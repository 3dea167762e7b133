/** A bar of 10 mm beside a picture, or of another round length where that would be too long or too short. */

import { make } from "./dom.js";

const LENGTHS = [10, 5, 2, 1, 20, 50, 100]; // mm, the preferred first
const SHORTEST = 16; // CSS pixels
const LONGEST = 0.4; // of the view's width

/** The bar of one view; says where the scale is unknown. */
export class ScaleBar {
  constructor() {
    this.element = make("div", "picture-bar", { "aria-hidden": "true" });
    this.text = make("span", "picture-bar-text");
    this.line = make("span", "picture-bar-line");
    this.element.append(this.text, this.line);
    this.length = null;
  }

  /** Shows the scale: CSS pixels per mm (0 where unknown) in a view of so many CSS pixels. */
  show(perMm, width) {
    const fits = (mm) => mm * perMm >= SHORTEST && mm * perMm <= width * LONGEST;
    const mm = perMm ? (LENGTHS.find(fits) ?? null) : null;
    const text = mm ? `${mm} mm` : perMm ? "" : "mm unknown";
    const length = mm ? Math.round(mm * perMm) : 0;
    this.element.hidden = !text;
    if (this.text.textContent === text && this.length === length) return;
    this.text.textContent = text;
    this.line.style.width = `${length}px`;
    this.line.hidden = !mm;
    this.length = length;
  }

  hide() {
    this.element.hidden = true;
  }
}
