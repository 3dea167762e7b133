/**
 * What became of the similar cases, counted: hidden until a reader asks, and then said in sentences with their support.
 * @module opinion
 */

import { isAborted } from "/static/api.js";
import { announce, button, fill, make } from "/static/elements.js";
import { failed, waiting } from "/static/notices.js";
import { Asker } from "/static/question.js";
import { capital, OUTCOME_ORDER, outcomeForm, outcomeWord } from "/static/words.js";

const MOST_FORMS = 30;

/** The opinion on one question. */
export class Opinion {
  /**
   * @param {HTMLElement} element
   * @param {boolean} hidden Whether it waits until it is asked for.
   */
  constructor(element, hidden) {
    this._element = element;
    this._hidden = hidden;
    this._asker = new Asker((text) => fill(this._element, waiting(text)), "counting what became of them");
    this._body = null;
  }

  /**
   * Another question: what was said of the last one goes.
   * @param {object|null} body
   */
  set(body) {
    this._asker.stop();
    this._body = body;
    this._element.hidden = body === null;
    if (body === null) fill(this._element);
    else if (this._hidden) this._offer();
    else this.reveal();
  }

  /** Ask for it. The server writes down that it was asked for. */
  async reveal() {
    const body = this._body;
    if (!body) return;
    fill(this._element, waiting("counting what became of them"));
    this._element.scrollIntoView({ block: "nearest" });
    try {
      const opinion = await this._asker.ask("/opinion", body);
      if (body !== this._body) return;
      this._show(opinion);
    } catch (error) {
      if (!isAborted(error)) fill(this._element, failed(error, () => this.reveal()));
    }
  }

  _offer() {
    fill(this._element,
      button("Show how they turned out, counted", () => this.reveal(), { key: "o", title: "Show the vote and its support" }),
      make("p.dim", {}, "Look first: a shown verdict draws the eye. That you ask is recorded."));
  }

  /** @param {any} opinion */
  _show(opinion) {
    const sentences = opinion.sentences ?? [];
    fill(this._element,
      make("h3", { tabIndex: -1 }, "How they turned out"),
      (opinion.targets ?? []).map((target) => tally(target)),
      sentences.length
        ? make("ul.sentences", {}, sentences.map((sentence) => make("li", {}, capital(sentence.replace(/^\w+(?=:)/, plain)))))
        : make("p", {}, "Nothing is known that could be counted."),
      (opinion.targets ?? []).some((target) => target.basis) ? make("details.basis", {},
        make("summary", {}, "What it rests on"),
        make("dl", {}, opinion.targets.filter((target) => target.basis).map((target) =>
          [make("dt", {}, capital(plain(target.target))), make("dd", {}, capital(target.basis))]))) : null,
      this._hidden ? button("Hide again", () => this._offer(), { kind: "small" }) : null);
    this._element.scrollIntoView({ block: "nearest" });
    announce(sentences.join(". "));
  }
}

/** @param {string} name Of a column. */
function plain(name) {
  return name.replaceAll("_", " ");
}

/**
 * The counted outcomes as forms, one for each neighbour, for the eye; the sentences say the same.
 * @param {any} target
 */
function tally(target) {
  const counts = target.vote?.counts;
  if (!counts || target.target !== "pathology") return null;
  const listed = [...OUTCOME_ORDER, ...Object.keys(counts).filter((name) => !OUTCOME_ORDER.includes(name))];
  const forms = listed.flatMap((name) => Array.from({ length: counts[name] ?? 0 }, () => name));
  if (!forms.length || forms.length > MOST_FORMS) return null;
  const said = listed.filter((name) => counts[name]).map((name) => `${counts[name]} ${outcomeWord(name)}`).join(", ");
  return make("p.tally", { role: "img", "aria-label": said }, forms.map((name) => outcomeForm(name)));
}
