/**
 * The page: who is logged in, which view the address names, and what all views share.
 * @module app
 */

import { get, post } from "/static/api.js";
import { Collection } from "/static/collection.js";
import { announce, button, fill, make } from "/static/elements.js";
import { bind, listen, openHelp } from "/static/keys.js";
import { failed, waiting } from "/static/notices.js";
import { Address, format } from "/static/state.js";
import { Study } from "/static/study.js";
import { counted } from "/static/words.js";
import { Worklist } from "/static/worklist.js";

const TITLES = { worklist: "Worklist", study: "Study", collection: "Collection" };

const main = /** @type {HTMLElement} */ (document.getElementById("main"));
const head = /** @type {HTMLElement} */ (document.getElementById("head"));
const address = new Address();
let session = null;
let view = null;
let shown = "";

window.addEventListener("loggedout", () => {
  // The fragment stays a fragment, so that a question is not sent along.
  location.assign(`/login.html#${encodeURIComponent(location.hash)}`);
});

// The fragment is the state: the skip link must not put its own in the place.
document.getElementById("skip")?.addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

/** Ask who we are, then show what the address says. */
async function start() {
  fill(main, waiting("opening the page"));
  try {
    session = await get("/session");
  } catch (error) {
    if (error.status !== 401) fill(main, failed(error, start));
    return;
  }
  document.title = "mammoseek";
  drawHead();
  address.addEventListener("change", show);
  show();
}

function show() {
  const { page, study } = address.state;
  const key = page === "study" ? `study/${study}` : page;
  for (const link of head.querySelectorAll("nav a")) {
    if (link.dataset.page === page) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (key === shown) {
    view.update();
    return;
  }
  const first = shown === "";
  view?.destroy();
  shown = key;
  document.title = `${TITLES[page]} – mammoseek`;
  fill(main);
  main.className = page;
  if (page === "study") view = new Study(main, address, session);
  else if (page === "collection") view = new Collection(main, session);
  else view = new Worklist(main, address, session);
  if (!first) {
    main.focus();
    announce(TITLES[page]);
  }
}

function drawHead() {
  const link = (page, label, key) => make("a", {
    href: format({ ...address.state, page, search: "", state: "", sort: "", offset: 0 }), data: { page },
    title: `${label} (key: ${key})`, "aria-keyshortcuts": key,
  }, label);
  const gallery = session.gallery ?? {};
  fill(head,
    make("b.brand", {}, "mammoseek"),
    make("nav", { "aria-label": "Pages" },
      link("worklist", "Worklist", "u"),
      session.role === "curator" ? link("collection", "Collection", "Shift+c") : null,
      make("a", { href: "/api" }, "API")),
    make("span.dim.gallery", {}, `${counted(gallery.rows ?? 0, gallery.granularity === "breast" ? "breast image" : "finding")} of ${
      counted(gallery.women ?? 0, "woman", "women")}`),
    make("span.dim.research", {}, "Research software, not a medical device"),
    make("span.user", {}, session.user),
    button("Keys", openHelp, { key: "?", kind: "small" }),
    !session.can_log_out ? null : button("Log out", logout, { kind: "small" }));
  bind([
    { group: "Everywhere", key: "?", does: "This list", act: openHelp },
    { group: "Everywhere", key: "u", does: "Worklist", act: () => { location.hash = "#/worklist"; } },
    ...(session.role === "curator"
      ? [{ group: "Everywhere", key: "Shift+c", does: "Collection", act: () => { location.hash = "#/collection"; } }] : []),
  ]);
}

async function logout() {
  try {
    await post("/logout", {});
  } finally {
    location.assign("/login.html");
  }
}

listen();
start();
