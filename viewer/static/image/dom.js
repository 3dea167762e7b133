/** Small pieces of the document that the pictures are made of. */

/** A new element with a class, attributes and text; data only ever becomes text. */
export function make(name, className, attributes = {}, text = "") {
  const element = document.createElement(name);
  element.className = className;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
}

const FALLBACK = {
  ground: "#101214",
  panel: "#1a1d21",
  ink: "#e8e6e1",
  accent: "#6cc4ff",
  malignant: "#ff9d6b",
  benign: "#7fd1c3",
  normal: "#b7c0cc",
  unknown: "#a9a4b8",
  focus: "#ffd54a",
};

/** The page's colours as a canvas needs them: the custom properties in force at `element`. */
export function colours(element) {
  const style = getComputedStyle(element);
  const entry = ([name, fallback]) => [name, style.getPropertyValue(`--${name}`).trim() || fallback];
  return Object.fromEntries(Object.entries(FALLBACK).map(entry));
}

/** Whether the key event is this key without ctrl, alt or meta. */
export function plain(event) {
  return !event.ctrlKey && !event.altKey && !event.metaKey;
}

/** Screen step [dx, dy] of an arrow key; null for other keys. */
export function arrow(key) {
  return { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key] ?? null;
}
