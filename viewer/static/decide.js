/**
 * Deciding: BI-RADS, words, accept or reject of a detection; what was said stays, and is undone by a new entry.
 * @module decide
 */

import { download, get, isAborted, post } from "/static/api.js";
import { announce, button, fill, make } from "/static/elements.js";
import { bind } from "/static/keys.js";
import { failed, waiting } from "/static/notices.js";
import { moment } from "/static/words.js";

const BIRADS = [
  ["0", "incomplete: more imaging is needed"],
  ["1", "negative"],
  ["2", "benign"],
  ["3", "probably benign"],
  ["4A", "low suspicion"],
  ["4B", "moderate suspicion"],
  ["4C", "high suspicion"],
  ["5", "highly suggestive of malignancy"],
  ["6", "known malignancy, proven by biopsy"],
];

/**
 * @typedef {object} Context What a verdict is about, and what was seen before it.
 * @property {string} study
 * @property {string|null} image
 * @property {import("/static/state.js").Box|null} box
 * @property {string|null} detection
 * @property {string|null} question_id
 * @property {object|null} question
 */

/** The verdicts of one study. */
export class Decide {
  /**
   * @param {HTMLElement} element
   * @param {string} study
   * @param {function(): Context} contextOf
   * @param {number|undefined} longest Characters that a text may have.
   */
  constructor(element, study, contextOf, longest) {
    this._study = study;
    this._contextOf = contextOf;
    this._entries = [];
    this._key = "";
    this._grades = BIRADS.map(([grade, meaning]) => make("span.grade", { title: `BI-RADS ${grade}: ${meaning}` },
      make("input", { type: "radio", name: "birads", id: `birads-${grade}`, value: grade }),
      make("label", { for: `birads-${grade}` }, grade, make("span.hidden", {}, `: ${meaning}`))));
    this._meaning = make("p.dim.meaning", { role: "status" });
    this._judgement = make("fieldset.judgement", { hidden: true },
      make("legend", {}, "The detection"),
      make("div.choices", {}, [["", "nothing said"], ["accept", "accept"], ["reject", "reject"]].map(([value, label]) =>
        make("span.choice", {},
          make("input", { type: "radio", name: "decision", id: `decision-${value || "none"}`, value, checked: value === "" }),
          make("label", { for: `decision-${value || "none"}` }, label)))));
    this._text = /** @type {HTMLTextAreaElement} */ (make("textarea", { id: "verdict-text", rows: 2, maxlength: longest }));
    this._about = make("p.dim");
    this._says = make("div", {});
    this._form = /** @type {HTMLFormElement} */ (make("form", {
      on: {
        submit: (event) => {
          event.preventDefault();
          this._record();
        },
        change: () => this._graded(),
      },
    },
    make("fieldset.birads", {}, make("legend", {}, "BI-RADS"), this._grades),
    this._meaning, this._judgement,
    make("label", { for: "verdict-text" }, "In your words"), this._text,
    make("div.bar", {}, make("button.primary", { type: "submit", title: "Record (key: Ctrl+Enter)" }, "Record"), this._about, this._says)));
    this._form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && event.ctrlKey) this._form.requestSubmit();
    });
    this._list = make("ol.verdicts", { role: "list", "aria-label": "What was said" });
    this._last = make("span.dim");
    this._details = /** @type {HTMLDetailsElement} */ (make("details.decide", {},
      make("summary", { title: "Decide (key: d)", "aria-keyshortcuts": "d" }, make("b", {}, "Decide"), " ", make("kbd", { "aria-hidden": "true" }, "d"), this._last),
      make("div.decide-body", {}, this._form, make("h3", {}, "What was said"), this._list, make("div.bar", {},
        button("CSV", () => this._download(`/verdicts.csv?study=${encodeURIComponent(study)}`, `verdicts-${study}.csv`), {
          kind: "small", title: "Download what was said as a table",
        }),
        button("DICOM SR", () => this._download(`/studies/${encodeURIComponent(study)}/report.dcm`, `report-${study}.dcm`), {
          kind: "small", title: "Download it as a DICOM structured report",
        }),
        (this._downloadSays = make("div", {}))))));
    fill(element, this._details);
    this._unbind = bind([{ group: "Study", key: "d", does: "Decide", act: () => this._open() }]);
    this.update();
    this._load();
  }

  /** Show what a verdict would be about. */
  update() {
    const { image, box, detection } = this._contextOf();
    this._judgement.hidden = !detection;
    this._about.textContent = detection ? "About the detection that is picked." : box ? "About the box that is drawn."
      : image ? "About this image." : "About the study.";
  }

  /** Leave. */
  destroy() {
    this._unbind();
    this._loading?.abort();
  }

  _open() {
    this._details.open = !this._details.open;
    if (this._details.open) this._form.querySelector("input")?.focus();
  }

  async _load() {
    this._loading?.abort();
    const loading = (this._loading = new AbortController());
    if (!this._entries.length) fill(this._list, make("li", {}, waiting("fetching what was said")));
    try {
      const { verdicts } = await get(`/verdicts?study=${encodeURIComponent(this._study)}`, { signal: loading.signal });
      this._entries = verdicts;
      this._listed();
    } catch (error) {
      if (!isAborted(error)) fill(this._list, make("li", {}, failed(error, () => this._load())));
    }
  }

  _listed() {
    const standing = this._entries.filter((entry) => !entry.undone_by && !entry.undoes);
    const last = standing.at(-1);
    this._last.textContent = last ? ` ${[last.birads ? `BI-RADS ${last.birads}` : null, last.decision ? `${last.decision}ed` : null]
      .filter(Boolean).join(", ") || "note"} by ${last.user}` : " nothing said yet";
    fill(this._list, this._entries.length
      ? [...this._entries].reverse().map((entry) => this._entry(entry))
      : make("li.dim", {}, "Nothing yet."));
  }

  /** @param {any} entry */
  _entry(entry) {
    if (entry.undoes) {
      return make("li.dim", {}, `${moment(entry.time)} · ${entry.user} took back an entry${entry.text ? `: ${entry.text}` : ""}`);
    }
    const said = [
      entry.birads ? `BI-RADS ${entry.birads}` : null,
      entry.decision ? `detection ${entry.decision}ed` : null,
    ].filter(Boolean).join(", ");
    return make(entry.undone_by ? "li.undone" : "li", {},
      make("p", {}, make("b", {}, said || "Note"), entry.undone_by ? make("span", {}, " (taken back)") : null),
      entry.text ? make("p.quoted", {}, entry.text) : null,
      make("p.dim", {}, `${moment(entry.time)} · ${entry.user}`),
      entry.undone_by ? null : button("Take back", () => this._undo(entry), {
        kind: "small", name: `Take back: ${said || "note"} of ${moment(entry.time)}`,
      }));
  }

  _graded() {
    const grade = new FormData(this._form).get("birads");
    const found = BIRADS.find(([one]) => one === grade);
    this._meaning.textContent = found ? `${found[0]}: ${found[1]}` : "";
  }

  async _record() {
    const said = new FormData(this._form);
    const context = this._contextOf();
    const birads = said.get("birads");
    const decision = context.detection ? said.get("decision") : null;
    const text = this._text.value.trim();
    if (!birads && !decision && !text) {
      fill(this._says, make("p.notice.failed", { role: "alert" }, "Say something: a BI-RADS grade, a word, or accept or reject."));
      return;
    }
    await this._send({ ...context, birads: birads || null, decision: decision || null, text, undoes: null }, () => {
      this._form.reset();
      this._graded();
    });
  }

  /** @param {any} entry */
  async _undo(entry) {
    await this._send({
      study: this._study, image: entry.image, box: entry.box, detection: entry.detection, birads: null, decision: null, text: "",
      question_id: null, question: null, undoes: entry.id,
    }, () => {});
  }

  /**
   * Send an entry; sent again after a failure it is written once, for it keeps its key.
   * @param {object} entry
   * @param {function(): void} done
   */
  async _send(entry, done) {
    const content = JSON.stringify(entry);
    if (content !== this._sent) {
      this._sent = content;
      this._key = unique();
    }
    fill(this._says, waiting("recording"));
    try {
      const kept = await post("/verdicts", { ...entry, key: this._key });
      this._sent = "";
      done();
      fill(this._says, make("p.dim", { role: "status" }, `Recorded ${moment(kept?.time)}.`));
      announce("Recorded");
      await this._load();
    } catch (error) {
      fill(this._says, failed(error, () => this._send(entry, done)));
    }
  }

  /**
   * @param {string} path
   * @param {string} name
   */
  async _download(path, name) {
    fill(this._downloadSays, waiting("writing the file"));
    try {
      await download(path, name);
      fill(this._downloadSays);
    } catch (error) {
      fill(this._downloadSays, failed(error));
    }
  }
}

/** A key that nobody else makes; `crypto.randomUUID` is missing on pages that came without TLS. */
function unique() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
