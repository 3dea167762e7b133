/**
 * Mouse, pen and fingers on a picture. One pointer is a drag, two fingers pan and zoom, the wheel zooms at the pointer.
 *
 * Places are device pixels [sx, sy] from the top left of the canvas.
 */

const WHEEL = 0.0016; // of the logarithm of the zoom per pixel that the wheel turned
const PINCH = 0.01; // the same for the finer steps that a trackpad's pinch (ctrl + wheel) is told in
const LINE = 16; // pixels of one line, for wheels that count in lines

/**
 * Listens on `canvas` and tells `target`:
 * press(place, event) -> {move(place, event), end(place), cancel()} or null, hover(place or null), zoom(factor, place),
 * pan(dx, dy), double(place).
 */
export class Gestures {
  constructor(canvas, target) {
    this.canvas = canvas;
    this.target = target;
    this.fingers = new Map(); // pointerId -> place
    this.drag = null;
    this.dragger = null;
    this.stop = new AbortController();
    const { signal } = this.stop;
    const on = (name, handler, options = {}) => canvas.addEventListener(name, handler, { signal, ...options });
    on("pointerdown", (event) => this.down(event));
    on("pointermove", (event) => this.move(event));
    on("pointerup", (event) => this.up(event));
    on("pointercancel", (event) => this.cancel(event));
    on("pointerleave", () => this.drag || target.hover(null));
    on("dblclick", (event) => target.double(this.place(event)));
    on("contextmenu", (event) => event.preventDefault());
    on("auxclick", (event) => event.preventDefault());
    on("wheel", (event) => this.wheel(event), { passive: false });
  }

  /** Device pixels of an event's place. */
  place(event) {
    const frame = this.canvas.getBoundingClientRect();
    return [
      ((event.clientX - frame.left) * this.canvas.width) / frame.width,
      ((event.clientY - frame.top) * this.canvas.height) / frame.height,
    ];
  }

  down(event) {
    const place = this.place(event);
    this.canvas.setPointerCapture(event.pointerId);
    if (event.button === 1) event.preventDefault(); // no autoscroll
    if (event.pointerType === "touch") this.fingers.set(event.pointerId, place);
    if (this.fingers.size > 1) {
      this.drag?.cancel();
      this.drag = null;
      return;
    }
    if (this.drag) return;
    this.dragger = event.pointerId;
    this.drag = this.target.press(place, event);
  }

  move(event) {
    const place = this.place(event);
    if (this.fingers.has(event.pointerId)) {
      if (this.fingers.size === 2) this.pinch(event.pointerId, place);
      this.fingers.set(event.pointerId, place);
    }
    if (this.drag && event.pointerId === this.dragger) this.drag.move(place, event);
    if (this.fingers.size < 2) this.target.hover(place);
  }

  pinch(moved, place) {
    const before = this.fingers.get(moved);
    const [still] = [...this.fingers].filter(([id]) => id !== moved).map(([, other]) => other);
    const middle = [(place[0] + still[0]) / 2, (place[1] + still[1]) / 2];
    this.target.pan((place[0] - before[0]) / 2, (place[1] - before[1]) / 2);
    const apart = Math.hypot(before[0] - still[0], before[1] - still[1]);
    if (apart > 0) this.target.zoom(Math.hypot(place[0] - still[0], place[1] - still[1]) / apart, middle);
  }

  up(event) {
    this.fingers.delete(event.pointerId);
    if (this.drag && event.pointerId === this.dragger) {
      const { drag } = this;
      this.drag = null;
      drag.end(this.place(event));
    }
  }

  cancel(event) {
    this.fingers.delete(event.pointerId);
    if (this.drag && event.pointerId === this.dragger) this.abandon();
  }

  /** Gives up the drag under way; returns whether there was one. */
  abandon() {
    const { drag } = this;
    this.drag = null;
    drag?.cancel();
    return drag !== null;
  }

  wheel(event) {
    event.preventDefault();
    const turned = event.deltaY * (event.deltaMode === 1 ? LINE : 1);
    const held = Math.max(-240, Math.min(240, turned));
    this.target.zoom(Math.exp(-held * (event.ctrlKey && Math.abs(turned) < 50 ? PINCH : WHEEL)), this.place(event));
  }

  /** Stops listening. */
  destroy() {
    this.abandon();
    this.stop.abort();
  }
}
