// What a hand does on a map: point at an image, click it, draw around several; shift-drag to move, wheel to zoom, two fingers for
// both, double click to see all. One finger that drags scrolls the page, as it does everywhere; one that has rested draws.

const STILL = 4, RESTING = 10; // pixels; a mouse that goes no further has clicked, a finger has tapped or rests
const HOLD = 400; // milliseconds that a finger rests before it draws; a long press is 500 for the phones

// Moves a map by pixels.
function pan(target, right, down) {
  const { chart } = target, unit = unitOf(target), [x, y] = chart.middle;
  chart.middle = [x - right / unit, y + down / unit];
}

// Shows `by` times as much of a map; what lies at a place stays there.
function zoom(target, by, [x, y]) {
  const { chart } = target, unit = unitOf(target), away = [(x - target.clientWidth / 2) / unit, (target.clientHeight / 2 - y) / unit];
  chart.middle = chart.middle.map((value, axis) => value + (1 - by) * away[axis]);
  chart.half = chart.half.map((value) => by * value);
}

const apart = (one, two) => Math.hypot(one[0] - two[0], one[1] - two[1]);

// One of two fingers goes from `from` to `to`: what lay under each of them goes with it, as far as a map that does not turn can.
function pinch(target, from, to, other) {
  pan(target, (to[0] - from[0]) / 2, (to[1] - from[1]) / 2);
  zoom(target, apart(from, other) / Math.max(apart(to, other), 1), [(to[0] + other[0]) / 2, (to[1] + other[1]) / 2]);
}

// What the line around images begins with: the place that a finger rests on.
function spot([x, y]) {
  const path = new Path2D();
  path.arc(x, y, 24, 0, 2 * Math.PI);
  return path;
}

// The line that is drawn around images, on a canvas above the map.
function paintLoop(target, path) {
  const { above } = target.chart, ratio = devicePixelRatio || 1, draw = above.getContext("2d");
  above.width = target.clientWidth * ratio;
  above.height = target.clientHeight * ratio;
  if (!path) return;
  draw.scale(ratio, ratio);
  draw.strokeStyle = ink("--ink");
  draw.setLineDash([4, 3]);
  draw.stroke(path);
}

// The canvas of a map and what is done on it; says what was done by the events over, pick, loop and moved.
function begin(target) {
  const canvas = document.createElement("canvas"), above = document.createElement("canvas"), chart = { canvas, above };
  above.className = "above";
  above.setAttribute("aria-hidden", "true");
  canvas.setAttribute("role", "img");
  target.append(canvas, above);
  const say = (name, detail) => target.dispatchEvent(new CustomEvent(name, { detail }));
  const down = new Map(); // where each finger is, or the mouse with its button down
  let from = null, over = null, loop = null;
  const at = (event) => { const box = target.getBoundingClientRect(); return [event.clientX - box.x, event.clientY - box.y]; };
  const change = (work) => { work(); paint(target); say("moved"); };
  const point = (i) => { if (i !== over) say("over", (over = i)); };
  const drop = () => { clearTimeout(from?.hold); from = loop = null; paintLoop(target, null); };
  const rest = (begun) => { begun.resting = true; paintLoop(target, spot(begun.start)); };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, at(event));
    drop();
    if (down.size > 1) return;
    const begun = from = { start: at(event), last: at(event), pan: event.shiftKey, corners: [at(event)] };
    if (event.pointerType !== "mouse") { begun.finger = true; begun.hold = setTimeout(() => rest(begun), HOLD); }
  });
  canvas.addEventListener("pointermove", (event) => {
    const here = at(event), before = down.get(event.pointerId);
    if (before) down.set(event.pointerId, here);
    if (before && down.size === 2) {
      const [other] = [...down].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      return change(() => pinch(target, before, here, other));
    }
    if (!from) return down.size ? undefined : point(under(target, ...here));
    if (from.finger && !from.resting) return apart(here, from.start) >= RESTING ? drop() : undefined; // the page may scroll
    if (from.pan) change(() => pan(target, here[0] - from.last[0], here[1] - from.last[1]));
    else {
      from.corners.push(here);
      loop = new Path2D(`M${from.corners.map((corner) => corner.join(" ")).join("L")}Z`);
      paintLoop(target, loop);
    }
    from.last = here;
  });
  canvas.addEventListener("pointerup", (event) => {
    const begun = from, drawn = loop;
    down.delete(event.pointerId);
    drop();
    if (!begun || begun.pan) return;
    if (begun.corners.some((corner) => apart(corner, begun.start) >= (begun.finger ? RESTING : STILL))) return say("loop", within(target, drawn));
    const i = under(target, ...at(event));
    if (i !== null) say("pick", i);
  });
  canvas.addEventListener("pointercancel", (event) => { down.delete(event.pointerId); drop(); });
  // The page scrolls unless this is told of a finger's way before it has gone far.
  canvas.addEventListener("touchmove", (event) => {
    if (event.cancelable && (event.touches.length > 1 || from?.resting)) event.preventDefault();
  }, { passive: false });
  canvas.addEventListener("contextmenu", (event) => { if (from?.finger) event.preventDefault(); });
  canvas.addEventListener("pointerleave", () => { if (!from) point(null); });
  canvas.addEventListener("dblclick", () => change(() => Object.assign(chart, whole(chart.points))));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    change(() => zoom(target, Math.exp(0.0015 * event.deltaY), at(event)));
  }, { passive: false });
  new ResizeObserver(() => { paint(target); say("moved"); }).observe(target);
  return chart;
}
