/**
 * Elements of the page, made without a line of HTML from data: text is always set as text.
 * @module elements
 */

/** @typedef {Node | string | number | null | undefined | false} Child */

const SVG = "http://www.w3.org/2000/svg";

/**
 * Make an element.
 * @param {string} tag Its name, with classes after dots as in `p.note.small`.
 * @param {Object<string, *>} [properties] `on` holds listeners, `data` data attributes; a name with a hyphen, `role`,
 *     `for` and `colspan` are attributes, anything else is a property. Null and undefined leave one out.
 * @param {...(Child|Child[])} children
 * @returns {HTMLElement}
 */
export function make(tag, properties = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (key === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (key === "data") Object.assign(element.dataset, value);
    else if (key.includes("-") || ATTRIBUTES.has(key)) element.setAttribute(key, String(value));
    else element[key] = value;
  }
  element.append(...present(children));
  return element;
}

const ATTRIBUTES = new Set(["role", "for", "colspan", "scope", "list", "maxlength", "download"]);

/**
 * Make an SVG element with plain attributes.
 * @param {string} tag
 * @param {Object<string, string|number>} [attributes]
 * @param {...(Child|Child[])} children
 * @returns {SVGElement}
 */
export function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  element.append(...present(children));
  return element;
}

/**
 * Put children in the place of what an element holds.
 * @param {Element} element
 * @param {...(Child|Child[])} children
 */
export function fill(element, ...children) {
  element.replaceChildren(...present(children));
}

/**
 * A button that says its key.
 * @param {string} label What it says.
 * @param {function(MouseEvent): void} press What it does.
 * @param {{key?: string, title?: string, kind?: string, pressed?: boolean, disabled?: boolean, name?: string}} [how]
 *     `key` as in `keys.js`; `kind` a class; `name` what a screen reader says in the label's place.
 * @returns {HTMLButtonElement}
 */
export function button(label, press, how = {}) {
  const made = make("button", {
    type: "button",
    className: how.kind ?? "",
    disabled: how.disabled ?? false,
    title: tip(how.title ?? how.name ?? label, how.key),
    "aria-label": how.name,
    "aria-pressed": how.pressed === undefined ? null : how.pressed,
    "aria-keyshortcuts": how.key,
    on: { click: press },
  }, make("span", {}, label));
  if (how.key) made.append(make("kbd", { "aria-hidden": "true" }, how.key.replace("Escape", "Esc")));
  return /** @type {HTMLButtonElement} */ (made);
}

/**
 * What a tooltip says: what a thing does, and its key.
 * @param {string} text
 * @param {string} [key]
 */
export function tip(text, key) {
  return key ? `${text} (key: ${key})` : text;
}

/**
 * Say whether a toggle is on.
 * @param {HTMLElement} element
 * @param {boolean} on
 */
export function press(element, on) {
  element.setAttribute("aria-pressed", String(on));
}

/**
 * Say something to a screen reader without moving the focus.
 * @param {string} text
 */
export function announce(text) {
  const region = document.getElementById("announcer");
  if (region) region.textContent = text;
}

/** @param {(Child|Child[])[]} children */
function present(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}
