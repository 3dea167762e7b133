/**
 * Marks on a picture: detections and findings as outlined boxes with numbers, the question's box with its handles.
 * What is selected differs in form (double outline, filled number), not in colour alone.
 */

const CHIP = 18; // CSS pixels: height of a mark's number
const NEAR = 6; // CSS pixels within which an edge counts as hit
const PLAIN = 700; // CSS pixels: the shorter side of a view up to which lines have their plain width

/** What a mark is drawn with: colour by outcome if it has one, else by kind. */
function colourOf(mark, colours) {
  return colours[mark.tone] ?? { detection: colours.accent, query: colours.focus }[mark.kind] ?? colours.ink;
}

/** Lines grow with the view, up to twice: a large display is looked at from further away. */
function penWidth({ width, height }, ratio) {
  return ratio * Math.min(2, Math.max(1, Math.min(width, height) / ratio / PLAIN));
}

/** Traces the mark's outline, or its box where it has none. */
function trace(context, camera, mark) {
  context.beginPath();
  if (mark.outline?.length > 2) {
    for (const [x, y] of mark.outline) context.lineTo(...camera.toScreen(x, y));
    context.closePath();
    return;
  }
  const { left, top, right, bottom } = camera.boxToScreen(mark.box);
  context.rect(left, top, right - left, bottom - top);
}

/** Draws one mark; `number` stands in its chip. */
export function drawMark(context, camera, mark, number, colours, ratio) {
  const colour = colourOf(mark, colours);
  const pen = penWidth(camera, ratio);
  context.save();
  context.lineJoin = "round";
  trace(context, camera, mark);
  context.strokeStyle = "rgb(0 0 0 / 70%)"; // a dark rim, so that the outline is seen on white tissue too
  context.lineWidth = (mark.selected ? 6 : 3.5) * pen;
  context.stroke();
  context.strokeStyle = colour;
  context.lineWidth = (mark.selected ? 2.5 : 1.5) * pen;
  if (mark.kind === "query") context.setLineDash([7 * pen, 4 * pen]);
  context.stroke();
  context.setLineDash([]);
  if (mark.selected) drawCorners(context, camera.boxToScreen(mark.box), colour, pen);
  if (number !== null) drawChip(context, chipPlace(camera, mark, ratio), String(number), mark.selected, colour, ratio);
  context.restore();
}

/** Four brackets outside the box: the sign of a selected mark. */
function drawCorners(context, { left, top, right, bottom }, colour, pen) {
  const [gap, arm] = [6 * pen, 10 * pen];
  context.beginPath();
  for (const [x, sx] of [[left - gap, 1], [right + gap, -1]]) {
    for (const [y, sy] of [[top - gap, 1], [bottom + gap, -1]]) {
      context.moveTo(x + sx * arm, y);
      context.lineTo(x, y);
      context.lineTo(x, y + sy * arm);
    }
  }
  context.strokeStyle = colour;
  context.lineWidth = 3 * pen;
  context.stroke();
}

/** Where the number stands: above the box's left corner, inside the view if it can. */
function chipPlace(camera, mark, ratio) {
  const { left, top, bottom } = camera.boxToScreen(mark.box);
  const rim = (mark.selected ? 12 : 4) * penWidth(camera, ratio);
  const above = top - (CHIP * ratio + rim);
  const below = bottom + rim;
  const roomOnlyAbove = above >= 0 || below + CHIP * ratio > camera.height;
  return [Math.max(2, left - rim / 2), roomOnlyAbove ? Math.max(2, above) : below];
}

function drawChip(context, [x, y], text, selected, colour, ratio) {
  context.font = `600 ${13 * ratio}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const width = Math.max(CHIP * ratio, context.measureText(text).width + 10 * ratio);
  context.beginPath();
  context.roundRect(x, y, width, CHIP * ratio, 3 * ratio);
  context.fillStyle = selected ? colour : "rgb(0 0 0 / 80%)";
  context.fill();
  context.strokeStyle = colour;
  context.lineWidth = 1.5 * ratio;
  context.stroke();
  context.fillStyle = selected ? "#000" : colour;
  context.textAlign = "center";
  context.fillText(text, x + width / 2, y + (CHIP / 2 + 0.5) * ratio);
}

/** The smallest mark under a screen place; null where there is none. */
export function markAt(marks, camera, [sx, sy], ratio) {
  const near = NEAR * ratio;
  const inside = (mark) => {
    const { left, top, right, bottom } = camera.boxToScreen(mark.box);
    const [x, y] = chipPlace(camera, mark, ratio);
    const onChip = sx >= x && sx <= x + 24 * ratio && sy >= y && sy <= y + CHIP * ratio;
    return onChip || (sx >= left - near && sx <= right + near && sy >= top - near && sy <= bottom + near);
  };
  const area = ({ box: [x0, y0, x1, y1] }) => (x1 - x0) * (y1 - y0);
  return marks.filter(inside).sort((a, b) => area(a) - area(b))[0] ?? null;
}

/** Words for a mark, as its button says them. */
export function markWords(mark, number) {
  const kind = { detection: "Detection", query: "Question", finding: "Finding" }[mark.kind] ?? "Mark";
  return `${kind} ${number}${mark.label ? `: ${mark.label}` : ""}`;
}
