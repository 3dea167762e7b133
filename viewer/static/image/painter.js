/**
 * Draws a picture's tiles as a camera sees them. Where a tile is missing, or its greys are not yet those of the window,
 * the same place of a coarser tile is drawn, so that nothing is ever blank once the coarsest level is here.
 */

const MOST_TILES = 110; // of one level in one view; beyond that a coarser level is drawn
const SMOOTH_UP_TO = 2; // device pixels per tile pixel; beyond that single pixels are shown as squares

let pace = 150_000; // pixels turned into greys per millisecond, learnt while drawing

/**
 * Index of the level to draw: fine enough for the screen (`enough` device pixels for one of its pixels, if given),
 * coarse enough to be turned into greys within `milliseconds`.
 */
export function chooseLevel(source, camera, { milliseconds = Infinity, enough = undefined } = {}) {
  let index = source.levelFor(camera.zoom, enough);
  const { x0, y0, x1, y1 } = camera.visible;
  for (; index < source.coarsest; index++) {
    const { scale } = source.levels[index];
    const pixels = ((x1 - x0) / scale) * ((y1 - y0) / scale);
    const tiles = source.covering(index, camera.visible).length;
    if (tiles <= MOST_TILES && pixels <= pace * milliseconds) break;
  }
  return index;
}

/**
 * Draws what `camera` sees into the top left camera.width × camera.height pixels of `context` (under its translation).
 *
 * @param {object} how index: the level; milliseconds: how long values may be turned into greys; smooth: false where
 * speed matters more than looks; last: what the call before returned, if nothing but the tiles has changed since, so
 * that only what is new is drawn.
 * @returns {object} based: something is drawn everywhere; stale: some tiles still have to be turned into greys (draw
 * again); missing: some are still to come; shown: Map tile -> the tile whose pixels stand there; fresh: screen
 * rectangles [left, top, width, height] that were drawn.
 */
export function paint(context, camera, source, greys, { index, milliseconds, smooth = true, last = null }) {
  const end = performance.now() + milliseconds;
  const result = { based: true, stale: false, missing: false, shown: new Map(), fresh: [] };
  context.save();
  if (!last && !fills(camera)) background(context, camera);
  if (camera.flip) {
    context.translate(camera.width, 0);
    context.scale(-1, 1);
  }
  for (const tile of source.covering(index, camera.visible)) {
    const stand = bestStand(tile, source, greys, end);
    if (stand !== tile && tile.values) result.stale = true;
    else if (stand !== tile && !tile.failed) result.missing = true;
    if (!stand) result.based = false;
    result.shown.set(tile, stand);
    if (stand && last?.shown.get(tile) !== stand) result.fresh.push(draw(context, camera, tile, stand, smooth));
  }
  context.restore();
  return result;
}

/** The tile itself if its greys are right, else the finest coarser one whose greys are; null where there is none. */
function bestStand(tile, source, greys, end) {
  let stand = tile;
  while (stand && !ready(stand, greys, stand.index === source.coarsest ? Infinity : end)) stand = source.parent(stand);
  return stand;
}

/** Whether the tile's greys are right, making them so if the time allows. */
function ready(tile, greys, end) {
  if (!tile.values) return false;
  if (tile.isFresh(greys)) {
    tile.touch();
    return true;
  }
  const start = performance.now();
  if (start > end) return false;
  tile.refresh(greys);
  const spent = performance.now() - start;
  if (spent > 0.2) pace += (tile.values.length / spent - pace) / 16;
  return true;
}

function fills(camera) {
  const { left, top, right, bottom } = camera.boxToScreen([0, 0, camera.columns, camera.rows]);
  return left <= 0 && top <= 0 && right >= camera.width && bottom >= camera.height;
}

function background(context, camera) {
  context.fillStyle = "#000";
  context.fillRect(0, 0, camera.width, camera.height);
}

/** Draws the place of `tile` with the pixels of `stand`, itself or a coarser one; returns the rectangle drawn. */
function draw(context, camera, tile, stand, smooth) {
  const x = (stored) => Math.round(camera.width / 2 + (stored - camera.x) * camera.zoom);
  const y = (stored) => Math.round(camera.height / 2 + (stored - camera.y) * camera.zoom);
  const x1 = tile === stand ? tile.x0 + tile.columns * tile.scale : Math.min(camera.columns, tile.x0 + tile.reach);
  const y1 = tile === stand ? tile.y0 + tile.rows * tile.scale : Math.min(camera.rows, tile.y0 + tile.reach);
  const [left, top] = [x(tile.x0), y(tile.y0)];
  const [width, height] = [x(x1) - left, y(y1) - top];
  const size = camera.zoom * stand.scale;
  context.imageSmoothingEnabled = smooth && size !== 1 && (size <= SMOOTH_UP_TO || tile !== stand);
  context.drawImage(
    stand.canvas,
    (tile.x0 - stand.x0) / stand.scale,
    (tile.y0 - stand.y0) / stand.scale,
    (x1 - tile.x0) / stand.scale,
    (y1 - tile.y0) / stand.scale,
    left,
    top,
    width,
    height,
  );
  return [camera.flip ? camera.width - left - width : left, top, width, height];
}
