/**
 * The page of one study: its images, the one that is looked at, the similar findings, the comparison and the verdict.
 * @module study
 */

import { Answers } from "/static/answers.js";
import { get, isAborted, post } from "/static/api.js";
import { Compare } from "/static/compare.js";
import { Decide } from "/static/decide.js";
import { button, fill, make } from "/static/elements.js";
import { bind } from "/static/keys.js";
import { failed, waiting } from "/static/notices.js";
import { ANOTHER_FINDING, comparesBreasts } from "/static/question.js";
import { ALL, Stage } from "/static/stage.js";
import { number, viewName } from "/static/words.js";
import { hung } from "/static/worklist.js";

/** @typedef {import("/static/state.js").Box} Box */

const ONE_STEP = 4000; // ms between two corrections of a box that count as one step
const SAME_PLACE = 0.2; // overlap from which a box that changes is the same question, put more exactly

/** One study. */
export class Study {
  /**
   * @param {HTMLElement} element
   * @param {import("/static/state.js").Address} address
   * @param {any} session
   */
  constructor(element, address, session) {
    this._element = element;
    this._address = address;
    this._session = session;
    this._breasts = comparesBreasts(session);
    this._id = address.state.study;
    this._gone = new AbortController();
    this._seen = new Set();
    this._adding = false;
    this._boxedAt = 0;
    this._unbind = bind([
      { group: "Study", key: "n", does: "Ask with the next detection", act: () => this._nextDetection(1) },
      { group: "Study", key: "Shift+n", does: "Ask with the detection before", act: () => this._nextDetection(-1) },
      ...(this._breasts ? [{ group: "Study", key: "a", does: "Ask about this image", act: () => this._askImage() }] : []),
      { group: "Study", key: "]", does: "Next image", act: () => this._nextImage(1) },
      { group: "Study", key: "[", does: "Image before", act: () => this._nextImage(-1) },
      { group: "Study", key: "Escape", does: "Stop comparing, or adding a view", act: () => this._escape() },
    ]);
    this._load();
  }

  /** Show what the address says. */
  update() {
    if (!this._study) return;
    const state = this._address.state;
    const comparing = Boolean(state.compare) && !this._adding;
    this._page.classList.toggle("asked", state.ask);
    this._stagePlace.hidden = comparing;
    this._comparePlace.hidden = !comparing;
    this._stage.update(this._shown());
    this._noteSeen();
    this._answers.update();
    if (!comparing) {
      this._compare?.destroy();
      this._compare = null;
    } else if (this._compare) {
      this._compare.update();
    } else {
      this._compare = new Compare(this._comparePlace, this._address, () => this._answers.answer, (by) => this._answers.step(by), this._breasts);
    }
    this._decide.update();
  }

  /** Leave the study. */
  destroy() {
    this._unbind();
    this._gone.abort();
    this._stage?.destroy();
    this._compare?.destroy();
    this._answers?.destroy();
    this._decide?.destroy();
  }

  async _load() {
    fill(this._element, waiting("fetching the study"));
    try {
      this._study = await get(`/studies/${encodeURIComponent(this._id)}`, { signal: this._gone.signal });
    } catch (error) {
      if (!isAborted(error)) {
        fill(this._element, failed(error, () => this._load()), make("p", {}, make("a", { href: "#/worklist" }, "Back to the worklist")));
      }
      return;
    }
    this._images = hung(this._study.images);
    this._build();
    this._stage.open(this._shown());
    this.update();
  }

  _build() {
    const study = this._study;
    this._stagePlace = make("div.stage");
    this._comparePlace = make("div.compare", { hidden: true });
    const panel = make("section.answers", { "aria-label": "Similar findings" });
    const decide = make("section.decide-place", { "aria-label": "Decide" });
    this._page = make("div.study", {},
      make("div.looking", {}, this._stagePlace, this._comparePlace),
      make("div.side", {}, panel, decide));
    fill(this._element, this._page);
    const facts = [
      study.name ? study.woman : null, study.date, typeof study.age === "number" ? `age ${number(study.age)}` : null,
    ].filter(Boolean).join(" · ");
    const title = make("h1.who", {}, study.name ?? study.woman, facts ? make("span.dim", {}, ` ${facts}`) : null);
    this._stage = new Stage(this._stagePlace, study, title, {
      box: (image, box) => this._boxed(image, box),
      mark: (image, found) => this._picked(image, found),
      window: (image, { centre, width }) => {
        if (image === this._address.state.image) this._address.go({ wc: centre, ww: width });
      },
      look: (image) => this._look(image),
      active: () => !this._stagePlace.hidden,
    });
    this._answers = new Answers(panel, this._address, this._session, {
      addView: () => this._addView(),
      askImage: () => this._askImage(),
      imageName: (image) => this._nameOf(image),
    });
    this._answers.addEventListener("answer", () => this._compare?.update());
    this._decide = new Decide(decide, this._id, () => this._context(), this._session.limits?.text_characters);
  }

  /** @returns {import("/static/stage.js").Shown} */
  _shown() {
    const state = this._address.state;
    const known = (id) => this._images.some((one) => one.image === id);
    const only = this._images.length === 1 ? this._images[0].image : ALL;
    return {
      look: state.show === ALL || known(state.show) ? state.show : known(state.image) ? state.image : only,
      asked: state.row ? "" : state.image,
      box: state.row ? null : state.box,
      detection: state.detection,
      further: state.further,
      window: state.ww !== null && state.wc !== null ? { centre: state.wc, width: state.ww } : null,
    };
  }

  /** Tell the server which images were large on the screen; all of them, where all are hung. */
  _noteSeen() {
    const { look } = this._shown();
    for (const { image } of this._images) {
      if ((look !== ALL && look !== image) || this._seen.has(image)) continue;
      this._seen.add(image);
      post("/seen", { study: this._id, image }).catch(() => this._seen.delete(image));
    }
  }

  /** @param {string} image */
  _nameOf(image) {
    return viewName(this._images.find((one) => one.image === image) ?? {});
  }

  /** @param {string} id An image to look at, or `ALL`. */
  _look(id) {
    const state = this._address.state;
    const name = id === ALL ? "all images" : this._nameOf(id);
    if (state.ask || id === ALL) {
      this._address.go({ show: id === state.image ? "" : id, compare: this._adding ? state.compare : "" }, `looked at ${name}`);
    } else {
      this._address.go({ image: id, show: "", box: null, detection: "", compare: "", ww: null, wc: null }, `opened ${name}`);
    }
  }

  /**
   * @param {string} image
   * @param {Box|null} box
   */
  _boxed(image, box) {
    const state = this._address.state;
    if (this._breasts && state.ask && image === state.image) {
      this._address.go({ box, detection: "" }, box ? "drew a box" : "took the box away"); // the question is the same
      return;
    }
    if (!box) {
      if (image === state.image) this._address.go({ box: null, detection: "", ask: false, compare: "" }, "took the box away");
      return;
    }
    if (this._adding && image !== state.image) {
      this._stopAdding();
      const others = state.further.filter((one) => one.image !== image);
      this._address.go({ further: [...others, { image, box }], show: "" }, `added ${this._nameOf(image)}`);
      return;
    }
    this._stopAdding();
    const same = image === state.image && state.box !== null && overlap(state.box, box) > SAME_PLACE;
    // What a hand corrects at once, by handles or arrow keys, is one step.
    const correcting = same && this._address.undoable?.endsWith("box") && performance.now() - this._boxedAt < ONE_STEP;
    this._boxedAt = performance.now();
    const label = correcting ? undefined : same ? "changed the box" : "drew a box";
    this._address.go(same ? { box, detection: "", ask: true, compare: "" } : this._another(image, box, ""), label);
  }

  /**
   * @param {string} image
   * @param {{detection: string, box: Box}} found
   */
  _picked(image, found) {
    if (this._adding && image !== this._address.state.image) {
      this._boxed(image, found.box);
      return;
    }
    this._stopAdding();
    this._address.go(this._another(image, found.box, found.detection), "picked a detection");
  }

  /**
   * @param {string} image
   * @param {Box|null} box
   * @param {string} detection
   */
  _another(image, box, detection) {
    const moved = image === this._address.state.image ? {} : { ww: null, wc: null };
    return { ...ANOTHER_FINDING, ...moved, image, box, detection };
  }

  /** Ask about the image that is looked at. */
  _askImage() {
    const image = this._stage.chosen;
    if (image) this._address.go(this._another(image, null, ""), `asked about ${this._nameOf(image)}`);
  }

  /** @param {number} by */
  _nextDetection(by) {
    const all = this._images.flatMap((image) => (image.detections ?? []).map((found) => ({ image: image.image, found })));
    if (!all.length) return;
    const at = all.findIndex(({ found }) => found.detection === this._address.state.detection);
    const next = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : (at + by + all.length) % all.length];
    this._picked(next.image, next.found);
  }

  /** @param {number} by */
  _nextImage(by) {
    const at = this._images.findIndex((image) => image.image === this._shown().look);
    this._look(this._images[at < 0 ? 0 : (at + by + this._images.length) % this._images.length].image);
  }

  _addView() {
    const state = this._address.state;
    const side = this._images.find((image) => image.image === state.image)?.laterality;
    const others = this._images.filter((image) => image.image !== state.image
      && (!side || !image.laterality || image.laterality === side));
    if (!others.length) {
      this._stage.say("This study has no other view of this breast. ", button("Close", () => this._stage.say(), { kind: "small" }));
      return;
    }
    const used = new Set(state.further.map((one) => one.image));
    const next = others.find((image) => !used.has(image.image));
    if (this._breasts) {
      if (next) this._address.go({ further: [...state.further, { image: next.image, box: null }] }, `added ${viewName(next)}`);
      else this._stage.say("All views of this breast are asked with. ", button("Close", () => this._stage.say(), { kind: "small" }));
      return;
    }
    this._adding = true;
    this._look((next ?? others[0]).image);
    this._stage.use("box");
    this._stage.say("Draw a box round the same finding on this view, or pick its detection. ",
      button("Don't add", () => this._escape(), { kind: "small", key: "Escape" }));
  }

  _stopAdding() {
    this._adding = false;
    this._stage.say();
  }

  _escape() {
    if (this._adding) {
      this._stopAdding();
      this._address.go({ show: "" }, "looked back");
    } else if (this._address.state.compare) {
      this._address.go({ compare: "" }, "stopped comparing");
    } else {
      this._stage?.say();
    }
  }

  /** @returns {import("/static/decide.js").Context} */
  _context() {
    const { image, box, detection } = this._address.state;
    const answer = this._answers?.answer;
    return {
      study: this._id,
      image: image || null,
      box,
      detection: detection || null,
      question_id: answer?.question_id ?? null,
      question: answer?.question ?? null,
    };
  }
}

/**
 * The share of two boxes' union that both cover.
 * @param {Box} one
 * @param {Box} other
 */
function overlap(one, other) {
  const width = Math.min(one[2], other[2]) - Math.max(one[0], other[0]);
  const height = Math.min(one[3], other[3]) - Math.max(one[1], other[1]);
  if (width <= 0 || height <= 0) return 0;
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  return (width * height) / (area(one) + area(other) - width * height);
}
