/** Views that zoom and window together. */

/** Links two views; returns a function that unlinks them. */
export function link(one, other) {
  one.links.add(other);
  other.links.add(one);
  return () => {
    one.links.delete(other);
    other.links.delete(one);
  };
}

/** Tells every view that `leader` reaches over links, once each, what changed: "zoom" or "window". */
export function spread(leader, what) {
  const reached = new Set([leader]);
  const ahead = [...leader.links];
  while (ahead.length) {
    const view = ahead.pop();
    if (reached.has(view)) continue;
    reached.add(view);
    view.follow(leader, what);
    ahead.push(...view.links);
  }
}

/** Ends all links of a view. */
export function unlinkAll(view) {
  for (const other of view.links) other.links.delete(view);
  view.links.clear();
}
