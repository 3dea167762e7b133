/**
 * A study's images as radiologists hang them: right breast on the left, chest walls together, CC above MLO or all in
 * one row, whichever shows them larger; one of them large on request.
 */

import { make } from "./dom.js";
import { ImageView } from "./imageview.js";

/** Whether a picture has to be mirrored so that its chest wall is in the middle: as the server says, if it does. */
export function needsFlip({ flip, laterality, chest_wall: wall }) {
  if (typeof flip === "boolean") return flip;
  const expected = { R: "right", L: "left" }[laterality];
  return Boolean(expected && wall && wall !== expected);
}

/** Where each image hangs: {image, row, column}; images that share a place move to rows of their own below. */
export function places(images) {
  const taken = new Set();
  const known = images.map((entry) => ({
    image: entry.image,
    row: entry.place?.row ?? { CC: 0, MLO: 1 }[entry.view] ?? 2,
    column: entry.place?.column ?? (entry.laterality === "L" ? 1 : 0),
  }));
  for (const place of known) {
    while (taken.has(`${place.row},${place.column}`)) place.row++;
    taken.add(`${place.row},${place.column}`);
  }
  const ranks = (key) => [...new Set(known.map((place) => place[key]))].sort((a, b) => a - b);
  const [rows, columns] = [ranks("row"), ranks("column")];
  return known.map(({ image, row, column }) => ({ image, row: rows.indexOf(row), column: columns.indexOf(column) }));
}

/**
 * Cells of an area of `width` × `height` for the hung places: {columns, rows, cells: Map image -> [row, column]}: as a
 * block (CC above MLO) or all in one row, whichever shows a picture of `aspect` (width over height) larger.
 */
export function arrange(hung, width, height, aspect) {
  const block = {
    rows: 1 + Math.max(...hung.map(({ row }) => row)),
    columns: 1 + Math.max(...hung.map(({ column }) => column)),
    cells: new Map(hung.map(({ image, row, column }) => [image, [row, column]])),
  };
  const inOrder = [...hung].sort((a, b) => a.row - b.row || a.column - b.column);
  const row = { rows: 1, columns: hung.length, cells: new Map(inOrder.map(({ image }, at) => [image, [0, at]])) };
  const size = ({ rows, columns }) => Math.min(width / columns / aspect, height / rows);
  return size(row) > size(block) ? row : block;
}

/**
 * Callbacks, all optional: onSelect(image) when another image was selected; onLayout("all" or "one"); all of
 * ImageView's with the image's id as first argument: onBox(image, box), onMark(image, id), onView(image, state), ...
 */
export class Hanging {
  /** @param {object} options base: before the server's addresses; load(image): gives what /images/{id} answers. */
  constructor(element, callbacks = {}, { base = "", load = null } = {}) {
    this.element = element;
    this.callbacks = callbacks;
    this.base = base;
    this.load = load ?? ((image) => fetchInfo(base, image));
    /** ImageView by image id. */
    this.views = new Map();
    this.cells = new Map();
    this.hung = [];
    this.layout = "all";
    this.selected = null;
    this.aspect = 0.8;
    this.tool = "pan";
    this.linked = null;
    this.stop = new AbortController();
    element.classList.add("hanging");
    element.setAttribute("role", "group");
    element.setAttribute("aria-label", "Images of this study");
    element.addEventListener("keydown", (event) => this.key(event), { signal: this.stop.signal });
    element.addEventListener("focusin", (event) => this.focused(event), { signal: this.stop.signal });
    this.resizes = new ResizeObserver(() => this.place());
    this.resizes.observe(element);
  }

  /**
   * Hangs what /studies/{study} answered. Resolves, once every image is drawn, with a list of {image, error}: empty
   * where all went well.
   */
  async open(study, { selected = null, layout = "all" } = {}) {
    this.clear();
    this.hung = places(study.images);
    this.layout = layout;
    const inOrder = [...this.hung].sort((a, b) => a.row - b.row || a.column - b.column);
    this.order = inOrder.map(({ image }) => image);
    for (const image of this.order) this.addCell(image);
    this.mark(this.order.includes(selected) ? selected : (this.order[0] ?? null));
    this.place();
    const entries = new Map(study.images.map((entry) => [entry.image, entry]));
    const opened = this.order.map((image) => this.openOne(entries.get(image)));
    return (await Promise.all(opened)).filter((failure) => failure !== null);
  }

  addCell(image) {
    const cell = make("div", "hanging-cell");
    this.element.append(cell);
    const told = Object.entries(this.callbacks).map(([name, tell]) => [name, (...said) => tell(image, ...said)]);
    const callbacks = Object.fromEntries(told);
    callbacks.onTool = (tool) => {
      this.setTool(tool);
      this.callbacks.onTool?.(image, tool);
    };
    callbacks.onDouble = () => this.enlarge(image);
    this.cells.set(image, cell);
    this.views.set(image, new ImageView(cell, callbacks, { base: this.base }));
    this.views.get(image).setTool(this.tool);
  }

  async openOne(entry) {
    const view = this.views.get(entry.image);
    try {
      const info = await this.load(entry.image);
      if (this.views.get(entry.image) !== view) return null;
      const facts = { ...entry, ...info };
      const align = { R: "right", L: "left" }[facts.laterality] ?? "centre";
      this.aspect = info.columns / info.rows;
      view.wall = align;
      const drawn = view.open(info, { flip: needsFlip(facts), align });
      this.place();
      await drawn;
      return null;
    } catch (error) {
      return { image: entry.image, error };
    }
  }

  /** The selected image's view; null while nothing hangs. */
  get view() {
    return this.views.get(this.selected) ?? null;
  }

  /** Selects an image (shown large in layout "one") and puts the focus on it where `focus`. */
  select(image, { focus = false } = {}) {
    if (!this.views.has(image)) return;
    const changed = image !== this.selected;
    this.mark(image);
    if (changed && this.layout === "one") {
      this.place();
      queueMicrotask(() => this.views.get(image)?.gestures.abandon()); // the press that selected it is no drag
    }
    if (focus) this.view.element.focus({ preventScroll: true });
    if (changed) this.callbacks.onSelect?.(image);
  }

  /** "all" shows every image alike, "one" the selected one large and the others small beside it. */
  show(layout) {
    this.layout = layout;
    this.place();
    this.callbacks.onLayout?.(layout);
  }

  /** A double click among several shows the one large; returns whether it did. */
  enlarge(image) {
    if (this.layout === "one" || this.hung.length < 2) return false;
    this.select(image);
    this.show("one");
    return true;
  }

  /** Takes a tool into the hand for all images. */
  setTool(tool) {
    this.tool = tool;
    for (const view of this.views.values()) view.setTool(tool);
  }

  /** Links zoom and window of all images, or unlinks them. */
  link(linked) {
    this.linked?.forEach((unlink) => unlink());
    this.linked = null;
    if (!linked) return;
    const [first, ...others] = this.views.values();
    this.linked = others.map((other) => first.link(other));
  }

  mark(image) {
    this.selected = image;
    for (const [id, cell] of this.cells) {
      cell.classList.toggle("is-selected", id === image);
      if (id === image) cell.setAttribute("aria-current", "true");
      else cell.removeAttribute("aria-current");
    }
  }

  /** PageDown and PageUp go to the next and previous image, G changes between all and one. */
  key(event) {
    if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey) return;
    const step = { PageDown: 1, PageUp: -1 }[event.key];
    if (step && this.order.length) {
      const at = this.order.indexOf(this.selected) + step + this.order.length;
      this.select(this.order[at % this.order.length], { focus: true });
    } else if (event.key.toLowerCase() === "g") this.show(this.layout === "one" ? "all" : "one");
    else return;
    event.preventDefault();
  }

  focused(event) {
    const found = [...this.cells].find(([, cell]) => cell.contains(event.target));
    if (found) this.select(found[0]);
  }

  /** Gives every cell its place in the grid. */
  place() {
    if (!this.hung.length) return;
    const { clientWidth: width, clientHeight: height } = this.element;
    const single = this.layout === "one" && this.hung.length > 1;
    this.element.dataset.layout = single ? "one" : "all";
    if (single) this.placeOne(width >= height);
    else this.placeAll(arrange(this.hung, width, height, this.aspect));
  }

  placeAll({ rows, columns, cells }) {
    const { clientWidth, clientHeight } = this.element;
    const gap = parseFloat(getComputedStyle(this.element).columnGap) || 0;
    const share = (length, parts) => Math.floor((length - gap * (parts - 1)) / parts);
    this.scaleAlike(share(clientWidth, columns), share(clientHeight, rows));
    this.grid(`repeat(${rows}, minmax(0, 1fr))`, `repeat(${columns}, minmax(0, 1fr))`);
    for (const [image, [row, column]] of cells) this.cells.get(image).style.gridArea = `${row + 1} / ${column + 1}`;
  }

  /** Fits the images of a study at one scale, so that left and right can be compared; each leans on its chest wall. */
  scaleAlike(width, height) {
    const opened = [...this.views.values()].filter((view) => view.source);
    const known = opened.every((view) => view.spacing);
    const fits = opened.map(({ camera, spacing, ratio }) => {
      return (Math.min(width / camera.columns, height / camera.rows) * ratio) / (known ? spacing : 1);
    });
    for (const view of opened) this.fitted(view, Math.min(...fits) * (known ? view.spacing : 1), view.wall);
  }

  fitted(view, limit, align) {
    Object.assign(view.camera, { fitLimit: limit, align });
    if (view.camera.fitted) view.fit();
  }

  /** The others stand in a strip: on the left of a wide area, above in a tall one. */
  placeOne(wide) {
    for (const view of this.views.values()) this.fitted(view, Infinity, view === this.view ? "centre" : view.wall);
    const others = this.order.filter((image) => image !== this.selected);
    const strip = `repeat(${others.length}, minmax(0, 1fr))`;
    const sizes = "minmax(0, 1fr) minmax(0, 5fr)";
    this.grid(wide ? strip : sizes, wide ? sizes : strip);
    const at = (n) => (wide ? `${n + 1} / 1` : `1 / ${n + 1}`);
    others.forEach((image, n) => (this.cells.get(image).style.gridArea = at(n)));
    this.cells.get(this.selected).style.gridArea = wide ? "1 / 2 / -1 / 3" : "2 / 1 / 3 / -1";
  }

  grid(rows, columns) {
    const { style } = this.element;
    style.gridTemplateRows = rows;
    style.gridTemplateColumns = columns;
  }

  clear() {
    for (const view of this.views.values()) view.destroy();
    this.views.clear();
    this.cells.clear();
    this.linked = null;
    this.order = [];
    this.hung = [];
    this.selected = null;
    this.element.replaceChildren();
  }

  /** Lets go of everything. */
  destroy() {
    this.clear();
    this.resizes.disconnect();
    this.stop.abort();
    this.element.classList.remove("hanging");
  }
}

async function fetchInfo(base, image) {
  const answer = await fetch(`${base}/images/${encodeURIComponent(image)}`, { credentials: "same-origin" });
  if (!answer.ok) throw new Error(`the server answered ${answer.status} for the image`);
  return answer.json();
}
