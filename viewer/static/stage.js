/**
 * The images of a study, hung, with the tools, the detections and the place that is asked about.
 * @module stage
 */

import { get } from "/static/api.js";
import { announce, button, fill, make, press } from "/static/elements.js";
import { Hanging } from "/static/image/hanging.js";
import { bind } from "/static/keys.js";
import { failed, waiting } from "/static/notices.js";
import { viewName } from "/static/words.js";

const TOOLS = [
  ["pan", "Move", "p", "Move the picture by dragging"],
  ["window", "Window", "w", "Window and level by dragging"],
  ["box", "Box", "b", "Draw a box round a finding and ask"],
  ["ruler", "Ruler", "r", "Measure"],
  ["magnifier", "Magnify", "m", "Magnify what is under the pointer"],
];
const CALM = 400; // ms without a change of the window after which the address notes it

/** In the place of an image's id: all images alike. */
export const ALL = "all";

/** @typedef {import("/static/state.js").Box} Box */

/**
 * @typedef {object} Heard What a stage tells.
 * @property {function(string, Box|null): void} box A box was drawn on an image, changed, or taken away.
 * @property {function(string, any): void} mark A detection on an image was picked.
 * @property {function(string, {centre: number, width: number}): void} window The reader chose a window.
 * @property {function(string): void} look The reader wants to look at an image, or at `ALL`.
 * @property {function(): boolean} active Whether its keys count.
 */

/**
 * @typedef {object} Shown What a stage is to show.
 * @property {string} look An image, or `ALL`.
 * @property {string} asked The image that is asked about; empty for none.
 * @property {Box|null} box
 * @property {string} detection
 * @property {{image: string, box: Box|null}[]} further
 * @property {{centre: number, width: number}|null} window Of the image that is asked about; null for its own.
 */

/** The images of one study. */
export class Stage {
  /**
   * @param {HTMLElement} element
   * @param {any} study As `/studies/{study}` describes it.
   * @param {import("/static/elements.js").Child} title Whose images these are.
   * @param {Heard} heard
   */
  constructor(element, study, title, heard) {
    this._study = study;
    this._heard = heard;
    this._infos = new Map();
    this._marksShown = true;
    this._tools = new Map(TOOLS.map(([tool, label, key, does]) =>
      [tool, button(label, () => this.use(tool), { key, title: does, pressed: tool === "pan" })]));
    this._invert = button("Invert", () => this._turn(), { key: "i", pressed: false });
    this._marks = button("Marks", () => this._showMarks(), { key: "h", pressed: true, title: "Show or hide marks" });
    this._all = button("All", () => this._toggleAll(), { key: "g", pressed: false, title: "All images, or the chosen one large" });
    this._all.hidden = study.images.length < 2;
    this._presets = /** @type {HTMLSelectElement} */ (make("select", {
      "aria-label": "Window preset", title: "Window preset", on: { change: () => this._preset() },
    }));
    this._banner = make("div.banner", { role: "status", hidden: true });
    this._notice = make("div.over");
    this._place = make("div.image");
    fill(element,
      make("div.bar.tools", { role: "toolbar", "aria-label": "Image tools" }, title,
        make("span.group", {}, [...this._tools.values()]),
        make("span.group", {},
          button("Fit", () => this._hanging.view?.fit(), { key: "f", title: "Fit to the screen" }),
          button("1:1", () => this._hanging.view?.zoomTo(1), { key: "1", title: "One pixel of the image on one of the screen" }),
          this._invert, this._presets, this._marks, this._all)),
      this._banner, this._notice, this._place);
    this._hanging = new Hanging(this._place, {
      onBox: (image, box) => heard.box(image, box),
      onMark: (image, id) => this._picked(image, id),
      onWindow: (image, window) => this._windowed(image, window),
      onTool: (_image, tool) => this._show(tool),
      onSay: (_image, text) => announce(text),
      onSelect: (image) => this._selected(image),
      onLayout: (layout) => this._quiet || heard.look(layout === "all" ? ALL : this._hanging.selected),
    }, { load: (image) => this._load(image) });
    this._unbind = bind(this._keys());
  }

  /**
   * Hang the images.
   * @param {Shown} shown
   */
  async open(shown) {
    this._shown = shown;
    this._quiet = true;
    fill(this._notice, waiting("opening the images"));
    const opening = this._hanging.open(this._study, {
      selected: shown.look === ALL ? null : shown.look, layout: shown.look === ALL ? "all" : "one",
    });
    this._quiet = false;
    this._chosen();
    const failures = await opening;
    if (this._gone) return;
    const notes = new Set([...this._infos.values()].flatMap((info) => info.notes ?? []));
    fill(this._notice,
      failures.map(({ error }) => failed(error, () => this.open(this._shown))),
      [...notes].map((note) => make("p.note", {}, note)));
  }

  /**
   * Show what the address says.
   * @param {Shown} shown
   */
  update(shown) {
    this._shown = shown;
    this._quiet = true;
    if (shown.look === ALL) {
      if (this._hanging.layout !== "all") this._hanging.show("all");
    } else {
      this._hanging.select(shown.look);
      if (this._hanging.layout !== "one") this._hanging.show("one");
    }
    this._quiet = false;
    this._chosen();
    for (const image of this._infos.keys()) this._draw(image);
  }

  /**
   * Take a tool.
   * @param {string} tool
   */
  use(tool) {
    this._hanging.setTool(tool);
    this._show(tool);
  }

  /**
   * Say above the image what is waited for; nothing to take it away.
   * @param {...import("/static/elements.js").Child} said
   */
  say(...said) {
    this._banner.hidden = said.length === 0;
    fill(this._banner, said);
  }

  /** The image that the tools work on. */
  get chosen() {
    return this._hanging.selected;
  }

  /** Leave. */
  destroy() {
    this._gone = true;
    this._unbind();
    clearTimeout(this._timer);
    this._hanging.destroy();
  }

  /** @param {string} image */
  async _load(image) {
    const info = await get(`/images/${encodeURIComponent(image)}`);
    this._infos.set(image, info);
    setTimeout(() => {
      if (this._gone) return;
      this._draw(image); // after the view has taken the image up
      this._chosen();
    });
    return info;
  }

  /** @param {string} image */
  _draw(image) {
    const view = this._hanging.views.get(image);
    const info = this._infos.get(image);
    if (!view?.info || !info) return;
    const { asked, box, detection, further, window } = this._shown;
    const own = image === asked;
    const marks = (info.detections ?? []).map((found) => ({
      id: found.detection, box: found.box, outline: found.outline, label: found.label ?? "", kind: "detection",
      selected: own && found.detection === detection,
    }));
    further.filter((one) => one.image === image && one.box).forEach((one, at) => marks.push({
      id: `further ${at}`, box: one.box, outline: null, label: "also asked with", kind: "query", selected: false,
    }));
    view.setMarks(marks);
    view.showMarks(this._marksShown);
    if (String(view.box) !== String(own ? box : null)) view.setBox(own ? box : null);
    const { centre, width } = view.state;
    if (own && window && (Math.round(centre) !== window.centre || Math.round(width) !== window.width)) view.setWindow(window);
  }

  /** Make the tools say what is true of the chosen image. */
  _chosen() {
    const info = this._infos.get(this._hanging.selected);
    press(this._all, this._hanging.layout === "all");
    press(this._invert, this._hanging.view?.state.inverted ?? false);
    if (info === this._offered) return;
    this._offered = info;
    fill(this._presets, make("option", { value: "" }, "Window …"),
      (info?.windows ?? []).map((one, at) => make("option", { value: String(at) }, one.name)));
  }

  /** @param {string} image */
  _selected(image) {
    this._chosen();
    if (!this._quiet && this._hanging.layout === "one") this._heard.look(image);
  }

  /**
   * @param {string} image
   * @param {string} id
   */
  _picked(image, id) {
    const found = (this._infos.get(image)?.detections ?? []).find((one) => one.detection === id);
    if (found) this._heard.mark(image, found);
  }

  /**
   * @param {string} image
   * @param {{centre: number, width: number}} window
   */
  _windowed(image, window) {
    this._chosen();
    clearTimeout(this._timer);
    this._timer = setTimeout(() => this._heard.window(image, {
      centre: Math.round(window.centre), width: Math.round(window.width),
    }), CALM);
  }

  /** @param {string} tool */
  _show(tool) {
    for (const [name, made] of this._tools) press(made, name === tool);
  }

  _preset() {
    const chosen = this._offered?.windows[Number(this._presets.value)];
    if (chosen && this._presets.value !== "") this._hanging.view?.setWindow({ centre: chosen.centre, width: chosen.width });
  }

  _turn() {
    const view = this._hanging.view;
    view?.invert(!view.state.inverted);
    this._chosen();
  }

  _showMarks() {
    this._marksShown = !this._marksShown;
    press(this._marks, this._marksShown);
    for (const view of this._hanging.views.values()) view.showMarks(this._marksShown);
  }

  _toggleAll() {
    this._heard.look(this._hanging.layout === "all" ? this._hanging.selected : ALL);
  }

  /** @param {string} tool Taken by its key: the arrow keys are to work it. */
  _take(tool) {
    this.use(tool);
    this._hanging.view?.element.focus({ preventScroll: true });
    announce(`${TOOLS.find(([name]) => name === tool)?.[1]} on ${viewName(this._infos.get(this._hanging.selected) ?? {})}`);
  }

  _keys() {
    const group = "Image";
    const when = () => this._heard.active() && Boolean(this._hanging.view);
    return [
      ...TOOLS.map(([tool, , key, does]) => ({ group, key, does, when, act: () => this._take(tool) })),
      { group, key: "f", does: "Fit to the screen", when, act: () => this._hanging.view.fit() },
      { group, key: "1", does: "Original pixels", when, act: () => this._hanging.view.zoomTo(1) },
      { group, key: "i", does: "Invert", when, act: () => this._turn() },
      { group, key: "h", does: "Show or hide marks", when, act: () => this._showMarks() },
      { group, key: "g", does: "All images, or the chosen one large", when, act: () => this._toggleAll() },
    ];
  }
}
