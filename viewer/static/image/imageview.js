/**
 * One mammogram: looked at, measured, and asked about. See docs/viewer.md for how its pixels come and are drawn.
 */

import { BoxTool } from "./boxtool.js";
import { arrow, make, plain } from "./dom.js";
import { Loupe } from "./loupe.js";
import { drawMark, markAt, markWords } from "./marks.js";
import { PixelView } from "./pixelview.js";
import { RulerTool } from "./rulertool.js";
import { TilePyramid } from "./tiles.js";

const PAN_STEP = 60; // CSS pixels that an arrow key moves the picture by
const ZOOM_STEP = 1.25;
const WINDOW_STEP = 1024; // values that an arrow key moves the window by
const LOUPE_STEP = 20; // CSS pixels that an arrow key moves the magnifier by

/** Letters that take a tool into the hand. */
export const TOOL_KEYS = { p: "pan", w: "window", b: "box", r: "ruler", m: "magnifier" };

const HELP =
  "Arrow keys move the picture, plus and minus zoom, 0 shows all of it, 1 its original pixels, I inverts. " +
  "P pans, W sets the window, B draws the box, R measures, M magnifies; arrow keys then work the tool, Enter begins " +
  "and finishes, Delete removes, Escape gives up. Tab goes through the marks.";

/**
 * Callbacks, all optional: onBox(box or null) when the question's box was drawn or changed; onMark(id) when a mark was
 * picked; onView(state); onWindow({centre, width}); onMeasure({length, unit, text}); onTool(tool) when a key changed
 * it; onSay(text) for a live region; onError(text) when a part of the picture can't be had; onDouble() for a double
 * click with the pan tool, which returns true where it took care of it.
 */
export class ImageView extends PixelView {
  constructor(element, callbacks = {}, { base = "", label = "Mammogram" } = {}) {
    super(element, callbacks);
    this.base = base;
    this.label = label;
    this.info = null;
    this.tool = "pan";
    this.marks = [];
    this.marksShown = true;
    this.boxTool = new BoxTool(this);
    this.ruler = new RulerTool(this);
    this.loupe = new Loupe(this);
    this.dress();
  }

  dress() {
    this.element.tabIndex = 0;
    this.element.setAttribute("role", "application");
    this.element.setAttribute("aria-roledescription", "mammogram");
    this.side = make("div", "picture-side");
    this.reading = make("div", "picture-reading", { "aria-hidden": "true" });
    this.trouble = make("div", "picture-trouble");
    this.trouble.hidden = true;
    const help = make("p", "picture-hidden", { id: `picture-help-${++ImageView.count}` }, HELP);
    this.markButtons = make("div", "picture-marks");
    this.foot.prepend(this.reading);
    this.element.append(this.side, this.trouble, this.markButtons, help);
    this.element.setAttribute("aria-describedby", help.id);
    this.element.setAttribute("aria-label", this.label);
    this.element.dataset.tool = this.tool;
  }

  static count = 0;

  /**
   * Opens what /images/{id} answered; `flip` mirrors it, `align` says which side it leans on.
   * Resolves with true once something is drawn everywhere, with false where another picture was opened meanwhile;
   * rejects where the picture can't be had.
   */
  open(info, { flip = info.flip ?? false, align = "centre" } = {}) {
    this.info = info;
    this.marks = [];
    this.boxTool.set(null);
    this.ruler.clear();
    this.loupe.hold(null);
    this.trouble.hidden = true;
    Object.assign(this.camera, { flip, align });
    const source = new TilePyramid(info, {
      base: this.base,
      onTile: () => (this.loupe.place ? this.requestDraw() : this.requestTiles()),
      onError: (text) => this.failed(text),
    });
    const window = info.windows[0] ?? { centre: 32768, width: 65536 };
    this.show(source, { rows: info.rows, columns: info.columns, spacing: info.spacing_mm, window });
    this.name(info, flip);
    this.setMarks((info.detections ?? []).map((found) => ({ ...found, id: found.detection, kind: "detection" })));
    return this.drawn();
  }

  name(info, flip) {
    const side = { L: "Left", R: "Right" }[info.laterality];
    const short = [info.laterality ?? "Side?", info.view].filter(Boolean).join(" ");
    this.side.textContent = flip ? `${short} ⇋ mirrored` : short;
    const wallOnRight = (info.chest_wall === "right") !== flip;
    const corner = wallOnRight ? "left" : "right"; // away from the chest wall, where there is the least tissue
    this.side.dataset.corner = corner;
    this.foot.dataset.corner = corner;
    const words = [side ? `${side} breast` : "Side unknown", info.view, info.name, flip ? "drawn mirrored" : ""];
    this.element.setAttribute("aria-label", `${this.label}: ${words.filter(Boolean).join(", ")}`);
  }

  failed(text) {
    this.trouble.textContent = `A part of this picture could not be loaded: ${text}.`;
    this.trouble.hidden = false;
    this.callbacks.onError?.(text);
    const nothing = this.source.covering(this.source.coarsest, this.camera.visible).some((tile) => tile.failed);
    if (nothing) this.release(new Error(text));
  }

  /** Tries again to load what could not be had. */
  tryAgain() {
    this.trouble.hidden = true;
    this.source?.tryAgain();
    this.want();
  }

  /** Takes one of "pan", "window", "box", "ruler", "magnifier" into the hand. */
  setTool(tool) {
    this.gestures.abandon();
    this.tool = tool;
    this.element.dataset.tool = tool;
    this.canvas.style.cursor = "";
    if (tool !== "magnifier") this.loupe.hold(null);
    this.ruler.laying = false;
    this.requestDraw();
  }

  /** Draws these marks: [{id, box, outline, label, kind, tone, selected}]; tone is an outcome that gives the colour. */
  setMarks(marks) {
    this.marks = marks.map((mark) => ({ ...mark }));
    const buttons = this.marks.map((mark, at) => {
      const pressed = String(Boolean(mark.selected));
      const attributes = { type: "button", "aria-pressed": pressed, "data-mark": String(mark.id) };
      const button = make("button", "picture-mark", attributes, markWords(mark, at + 1));
      button.addEventListener("click", () => this.callbacks.onMark?.(mark.id));
      button.addEventListener("focus", () => this.keepInSight(mark.box));
      return button;
    });
    const focused = this.markButtons.contains(document.activeElement) ? document.activeElement.dataset.mark : null;
    this.markButtons.replaceChildren(...buttons);
    if (focused !== null) buttons.find((button) => button.dataset.mark === focused)?.focus();
    this.marksChanged = true;
    this.requestDraw();
  }

  /** Shows or hides the marks. */
  showMarks(shown) {
    this.marksShown = shown;
    this.markButtons.hidden = !shown;
    this.requestDraw();
  }

  /** Shows a box as the question, adjustable; null takes it away. Does not call onBox. */
  setBox(box) {
    this.boxTool.set(box);
  }

  /** The question's box, or null. */
  get box() {
    return this.boxTool.box;
  }

  /** Removes the rulers. */
  clearRulers() {
    this.ruler.clear();
  }

  // -- what the tools tell ------------------------------------------------------------------------------------------

  say(text) {
    this.callbacks.onSay?.(text);
  }

  boxDone(box) {
    if (box) {
      const sides = [box[2] - box[0], box[3] - box[1]];
      const told = this.spacing ? sides.map((side) => (side * this.spacing).toFixed(1)) : sides;
      this.say(`Box of ${told.join(" by ")} ${this.spacing ? "mm" : "pixels"}`);
    } else this.say("Box removed");
    this.callbacks.onBox?.(box && [...box]);
  }

  measureDone(measure) {
    this.say(measure.text);
    this.callbacks.onMeasure?.(measure);
  }

  clicked(place) {
    const mark = this.marksShown ? markAt(this.marks, this.camera, place, this.ratio) : null;
    if (mark) this.callbacks.onMark?.(mark.id);
  }

  /** Moves the picture so that the middle of a box is on the screen. */
  keepInSight(box) {
    const [sx, sy] = this.camera.toScreen((box[0] + box[2]) / 2, (box[1] + box[3]) / 2);
    if (sx < 0 || sy < 0 || sx > this.camera.width || sy > this.camera.height) {
      this.centreOn((box[0] + box[2]) / 2, (box[1] + box[3]) / 2);
    }
  }

  // -- gestures and keys --------------------------------------------------------------------------------------------

  press(place, event) {
    if (!this.source) return null;
    if (event.button !== 0) return super.press(place, event);
    this.element.focus({ preventScroll: true });
    if (this.tool === "box") return this.boxTool.press(place, event);
    if (this.tool === "ruler") return this.ruler.press(place, event);
    if (this.tool === "magnifier") return this.loupeDrag(place, event);
    const drag = this.tool === "window" ? this.windowDrag(place) : this.panDrag(place);
    return this.orClick(drag, place);
  }

  /** A drag that was hardly one picks the mark under it. */
  orClick(drag, start) {
    const end = (place) => {
      if (Math.hypot(place[0] - start[0], place[1] - start[1]) <= 4 * this.ratio) this.clicked(start);
    };
    return { ...drag, end };
  }

  loupeDrag(place, event) {
    this.loupe.hold(place);
    const away = () => event.pointerType === "touch" && this.loupe.hold(null);
    return { move: (now) => this.loupe.hold(now), end: away, cancel: away };
  }

  hover(place) {
    if (this.tool === "magnifier" && this.source) this.loupe.hold(place);
    else if (this.tool === "box" && place) this.canvas.style.cursor = this.boxTool.cursorAt(place);
  }

  double(place) {
    if (this.tool === "pan" && this.source && !this.callbacks.onDouble?.()) super.double(place);
  }

  key(event) {
    if (!this.source || event.target !== this.element || event.altKey || event.metaKey) return;
    if (this.toolKey(event) || (plain(event) && this.viewKey(event))) event.preventDefault();
  }

  toolKey(event) {
    if (event.key === "Escape") return this.giveUp();
    if (this.tool === "box") return this.boxTool.key(event);
    if (this.tool === "ruler") return this.ruler.key(event);
    const step = arrow(event.key);
    if (!step || event.ctrlKey) return false;
    if (this.tool === "magnifier") {
      this.loupe.step(step, (event.shiftKey ? 3 : 1) * LOUPE_STEP * this.ratio);
      return true;
    }
    if (this.tool === "window") {
      const by = (event.shiftKey ? 4 : 1) * WINDOW_STEP;
      this.nudgeWindow(step[0] * by, step[1] * by);
      this.say(`Width ${Math.round(this.greys.width)}, centre ${Math.round(this.greys.centre)}`);
      return true;
    }
    return false;
  }

  giveUp() {
    if (this.gestures.abandon()) return true;
    if (this.loupe.place) {
      this.loupe.hold(null);
      return true;
    }
    const { laying } = this.ruler;
    this.ruler.laying = false;
    return laying;
  }

  viewKey(event) {
    const step = arrow(event.key);
    const tool = TOOL_KEYS[event.key.toLowerCase()];
    if (step) {
      const by = (event.shiftKey ? 4 : 1) * PAN_STEP;
      this.panBy(-step[0] * by, -step[1] * by); // the view goes where the arrow points
    } else if (event.key === "+" || event.key === "=") this.zoomBy(ZOOM_STEP);
    else if (event.key === "-") this.zoomBy(1 / ZOOM_STEP);
    else if (event.key === "0") this.fit();
    else if (event.key === "1") this.zoomTo(1);
    else if (event.key.toLowerCase() === "i") this.invert(!this.greys.inverted);
    else if (tool) {
      this.setTool(tool);
      this.callbacks.onTool?.(tool);
    } else return false;
    return true;
  }

  // -- drawing ------------------------------------------------------------------------------------------------------

  alsoWanted() {
    return this.loupe.wanted();
  }

  paintOver(context) {
    if (this.marksShown) {
      this.marks.forEach((mark, at) => drawMark(context, this.camera, mark, at + 1, this.colours, this.ratio));
    }
    if (this.boxTool.box) {
      const mark = { kind: "query", box: this.boxTool.box };
      drawMark(context, this.camera, mark, null, this.colours, this.ratio);
      if (this.tool === "box") this.boxTool.drawHandles(context);
    }
    this.ruler.draw(context);
    this.loupe.draw(context);
  }

  tell(result) {
    if (this.viewChanged || this.greysChanged || this.frames.drawn === 1) this.showReading();
    if (this.viewChanged || this.marksChanged || this.frames.drawn === 1) this.placeButtons();
    this.marksChanged = false;
    super.tell(result);
  }

  showReading() {
    const { width, centre, inverted } = this.greys;
    const zoom = this.camera.zoom;
    this.reading.textContent =
      `W ${Math.round(width)}  C ${Math.round(centre)}${inverted ? "  inverted" : ""}  ` +
      `${zoom < 1 ? zoom.toFixed(2) : zoom.toFixed(1)}×`;
  }

  /** Lays the marks' buttons over what is drawn, for the keyboard's focus and for screen readers. */
  placeButtons() {
    this.marks.forEach((mark, at) => {
      const { left, top, right, bottom } = this.camera.boxToScreen(mark.box);
      const { style } = this.markButtons.children[at];
      style.transform = `translate(${left / this.ratio}px, ${top / this.ratio}px)`;
      style.width = `${(right - left) / this.ratio}px`;
      style.height = `${(bottom - top) / this.ratio}px`;
    });
  }
}
