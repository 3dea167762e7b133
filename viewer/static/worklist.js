/**
 * The worklist: studies with their state, search and order, and the pictures of the one that is pointed at.
 * @module worklist
 */

import { get, isAborted } from "/static/api.js";
import { announce, button, fill, make } from "/static/elements.js";
import { bind } from "/static/keys.js";
import { empty, failed, waiting } from "/static/notices.js";
import { format, fresh } from "/static/state.js";
import { thumb } from "/static/thumbs.js";
import { counted, number, viewName } from "/static/words.js";

const PAGE = 50;
const STATES = [["", "All"], ["new", "New"], ["seen", "Looked at"], ["decided", "Decided"]];
const SORTS = [["", "Most urgent first"], ["date", "Date"], ["woman", "Woman"], ["state", "State"]];
const STATE_WORDS = { new: "new", seen: "looked at", decided: "decided" };
const PAUSE = 250; // ms between the last letter typed and the search

/** The page of all studies. */
export class Worklist {
  /**
   * @param {HTMLElement} element Where it stands.
   * @param {import("/static/state.js").Address} address
   * @param {{names_shown: boolean}} session
   */
  constructor(element, address, session) {
    this._address = address;
    this._session = session;
    this._studies = [];
    this._search = /** @type {HTMLInputElement} */ (make("input", {
      type: "search", id: "search", placeholder: "woman, name or date", "aria-keyshortcuts": "/",
      on: { input: () => this._typed() },
    }));
    this._states = make("div.segments", { role: "group", "aria-label": "State" });
    this._sort = /** @type {HTMLSelectElement} */ (make("select", {
      id: "sort", on: { change: () => address.go({ sort: this._sort.value, offset: 0 }, "another order") },
    }, SORTS.map(([value, label]) => make("option", { value }, label))));
    this._count = make("p.dim", { role: "status" });
    this._table = make("div.scrolling", { tabIndex: -1 });
    this._preview = make("aside.preview", { "aria-label": "Images of the study" });
    this._problems = make("div");
    this._pages = make("nav.pages", { "aria-label": "Pages of the worklist" });
    fill(element,
      make("section.worklist", {},
        make("div.bar", {},
          make("h1", {}, "Worklist"),
          make("label", { for: "search" }, "Search"), this._search,
          this._states,
          make("label", { for: "sort" }, "Order"), this._sort,
          this._count),
        make("div.listing", {}, this._table, this._preview),
        make("div", {}, this._pages, this._problems)));
    this._unbind = bind([
      { group: "Worklist", key: "/", does: "Search", act: () => this._search.focus() },
      { group: "Worklist", key: "j", does: "Next study", act: () => this._step(1) },
      { group: "Worklist", key: "k", does: "Study before", act: () => this._step(-1) },
    ]);
    this.update();
  }

  /** Show what the address says. */
  async update() {
    const { search, state, sort, offset } = this._address.state;
    if (document.activeElement !== this._search) this._search.value = search;
    this._sort.value = SORTS.some(([value]) => value === sort) ? sort : "";
    fill(this._states, STATES.map(([value, label]) =>
      button(label, () => this._address.go({ state: value, offset: 0 }, `only ${label.toLowerCase()}`), { pressed: state === value })));
    this._loading?.abort();
    const loading = (this._loading = new AbortController());
    if (!this._studies.length) fill(this._table, waiting("fetching the worklist"));
    this._table.setAttribute("aria-busy", "true");
    const query = new URLSearchParams({ search, sort: sort || "urgency", offset: String(offset), limit: String(PAGE) });
    if (state) query.set("state", state);
    try {
      const { total, studies, problems } = await get(`/studies?${query}`, { signal: loading.signal });
      this._studies = studies;
      this._count.textContent = counted(total, "study", "studies");
      fill(this._table, studies.length ? this._rows(studies) : this._nothing());
      this._point(studies[0] ?? null);
      this._paging(total, offset);
      fill(this._problems, problems?.length ? make("details.dim", {},
        make("summary", {}, `${counted(problems.length, "file")} could not be read`),
        make("ul", {}, problems.map(({ image, cause }) => make("li", {}, `${image}: ${cause}`)))) : null);
    } catch (error) {
      if (!isAborted(error)) fill(this._table, failed(error, () => this.update()));
    } finally {
      if (loading === this._loading) this._table.removeAttribute("aria-busy");
    }
  }

  /** Leave the page. */
  destroy() {
    this._unbind();
    this._loading?.abort();
    this._looking?.abort();
    clearTimeout(this._timer);
  }

  _typed() {
    clearTimeout(this._timer);
    this._timer = setTimeout(() => this._address.go({ search: this._search.value.trim(), offset: 0 }), PAUSE);
  }

  _nothing() {
    const { search, state } = this._address.state;
    return search || state
      ? empty("No study fits this search.", button("Show all", () => {
        this._search.value = "";
        this._address.go({ search: "", state: "", offset: 0 }, "show all");
      }))
      : empty("There is no image to read: start the server with --images FOLDER.");
  }

  /** @param {any[]} studies */
  _rows(studies) {
    const named = this._session.names_shown;
    const head = ["Woman", named ? "Name" : null, "Date", "Age", "Images", "Detections", "State", "Said"].filter(Boolean);
    return make("table", {},
      make("caption.hidden", {}, "Studies"),
      make("thead", {}, make("tr", {}, head.map((text) => make("th", { scope: "col" }, text)))),
      make("tbody", {}, studies.map((study) => this._row(study, named))));
  }

  /**
   * @param {any} study
   * @param {boolean} named
   */
  _row(study, named) {
    const link = make("a", {
      href: format(fresh({ page: "study", study: study.study })),
      on: { focus: () => this._point(study) },
    }, study.woman);
    const row = make("tr", {
      on: { pointerenter: () => this._point(study), click: (event) => event.target.closest("a") ?? link.click() },
    },
    make("th", { scope: "row" }, link),
    named ? make("td.name", {}, study.name ?? "") : null,
    make("td", {}, study.date ?? "–"),
    make("td", {}, number(study.age)),
    make("td.views", {}, study.images.map(viewName).join(" · ")),
    make("td", {}, study.detections ? counted(study.detections, "detection") : "–",
      typeof study.urgency === "number" ? make("span.dim", {}, `urgency ${number(study.urgency, 2)}`) : null),
    make("td", {}, make(`span.state.${study.state}`, {}, STATE_WORDS[study.state] ?? study.state)),
    make("td", {}, study.verdicts ? counted(study.verdicts, "verdict") : "–"));
    row.dataset.study = study.study;
    return row;
  }

  /** @param {any|null} study Whose pictures are shown; null for none. */
  _point(study) {
    if (study && this._pointed === study.study && this._preview.firstChild) return;
    this._pointed = study?.study ?? null;
    this._looking?.abort();
    const looking = (this._looking = new AbortController());
    for (const row of this._table.querySelectorAll("tbody tr")) row.classList.toggle("pointed", row.dataset.study === this._pointed);
    if (!study) {
      fill(this._preview);
      return;
    }
    fill(this._preview,
      make("h2", {}, study.woman),
      make("div.hung", {}, hung(study.images).map((image) =>
        make("figure", {}, thumb(image, looking.signal), make("figcaption", {}, viewName(image))))));
  }

  /** @param {number} by */
  _step(by) {
    const links = [...this._table.querySelectorAll("tbody a")];
    const at = links.findIndex((link) => link.closest("tr")?.dataset.study === this._pointed);
    const step = links.includes(/** @type {Element} */ (document.activeElement)) ? by : 0; // the first press goes to where it points
    const next = links[Math.min(Math.max(at + step, 0), links.length - 1)];
    if (next) /** @type {HTMLElement} */ (next).focus();
  }

  /**
   * @param {number} total
   * @param {number} offset
   */
  _paging(total, offset) {
    const to = (at, label) => button(label, () => this._address.go({ offset: at }, "another page"), {
      disabled: at < 0 || at >= total,
    });
    this._pages.hidden = total <= PAGE && offset === 0;
    fill(this._pages, to(offset - PAGE < 0 && offset > 0 ? 0 : offset - PAGE, "Before"),
      make("span", {}, `${number(Math.min(offset + 1, total))} to ${number(Math.min(offset + PAGE, total))} of ${number(total)}`),
      to(offset + PAGE, "Next"));
    if (offset) announce(`Studies from ${offset + 1}`);
  }
}

/**
 * Images in the order in which radiologists hang them: right breast at the left, CC above MLO.
 * @param {{view: string|null, laterality: string|null}[]} images
 */
export function hung(images) {
  const place = (image) => (image.view === "CC" ? 0 : 2) + (image.laterality === "L" ? 1 : 0);
  return [...images].sort((one, other) => place(one) - place(other));
}
