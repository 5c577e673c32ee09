"use strict";
// Draws the figures of the page in the colours of its theme, and again when theme, width or choice changes.

const { figures, notes } = JSON.parse(document.getElementById("data").textContent);
const FONT = "system-ui, sans-serif";
const hidden = new Set(); // names of the trainings that are switched off
const clickable = new Set(); // names of the figures whose points answer a click
const chooser = document.getElementById("variant");

// The figure with every colour that is called "--name" replaced by what the page's style says.
function themed(value, style, key = "") {
  if (typeof value === "string" && key.endsWith("color") && value.startsWith("--")) {
    return style.getPropertyValue(value).trim();
  }
  if (Array.isArray(value)) return value.map((item) => themed(item, style, key));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, themed(item, style, name)]));
}

// `px` is how long the axis is drawn and `apart` how far its labels need to be from each other.
function axis(own, px, apart) {
  if (own.nticks) own = { ...own, nticks: Math.max(2, Math.min(own.nticks, Math.floor(px / apart))) };
  const line = { gridcolor: "--grid", linecolor: "--line", zeroline: false, fixedrange: true, ticks: "" };
  return { ...line, ...own, title: { font: { size: 12.5, color: "--muted" }, ...own.title } };
}

function draw(name) {
  const place = document.getElementById(name);
  const figure = figures[name];
  const width = place.clientWidth;
  if (!width) return;
  const { margin, height } = figure.layout;
  let data = figure.choices ? figure.choices[Number(chooser.value)] : figure.data;
  const layout = {
    ...figure.layout,
    width,
    xaxis: axis(thinned(figure.layout.xaxis, width - margin.l - margin.r), width - margin.l - margin.r, 56),
    yaxis: axis(figure.layout.yaxis, height - margin.t - margin.b, 36),
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: FONT, size: 12, color: "--text" },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: "--muted", activecolor: "--text" },
    dragmode: false,
  };
  const style = getComputedStyle(document.documentElement);
  data = data.map((trace) => ({ ...trace, visible: !hidden.has(trace.name) }));
  if (figure.labels) data = [...data.slice(0, -1), { ...data.at(-1), ...labels(figure, width) }];
  const config = { displaylogo: false, modeBarButtons: [["toImage"]], toImageButtonOptions: { filename: name, scale: 2 } };
  Plotly.react(place, themed(data, style), themed(layout, style), config);
  if (chooser && !clickable.has(name) && data.some((trace) => trace.customdata)) {
    clickable.add(name);
    place.on("plotly_click", ({ points: [point] }) => showWidths(point.customdata));
  }
}

// The widths of the variant in this row of the table, brought into view.
function showWidths(row) {
  if (row === undefined) return;
  chooser.value = String(row);
  choose();
  chooser.closest("section").scrollIntoView({ behavior: "smooth" });
}

// How far along a horizontal axis of `px` a value lies.
function along({ type, range }, px) {
  const scaled = type === "log" ? Math.log10 : (x) => x;
  return (x) => ((scaled(x) - range[0]) / (range[1] - range[0])) * px;
}

function textWidth(text) {
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = `12px ${FONT}`;
  return pen.measureText(text).width;
}

// The axis without those ticks whose labels would touch the label before them.
function thinned(own, px) {
  if (!own.tickvals) return own;
  const at = along(own, px);
  let end = -Infinity;
  const kept = own.tickvals.map((value, i) => {
    const half = textWidth(own.ticktext[i]) / 2;
    const fits = at(value) - half > end + 6;
    if (fits) end = at(value) + half;
    return fits;
  });
  const filter = (list) => list.filter((_, i) => kept[i]);
  return { ...own, tickvals: filter(own.tickvals), ticktext: filter(own.ticktext) };
}

const SPOTS = {
  "middle right": [1, 0], "middle left": [-1, 0], "top center": [0, -1], "bottom center": [0, 1],
  "bottom right": [1, 1], "top left": [-1, -1], "top right": [1, -1], "bottom left": [-1, 1],
};

// Names beside their points wherever one fits without touching a point, a bar, the front or another name.
function labels({ labels: { names, order, reach }, data, layout }, width) {
  const { margin, xaxis, yaxis } = layout;
  const inner = { w: width - margin.l - margin.r, h: layout.height - margin.t - margin.b };
  const toX = along(xaxis, inner.w);
  const toY = (y) => (1 - (y - yaxis.range[0]) / (yaxis.range[1] - yaxis.range[0])) * inner.h;
  const points = data.at(-1);
  const gap = 8; // between a point's centre and its name, as plotly leaves it
  const taken = points.x.map((x, i) => [toX(x) - 7, toY(points.y[i]) - 7, toX(x) + 7, toY(points.y[i]) + 7]);
  reach.forEach((x, i) => taken.push([toX(points.x[i]), toY(points.y[i]) - 4, toX(x) + 2, toY(points.y[i]) + 4]));
  const front = data[0];
  for (let i = 1; i < front.x.length; i++) {
    const [x0, y0, x1, y1] = [toX(front.x[i - 1]), toY(front.y[i - 1]), toX(front.x[i]), toY(front.y[i])];
    taken.push([x0, y0 - 1, x1, y0 + 1], [x1 - 1, Math.min(y0, y1), x1 + 1, Math.max(y0, y1)]);
  }
  const text = names.map(() => "");
  const textposition = names.map(() => "middle right");
  for (const i of order) {
    const [w, h, x, y] = [textWidth(`${names[i]}\u00a0`) + 2, 16, toX(points.x[i]), toY(points.y[i])];
    for (const [spot, [right, down]] of Object.entries(SPOTS)) {
      const left = right > 0 ? x + gap : right < 0 ? x - w - gap : x - w / 2;
      const top = down > 0 ? y + gap : down < 0 ? y - h - gap : y - h / 2;
      const box = [left, top, left + w, top + h];
      const inside = box[0] >= 0 && box[1] >= 0 && box[2] <= inner.w + margin.r && box[3] <= inner.h;
      if (inside && !taken.some((other) => meet(box, other))) {
        taken.push(box);
        const name = names[i].replaceAll("&", "&amp;").replaceAll("<", "&lt;");
        // A space between a name and its point: the corners of a diamond reach further than a circle.
        text[i] = right > 0 ? `\u00a0${name}` : right < 0 ? `${name}\u00a0` : name;
        textposition[i] = spot;
        break;
      }
    }
  }
  return { text, textposition };
}

function meet(a, b) {
  return a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
}

function drawAll() {
  Object.keys(figures).forEach(draw);
}

function choose() {
  document.getElementById("widths-note").textContent = notes[Number(chooser.value)];
  Object.keys(figures).filter((name) => figures[name].choices).forEach(draw);
}

chooser?.addEventListener("change", choose);
for (const button of document.querySelectorAll("[data-curve]")) {
  button.addEventListener("click", () => {
    const name = button.dataset.curve;
    if (!hidden.delete(name)) hidden.add(name);
    button.setAttribute("aria-pressed", String(!hidden.has(name)));
    Object.keys(figures).filter((figure) => figure.startsWith("training")).forEach(draw);
  });
}
drawAll();
if (chooser) choose();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
const widths = new WeakMap();
const watch = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) {
    if (widths.get(target) !== contentRect.width) draw(target.id);
    widths.set(target, contentRect.width);
  }
});
Object.keys(figures).forEach((name) => watch.observe(document.getElementById(name)));
// Paper is white and of one width, whatever the screen is.
function forPaper(on) {
  document.documentElement.toggleAttribute("data-print", on);
  drawAll();
}
addEventListener("beforeprint", () => forPaper(true));
addEventListener("afterprint", () => forPaper(false));
