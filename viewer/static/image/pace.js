/**
 * Keeps a picture under the hand fluent: how much work a frame may take, and when looks give way to speed.
 */

const BUDGET = { busy: 7, still: 24 }; // milliseconds of one frame for turning values into greys
const SLOW = 22; // milliseconds between frames beyond which a changing picture is drawn roughly: coarser, unsmoothed
const SLOW_FOR = 5000; // milliseconds until smoothing is tried again
const ROUGH = 2; // device pixels per pixel of the level that is enough while drawn roughly
const REST = { moving: 120, windowing: 180 }; // milliseconds after the last change until the picture rests

/** What one view is doing, and what its frames may cost therefore. */
export class Pace {
  /** @param {function} onRest called when the picture has come to rest. */
  constructor(onRest) {
    this.onRest = onRest;
    this.timers = { moving: 0, windowing: 0 };
    this.mean = 0; // of the milliseconds between frames while busy
    this.wasBusy = false;
    this.slowUntil = 0;
  }

  /** Says that the picture is "moving" or its window is being changed ("windowing"). */
  keep(what) {
    clearTimeout(this.timers[what]);
    this.timers[what] = setTimeout(() => {
      this.timers[what] = 0;
      this.onRest();
    }, REST[what]);
  }

  /** Whether the picture changes under the hand. */
  get busy() {
    return this.timers.moving !== 0 || this.timers.windowing !== 0;
  }

  /** Whether the window is being changed. */
  get windowing() {
    return this.timers.windowing !== 0;
  }

  /** Whether speed matters more than looks just now. */
  get rough() {
    return this.busy && performance.now() < this.slowUntil;
  }

  /** Learns from the milliseconds between two frames whether this machine keeps up. */
  learn(interval) {
    const between = this.wasBusy && this.busy; // else it was a pause that ended
    this.wasBusy = this.busy;
    if (!between) return;
    this.mean += (Math.min(interval, 3 * SLOW) - this.mean) / 8;
    if (this.mean < SLOW || performance.now() < this.slowUntil) return;
    this.slowUntil = performance.now() + SLOW_FOR;
    this.mean = 0;
  }

  /** What a frame may cost: limits for the choice of the level, milliseconds for greys, smoothing or not. */
  get effort() {
    const { rough, windowing } = this;
    const milliseconds = this.busy ? BUDGET.busy : BUDGET.still;
    const limits = { milliseconds: windowing ? milliseconds : Infinity, enough: rough ? ROUGH : undefined };
    return { limits, milliseconds, smooth: !rough };
  }

  /** Forgets what goes on. */
  stop() {
    for (const timer of Object.values(this.timers)) clearTimeout(timer);
    this.timers = { moving: 0, windowing: 0 };
  }
}
