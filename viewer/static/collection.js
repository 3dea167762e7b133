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
import { capital, counted, moment, number, outcomeForm, OUTCOME_ORDER, outcomeWord } from "/static/words.js";

/** Parts of what is to be curated: its name, its heading, what it means, and what is said of a row. */
const CURATE = [
  ["doubtful", "Doubtful labels", "The outcomes of their neighbours clearly contradict their own.", doubt],
  ["duplicates", "Near-duplicates", "Rows of two women that are as alike as one picture is to itself.",
    (row) => `similarity ${number(row.similarity, 3)}`],
  ["atypical", "Far from all others", "Rare cases, bad crops, or pictures of another source.",
    (row) => `${outcomeWord(row.outcome)}; nearest other woman ${number(row.similarity, 2)}`],
];
const FIRST = 12; // cases that are shown before more are asked for
const METHODS = { retrieval: "retrieval", knn: "vote", head: "head" };
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
          make("section.sheet.wide", {}, make("h2", {}, "What it holds"), make("div.holdings", {}, this._counts(found.counts ?? {}))),
          make("section.sheet", {}, make("h2", {}, "What was measured of it"), this._scorecard(found.scorecard)),
          make("section.sheet", {}, make("h2", {}, "Does it still fit what it is asked?"), this._drift(found.drift)),
          make("section.sheet.wide", {}, make("h2", {}, "Rows to curate"), this._curate(found.curate ?? {})),
          make("section.sheet.wide", {}, make("h2", {}, "Who asked what"), this._audit())));
      this._fetchPictures();
    } catch (error) {
      if (!isAborted(error)) fill(this._element, failed(error, () => this._load()));
    }
  }

  /** @param {Object<string, Object<string, {rows: number, women: number}>>} counts */
  _counts(counts) {
    const labels = Object.entries(counts);
    if (!labels.length) return empty("Nothing is known of its rows.");
    return labels.map(([label, values]) => {
      const most = Math.max(...Object.values(values).map(({ rows }) => rows), 1);
      return make("table.bars", {},
        make("caption", {}, capital(label.replaceAll("_", " "))),
        make("tbody", {}, Object.entries(values).map(([value, { rows, women }]) => {
          const bar = make("span.bar-of");
          bar.style.width = `${(100 * rows) / most}%`;
          return make("tr", {},
            make("th", { scope: "row" }, OUTCOME_ORDER.includes(value) ? outcomeForm(value) : null, value),
            make("td.count", {}, number(rows)), make("td.dim.women", {}, counted(women, "woman", "women")),
            make("td.bar-cell", { "aria-hidden": "true" }, bar));
        })));
    });
  }

  /** @param {{file: string, content: any}|null} scorecard */
  _scorecard(scorecard) {
    if (!scorecard) return empty("No scorecard lies beside this gallery: `mammoseek evaluate … -o GALLERY/scorecard.json` writes one.");
    const { context = {}, targets = {} } = scorecard.content;
    const rows = Object.entries(targets).flatMap(([label, target]) => Object.keys(METHODS).flatMap((method) =>
      Object.entries(target.scores?.[method] ?? {}).map(([metric, score]) => ({ label, method, metric, score }))));
    if (!rows.length) return empty(`${scorecard.file} holds no scores that this page knows.`);
    return [
      make("p.dim", {}, [
        context.protocol, typeof context.test_women === "number" ? `${counted(context.test_women, "woman", "women")} tested` : null,
      ].filter(Boolean).join("; ")),
      make("table", {},
        make("caption.hidden", {}, "Scores with their 95 % intervals"),
        make("thead", {}, make("tr", {}, ["Label", "By", "Score", "Value", "95 % interval"].map((text) => make("th", { scope: "col" }, text)))),
        make("tbody", {}, rows.map(({ label, method, metric, score }) => make("tr", {},
          make("th", { scope: "row" }, label.replaceAll("_", " ")), make("td", {}, METHODS[method]),
          make("td", {}, metric.replaceAll("_", " ")), make("td", {}, number(score.value, 2)),
          make("td", {}, typeof score.low === "number" ? `${number(score.low, 2)} to ${number(score.high, 2)}` : "–"))))),
    ];
  }

  /** @param {any} drift */
  _drift(drift) {
    const months = drift?.months ?? [];
    if (!months.length) return empty("Nothing was asked yet.");
    return [
      curve(months, drift.gallery?.median),
      make("table", {},
        make("caption.hidden", {}, "Questions by month"),
        make("thead", {}, make("tr", {}, ["Month", "Questions", "Median similarity of the nearest", "Without a close precedent"]
          .map((text) => make("th", { scope: "col" }, text)))),
        make("tbody", {}, months.map((month) => make("tr", {},
          make("th", { scope: "row" }, month.month), make("td", {}, number(month.queries)), make("td", {}, number(month.median, 3)),
          make("td", {}, typeof month.share_without_precedent === "number" ? `${number(100 * month.share_without_precedent)} %` : "–"))),
        typeof drift.gallery?.median === "number" ? make("tr.dim", {},
          make("th", { scope: "row" }, "the gallery's own"), make("td", {}, counted(drift.gallery.women, "woman", "women")),
          make("td", {}, number(drift.gallery.median, 3)), make("td", {}, "–")) : null)),
    ];
  }

  /** @param {any} curate */
  _curate(curate) {
    return CURATE.map(([name, heading, meaning, said]) => {
      const rows = curate[name];
      const place = make("ol.cards.curated", { role: "list" });
      const more = make("div");
      const show = (count) => {
        const shown = (rows ?? []).slice(place.children.length, count);
        place.append(...shown.map((row) => make("li", {}, this._case(row, said(row)))));
        fill(more, count < (rows ?? []).length ? button("Show all", () => {
          show(rows.length);
          this._fetchPictures();
        }, { kind: "small" }) : null);
      };
      show(FIRST);
      return make("section", {},
        make("h3", {}, rows ? `${heading} (${number(rows.length)})` : heading),
        make("p.dim", {}, meaning),
        !rows ? empty("This is still being worked out, or the collection is too large for it.") : rows.length ? [place, more] : empty("None."));
    });
  }

  /**
   * @param {any} row
   * @param {string} said
   */
  _case(row, said) {
    const places = [row.row, row.other].filter(Boolean).map((name) => ({ name, frame: make("div.frame") }));
    this._pictures.push(...places);
    const names = places.map(({ name }) => name).join(" and ");
    return make("article.card", { "aria-label": names },
      make("div.frames", {}, places.map(({ frame }) => frame)), make("p", {}, names), make("p.dim", {}, said));
  }

  /** Fetch the pictures of the cases that stand on the page. */
  _fetchPictures() {
    for (const { name, frame } of this._pictures.splice(0)) {
      this._crops.push(picture(frame, rowPicture(name, null, SIDE), { label: name }));
    }
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
              make("td", {}, moment(entry.time)), make("td", {}, entry.user ?? ""), make("td", {}, entry.action ?? ""))))));
      } catch (error) {
        if (!isAborted(error)) fill(place, failed(error, ask));
      }
    };
    fill(place, button("Verify and show the log", ask));
    return place;
  }
}

/**
 * What contradicts a label.
 * @param {any} row
 */
function doubt(row) {
  const votes = Object.entries(row.neighbours ?? {}).map(([value, count]) => `${count} ${value}`).join(", ");
  return `${row.label}; its neighbours: ${votes || "–"}`;
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
