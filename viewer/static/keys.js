/**
 * Keys: who wants which, when they count, and the help that lists them.
 * @module keys
 */

import { button, fill, make } from "/static/elements.js";
import { setting, keep } from "/static/settings.js";

/**
 * @typedef {object} Binding
 * @property {string} group Under which heading the help lists it.
 * @property {string} key What is pressed, as `KeyboardEvent.key` says it, with `Shift+` for a capital.
 * @property {string} does What it does, in words.
 * @property {function(KeyboardEvent): void} act
 * @property {function(): boolean} [when] Whether it counts now; always, if left out.
 */

/** @type {Binding[]} */
const bindings = [];

/** Keys that other parts listen to themselves, for the help alone. */
const ELSEWHERE = [
  { group: "On a picture that has the focus", key: "Arrow keys", does: "Move the picture" },
  { group: "On a picture that has the focus", key: "+ −", does: "Zoom" },
];

/**
 * Add keys.
 * @param {Binding[]} added
 * @returns {function(): void} Takes them away again.
 */
export function bind(added) {
  bindings.push(...added);
  return () => {
    for (const binding of added) bindings.splice(bindings.indexOf(binding), 1);
  };
}

/** Listen to the keyboard. Single letters can be switched off, for those who speak to their computer (WCAG 2.1.4). */
export function listen() {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]") || isTyping(event.target)) return;
    if (event.key.length === 1 && setting("letters") === "off") return;
    const name = event.shiftKey && /^[A-Z]$/.test(event.key) ? `Shift+${event.key.toLowerCase()}` : event.key;
    const found = bindings.findLast((binding) => binding.key === name && (binding.when?.() ?? true));
    if (!found) return;
    event.preventDefault();
    found.act(event);
  });
}

/** Open the list of keys. */
export function openHelp() {
  const dialog = /** @type {HTMLDialogElement} */ (document.getElementById("help"));
  const groups = grouped([...bindings, ...ELSEWHERE]);
  const letters = make("input", {
    type: "checkbox",
    id: "letters",
    checked: setting("letters") !== "off",
    on: { change: (event) => keep("letters", event.target.checked ? "on" : "off") },
  });
  fill(
    dialog,
    make("h2", { id: "help-title" }, "Keys"),
    make("p.switch", {}, letters, make("label", { for: "letters" }, "Single letters and digits are keys")),
    make("div.key-groups", {}, [...groups].map(([group, members]) =>
      make("section", {},
        make("h3", {}, group),
        make("dl.keys", {}, members.map((binding) => [
          make("dt", {}, make("kbd", {}, spoken(binding.key))),
          make("dd", {}, binding.does),
        ])),
      ))),
    make("p.dim", {}, "Every button that has a key shows it. The question stands in the address bar: send it to a colleague, "
      + "and she gets the same answer. mammoseek is research software, not a medical device."),
    button("Close", () => dialog.close(), { kind: "primary", title: "Close (Esc)" }),
  );
  dialog.setAttribute("aria-labelledby", "help-title");
  dialog.showModal();
}

/** @param {EventTarget|null} target */
function isTyping(target) {
  if (!(target instanceof HTMLElement)) return false;
  if (target instanceof HTMLInputElement) return !["checkbox", "button", "submit"].includes(target.type);
  return target.matches("textarea, select") || target.isContentEditable;
}

/** @param {string} key */
function spoken(key) {
  return { Escape: "Esc", ArrowLeft: "←", ArrowRight: "→", Enter: "Enter" }[key] ?? key;
}

/** @param {{group: string}[]} members */
function grouped(members) {
  const found = new Map();
  for (const member of members) found.set(member.group, [...(found.get(member.group) ?? []), member]);
  return found;
}
