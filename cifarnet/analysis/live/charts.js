"use strict";
// Line charts by epoch, as SVG. Lines differ by colour, by dashes and by the shape of their points.

const SPOTS = { train: "M-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0-6.4 0", val: "M-3-3h6v6h-6z", test: "M0-4L4 3H-4z" };
const FEW = 40; // epochs, each of which has its point
const EDGE = { left: 58, right: 12, top: 10, bottom: 22 };

function drawn(kind, properties = {}, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(properties)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// How the ticks of an axis are written: as the chart does, but real numbers all with a power of ten or all without.
function tickFormat(chart, values) {
  if (chart.format !== real) return chart.format;
  const powers = values.some((value) => value !== 0 && (Math.abs(value) < 1e-4 || Math.abs(value) >= 1e5));
  const rounded = (value) => Number(value.toPrecision(3));
  return (value) => (powers && value !== 0 ? rounded(value).toExponential() : rounded(value).toString());
}

// Round numbers from `low` to `high`, about `count` of them.
function ticks(low, high, count) {
  const raw = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((part) => part * power).find((one) => one >= raw * 0.999) ?? raw;
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at++) found.push(at * step);
  return found;
}

// 1, 2 and 5 times the powers of ten from `low` to `high`: the powers alone where these are many, other round numbers where few.
function powers(low, high) {
  const all = [], from = Math.floor(Math.log10(low)), to = Math.ceil(Math.log10(high));
  const parts = to - from > 3 ? [1] : [1, 2, 5], step = Math.ceil((to - from) / 8);
  for (let power = from; power <= to; power += step) for (const part of parts) all.push(part * 10 ** power);
  const found = all.filter((value) => value >= low && value <= high);
  return found.length > 2 ? found : ticks(low, high, 5);
}

// From numbers to pixels: a range that holds all values, and where each of them is.
function scale(values, begin, end, log, limits = [-Infinity, Infinity]) {
  let low = Math.min(...values), high = Math.max(...values);
  const room = log ? Math.max(high / low, 1.1) ** 0.05 : high - low > Math.abs(high) * 1e-6 ? (high - low) * 0.06 : Math.max(Math.abs(high) * 0.2, 1e-12);
  [low, high] = log ? [low / room, high * room] : [Math.max(low - room, limits[0]), Math.min(high + room, limits[1])];
  const way = log ? Math.log : (value) => value;
  const place = (value) => begin + ((way(value) - way(low)) / (way(high) - way(low))) * (end - begin);
  return { low, high, place, ticks: log ? powers(low, high) : ticks(low, high, 6) };
}

// A chart {title, lines: [{name, key, look}], format, log, limits, zero (is it shown?)} of the records, as an <svg> of this size.
function plot(chart, records, width, height, at) {
  const picture = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: 0, "aria-label": spoken(chart, at ?? records.at(-1)) });
  const can = (value) => typeof value === "number" && (!chart.log || value > 0);
  const values = chart.lines.flatMap((line) => records.map((record) => record[line.key]).filter(can));
  if (!values.length) {
    picture.append(drawn("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "no number that can be drawn"));
    return picture;
  }
  const y = scale(chart.zero ? [0, ...values] : values, height - EDGE.bottom, EDGE.top, chart.log, chart.limits);
  const x = epochScale(records, width);
  const format = tickFormat(chart, y.ticks), named = new Map(y.ticks.map((value) => [format(value), value])); // where two read alike, one
  for (const [text, value] of named) {
    const height = y.place(value);
    picture.append(drawn("line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: height, y2: height }));
    picture.append(drawn("text", { x: EDGE.left - 6, y: height + 4, "text-anchor": "end" }, text));
  }
  for (const epoch of x.ticks) picture.append(drawn("text", { x: x.place(epoch), y: height - 5, "text-anchor": "middle" }, String(epoch)));
  if (at) picture.append(drawn("line", { class: "at", x1: x.place(at.epoch), x2: x.place(at.epoch), y1: EDGE.top, y2: height - EDGE.bottom }));
  for (const line of chart.lines) {
    const known = records.filter((record) => record[line.key] !== undefined); // null: a value that is not finite, a gap
    const path = known.map((record, i) => !can(record[line.key]) ? "" : `${i && can(known[i - 1][line.key]) ? "L" : "M"}${x.place(record.epoch).toFixed(1)} ${y.place(record[line.key]).toFixed(1)}`);
    picture.append(drawn("path", { class: `curve ${line.look}`, d: path.join("") }));
    const marked = known.filter((record) => can(record[line.key]) && (known.length <= FEW || record === at));
    for (const record of marked) picture.append(spot(line.look, x.place(record.epoch), y.place(record[line.key])));
  }
  return picture;
}

// Where epochs lie; one alone lies in the middle.
function epochScale(records, width) {
  const first = records[0].epoch, last = records.at(-1).epoch, begin = EDGE.left + 8, end = width - EDGE.right - 8;
  const place = (epoch) => (last > first ? begin + ((epoch - first) / (last - first)) * (end - begin) : (begin + end) / 2);
  return { place, ticks: ticks(first, last, Math.min(last - first, width / 70) || 1).filter(Number.isInteger) };
}

function spot(look, x, y) {
  return drawn("path", { class: `spot ${look}`, d: SPOTS[look], transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})` });
}

// A line's look, for the legend.
function sample(look) {
  const made = drawn("svg", { viewBox: "0 0 34 10", "aria-hidden": "true" });
  made.append(drawn("path", { class: `curve ${look}`, d: "M1 5H33" }), spot(look, 17, 5));
  return made;
}

function shown(chart, value) {
  return value === undefined ? "–" : value === null ? "not finite" : chart.format(value, true);
}

function spoken(chart, record) {
  return `${chart.title}, epoch ${record.epoch}: ${chart.lines.map((line) => `${line.name} ${shown(chart, record[line.key])}`).join(", ")}`;
}
