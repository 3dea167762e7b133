/**
 * Looking after the collection: what it holds, what was measured of it, whether it still resembles what it is asked, and
 * which rows a curator should look at.
 * @module collection
 */

import { get, isAborted } from "/static/api.js";
import { button, draw, fill, make } from "/static/elements.js";
import { empty, failed, waiting } from "/static/notices.js";
import { rowPicture } from "/static/question.js";
import { picture } from "/static/strip.js";
import { capital, counted, number, outcomeForm, OUTCOME_ORDER } from "/static/words.js";

const CURATE = [
  ["doubtful", "Doubtful labels", "Their neighbours clearly contradict their label."],
  ["duplicates", "Near-duplicates", "Two rows that are almost the same picture, of women who are not known to be the same."],
  ["atypical", "Atypical cases", "They resemble no other case of the collection."],
];
const SIDE = 160; // pixels of a picture

/** The page of the collection. */
export class Collection {
  /**
   * @param {HTMLElement} element
   * @param {any} session
   */
  constructor(element, session) {
    this._element = element;
    this._session = session;
    this._gone = new AbortController();
    this._crops = [];
    this._pictures = [];
    this._load();
  }

  /** Nothing in the address concerns this page. */
  update() {}

  /** Leave the page. */
  destroy() {
    this._gone.abort();
    for (const crop of this._crops) crop.destroy();
  }

  async _load() {
    fill(this._element, waiting("looking through the collection"));
    try {
      const found = await get("/collection", { signal: this._gone.signal });
      const { gallery, version } = this._session;
      fill(this._element,
        make("h1", {}, "Collection"),
        make("p.dim", {}, `${counted(gallery.rows, "row")} of ${counted(gallery.women, "woman", "women")} · generation ${
          gallery.generation} · model ${gallery.model} · mammoseek ${version}`),
        make("div.sheets", {},
          make("section.sheet", {}, make("h2", {}, "What it holds"), this._counts(found.counts ?? {})),
          make("section.sheet", {}, make("h2", {}, "What was measured of it"), this._scorecard(found.scorecard)),
          make("section.sheet", {}, make("h2", {}, "Does it still fit what it is asked?"), this._drift(found.drift)),
          make("section.sheet.wide", {}, make("h2", {}, "Rows to curate"), this._curate(found.curate ?? {})),
          make("section.sheet.wide", {}, make("h2", {}, "Who asked what"), this._audit())));
      this._crops = this._pictures.map(({ name, frame }) => picture(frame, rowPicture(name, null, SIDE), { label: name }));
    } catch (error) {
      if (!isAborted(error)) fill(this._element, failed(error, () => this._load()));
    }
  }

  /** @param {Object<string, Object<string, number>>} counts */
  _counts(counts) {
    const labels = Object.entries(counts);
    if (!labels.length) return empty("Nothing is known of its rows.");
    return labels.map(([label, values]) => {
      const most = Math.max(...Object.values(values), 1);
      return make("table.bars", {},
        make("caption", {}, capital(label.replaceAll("_", " "))),
        make("tbody", {}, Object.entries(values).map(([value, count]) => {
          const bar = make("span.bar-of");
          bar.style.width = `${(100 * count) / most}%`;
          return make("tr", {},
            make("th", { scope: "row" }, OUTCOME_ORDER.includes(value) ? outcomeForm(value) : null, value),
            make("td.count", {}, number(count)), make("td.bar-cell", { "aria-hidden": "true" }, bar));
        })));
    });
  }

  /** @param {any} scorecard */
  _scorecard(scorecard) {
    if (!scorecard) return empty("No scorecard lies beside this gallery: `mammoseek evaluate` writes one.");
    const rows = scorecard.rows ?? [];
    return [
      scorecard.context ? make("p.dim", {}, scorecard.context) : null,
      make("table", {},
        make("caption.hidden", {}, "Scores with their 95 % intervals"),
        make("thead", {}, make("tr", {}, ["Label", "Score", "Value", "95 % interval"].map((text) => make("th", { scope: "col" }, text)))),
        make("tbody", {}, rows.map((row) => make("tr", {},
          make("th", { scope: "row" }, row.label), make("td", {}, row.metric), make("td", {}, number(row.value, 2)),
          make("td", {}, typeof row.low === "number" ? `${number(row.low, 2)} to ${number(row.high, 2)}` : "–"))))),
    ];
  }

  /** @param {any} drift */
  _drift(drift) {
    const months = drift?.months ?? [];
    if (!months.length) return empty("Nothing was asked yet.");
    return [
      drift.sentence ? make("p", {}, drift.sentence) : null,
      curve(months, drift.gallery?.median),
      make("table", {},
        make("caption.hidden", {}, "Questions by month"),
        make("thead", {}, make("tr", {}, ["Month", "Questions", "Median similarity of the nearest", "Without a close precedent"]
          .map((text) => make("th", { scope: "col" }, text)))),
        make("tbody", {}, months.map((month) => make("tr", {},
          make("th", { scope: "row" }, month.month), make("td", {}, number(month.queries)), make("td", {}, number(month.median, 3)),
          make("td", {}, typeof month.share_without_precedent === "number" ? `${number(100 * month.share_without_precedent)} %` : "–"))),
        typeof drift.gallery?.median === "number" ? make("tr.dim", {},
          make("th", { scope: "row" }, "the gallery's own"), make("td", {}, number(drift.gallery.n)),
          make("td", {}, number(drift.gallery.median, 3)), make("td", {}, "–")) : null)),
    ];
  }

  /** @param {any} curate */
  _curate(curate) {
    return CURATE.map(([name, heading, meaning]) => {
      const rows = curate[name] ?? [];
      return make("section", {},
        make("h3", {}, `${heading} (${number(rows.length)})`),
        make("p.dim", {}, meaning),
        rows.length ? make("ol.cards.curated", { role: "list" }, rows.map((row) => make("li", {}, this._case(row)))) : empty("None."));
    });
  }

  /** @param {any} row */
  _case(row) {
    const names = row.rows ?? [row.row];
    const places = names.map((name) => ({ name, frame: make("div.frame") }));
    this._pictures.push(...places);
    return make("article.card", { "aria-label": names.join(" and ") },
      make("div.frames", {}, places.map(({ frame }) => frame)),
      make("p", {}, names.join(" and ")), make("p.dim", {}, row.reason ?? ""));
  }

  _audit() {
    const place = make("div");
    const ask = async () => {
      fill(place, waiting("verifying the log"));
      try {
        const { entries, intact, head } = await get("/audit", { signal: this._gone.signal });
        fill(place,
          make(intact ? "p" : "p.notice.failed", { role: "status" }, intact
            ? `The chain is intact; its head is ${head}.`
            : "The chain is broken: an entry was changed or taken out. `mammoseek audit verify` names the line."),
          make("table", {},
            make("caption.hidden", {}, "Newest entries"),
            make("thead", {}, make("tr", {}, ["Time", "User", "What"].map((text) => make("th", { scope: "col" }, text)))),
            make("tbody", {}, entries.map((entry) => make("tr", {},
              make("td", {}, entry.time ?? ""), make("td", {}, entry.user ?? ""), make("td", {}, entry.what ?? entry.kind ?? ""))))));
      } catch (error) {
        if (!isAborted(error)) fill(place, failed(error, ask));
      }
    };
    fill(place, button("Verify and show the log", ask));
    return place;
  }
}

/**
 * The months' medians as a line, with the gallery's own as a dashed one. The table below says the same.
 * @param {{month: string, median: number|null}[]} months
 * @param {number|null|undefined} own
 */
function curve(months, own) {
  const known = months.filter((month) => typeof month.median === "number");
  if (known.length < 2) return null;
  const values = [...known.map((month) => month.median), ...(typeof own === "number" ? [own] : [])];
  const low = Math.min(...values) - 0.01;
  const high = Math.max(...values) + 0.01;
  const x = (at) => 10 + (280 * at) / (known.length - 1);
  const y = (value) => 90 - (80 * (value - low)) / (high - low);
  return draw("svg", { class: "curve", viewBox: "0 0 300 100", role: "img", "aria-label": "Median similarity by month, see the table" },
    typeof own === "number" ? draw("path", { class: "own", d: `M10 ${y(own)}H290` }) : null,
    draw("polyline", { points: known.map((month, at) => `${x(at)},${y(month.median)}`).join(" ") }),
    known.map((month, at) => draw("circle", { cx: x(at), cy: y(month.median), r: 3 })));
}
