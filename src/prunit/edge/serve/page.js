"use strict";
// The live page of `prunit serve`: reads /events and draws; changes go to /v1/pin and /v1/target with the token.

const past = []; // a point a second
const marks = new Map(); // switches by time
const byId = (id) => document.getElementById(id);
const SECONDS = 300;

const ms = (value) => (value == null ? "–" : value < 10 ? `${value.toFixed(2)} ms` : `${value.toFixed(1)} ms`);
const mb = (value) => (value == null ? "" : `${(value / 1e6).toFixed(0)} MB`);
const clock = (at) => new Date(at * 1000).toLocaleTimeString([], { hourCycle: "h23" });

function put(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text; // a screen reader speaks of changes alone
}

function svg(name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function row(cells, className) {
  const tr = document.createElement("tr");
  if (className) tr.className = className;
  for (const cell of cells) {
    const td = document.createElement("td");
    if (cell instanceof Node) td.append(cell);
    else td.textContent = cell.text ?? cell;
    if (cell.number) td.className = "number";
    tr.append(td);
  }
  return tr;
}

function show(status) {
  for (const point of status.history ?? []) if (!past.length || point.at > past.at(-1).at) past.push(point);
  if (!past.length || status.at - past.at(-1).at >= 0.9) past.push(status);
  while (past.length && past[0].at < status.at - SECONDS) past.shift();
  for (const event of status.events) if (event.kind === "switched") marks.set(event.at, event);
  for (const at of marks.keys()) if (at < status.at - SECONDS) marks.delete(at);

  document.title = `${status.active} · ${status.model}`;
  put("model", status.model);
  put("active", status.active);
  const last = status.events.filter((event) => event.kind === "switched").at(-1);
  const choice = status.pinned ? "pinned" : `policy ${status.policy}`;
  put("why", last ? `${choice}; since ${clock(last.at)}` : choice);
  put("rate", `${status.rate.toFixed(1)}/s`);
  put("answered", `${status.totals.answered.toLocaleString("en")} answered`);
  put("p50", ms(status.p50_ms));
  put("target", `target ${status.target_ms} ms`);
  put("p99", ms(status.p99_ms));
  put("in-time", status.in_time == null ? "" : `${(100 * status.in_time).toFixed(1)} % in time`);
  byId("tile-p99").classList.toggle("late", status.p99_ms > status.target_ms);
  put("waiting", `${status.waiting}`);
  const { refused, expired, failed } = status.totals;
  const errors = refused + expired + failed;
  put("errors", `of ${status.queue}; ${errors} error${errors === 1 ? "" : "s"}`);
  put("memory", mb(status.memory_bytes));
  put("available", status.available_bytes == null ? "" : `${mb(status.available_bytes)} free`);
  put("celsius", status.celsius == null ? "no sensor" : `${status.celsius.toFixed(0)} °C`);
  const battery = status.battery == null ? "" : `, battery ${(100 * status.battery).toFixed(0)} %`;
  put("slowdown", `${status.slowdown.toFixed(2)}× measured time${status.throttled ? ", throttled" : ""}${battery}`);
  drawTimeline(status);
  drawVariants(status);
  drawEvents(status);
}

function ticks(most) {
  const step = 10 ** Math.floor(Math.log10(most || 1));
  const wide = [0.2, 0.5, 1, 2, 5].map((each) => each * step).find((each) => most / each <= 4) ?? step;
  const found = [];
  for (let value = 0; value <= most * 1.0001; value += wide) found.push(Number(value.toPrecision(6)));
  return found;
}

function drawTimeline(status) {
  const [left, right, top, bottom, split] = [52, 892, 24, 236, 150];
  const target = status.target_ms;
  const most = 1.1 * Math.max(1.5 * target, ...past.map((point) => Math.min(point.p99_ms ?? 0, 6 * target)));
  const mostRate = 1.1 * Math.max(1, ...past.map((point) => point.rate ?? 0));
  const x = (at) => right - ((status.at - at) / SECONDS) * (right - left);
  const y = (value) => split - (Math.min(value, most) / most) * (split - top);
  const r = (value) => bottom - (value / mostRate) * (bottom - split - 14);
  const parts = [];
  for (const value of ticks(most)) {
    parts.push(svg("line", { class: "axis", x1: left, x2: right, y1: y(value), y2: y(value) }));
    parts.push(svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, `${value}`));
  }
  parts.push(svg("text", { x: left - 6, y: 12, "text-anchor": "end" }, "ms"));
  parts.push(svg("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }));
  parts.push(svg("text", { x: left - 6, y: bottom, "text-anchor": "end" }, "0"));
  parts.push(svg("text", { x: left - 6, y: split + 20, "text-anchor": "end" }, `${(mostRate / 1.1).toFixed(0)}/s`));
  for (let minute = 0; minute <= 5; minute++) {
    const label = minute ? `−${minute} min` : "now";
    const anchor = minute === 5 ? "start" : minute ? "middle" : "end";
    parts.push(svg("text", { x: x(status.at - 60 * minute), y: bottom + 18, "text-anchor": anchor }, label));
  }
  if (past.length > 1) {
    const points = past.map((point) => `${x(point.at).toFixed(1)},${r(point.rate ?? 0).toFixed(1)}`);
    const ends = [`${x(past.at(-1).at).toFixed(1)},${bottom}`, `${x(past[0].at).toFixed(1)},${bottom}`];
    parts.push(svg("polygon", { class: "area-rate", points: [...points, ...ends].join(" ") }));
  }
  for (const [at, event] of marks) {
    const mark = svg("line", { class: "mark", x1: x(at), x2: x(at), y1: top, y2: bottom });
    mark.append(svg("title", {}, `${clock(at)} to ${event.variant}: ${event.why}`));
    parts.push(mark);
  }
  for (const name of ["p50", "p99"]) {
    let path = "", gap = true;
    for (const point of past) {
      const value = point[`${name}_ms`];
      if (value == null) { gap = true; continue; }
      path += `${gap ? "M" : "L"}${x(point.at).toFixed(1)} ${y(value).toFixed(1)}`;
      gap = false;
    }
    parts.push(svg("path", { class: `line-${name}`, d: path || "M0 0" }));
  }
  parts.push(svg("line", { class: "line-goal", x1: left, x2: right, y1: y(target), y2: y(target) }));
  byId("timeline").replaceChildren(...parts);
  byId("timeline").setAttribute("aria-label",
    `Last five minutes: p99 now ${ms(status.p99_ms)}, target ${target} ms, ${marks.size} switches`);
}

function drawVariants(status) {
  const known = status.variants.filter((each) => each.accuracy != null && each.latency_ms != null);
  // R² and errors are no shares.
  const plain = ["r2", "mae", "rmse"].includes(status.metric);
  const metric = (value, digits) => plain ? value.toFixed(digits + 2) : `${(100 * value).toFixed(digits)} %`;
  const [left, right, top, bottom] = [52, 425, 24, 216];
  const most = 1.25 * Math.max(0.001, ...known.map((each) => each.latency_ms));
  const [low, high] = [Math.min(...known.map((each) => each.accuracy)), Math.max(...known.map((each) => each.accuracy))];
  const pad = Math.max(0.01, 0.2 * (high - low));
  const x = (value) => left + (value / most) * (right - left);
  const y = (value) => bottom - ((value - low + pad) / (high - low + 2 * pad)) * (bottom - top);
  const parts = [svg("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }),
    svg("line", { class: "axis", x1: left, x2: left, y1: top, y2: bottom })];
  for (const value of ticks(most)) parts.push(svg("text", { x: x(value), y: bottom + 16, "text-anchor": "middle" }, `${value}`));
  parts.push(svg("text", { x: (left + right) / 2, y: bottom + 34, "text-anchor": "middle" }, "measured latency, ms"));
  parts.push(svg("text", { x: 4, y: 14 }, status.metric));
  byId("metric").textContent = status.metric;
  for (const value of low === high ? [low] : [low, high]) {
    parts.push(svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, metric(value, 1)));
  }
  const front = known.filter((each) => !known.some((other) => other.accuracy >= each.accuracy &&
    other.latency_ms <= each.latency_ms && (other.accuracy > each.accuracy || other.latency_ms < each.latency_ms)));
  front.sort((a, b) => a.latency_ms - b.latency_ms);
  const line = front.map((each) => `${x(each.latency_ms)},${y(each.accuracy)}`).join(" ");
  parts.push(svg("polyline", { class: "front", points: line }));
  const names = []; // places that are taken, so that names do not lie on each other
  for (const each of known) {
    const active = each.state === "active";
    const kind = active ? "point active" : each.state === "put aside" ? "point bad" : "point";
    parts.push(svg("circle", { class: kind, cx: x(each.latency_ms), cy: y(each.accuracy), r: active ? 8 : 5 }));
    const beside = x(each.latency_ms) > right - 90;
    let place = y(each.accuracy) + 4;
    const crowded = (other) => Math.abs(other.x - x(each.latency_ms)) < 110 && Math.abs(other.y - place) < 15;
    const [from, to] = beside ? [-16 - 7 * each.name.length, -4] : [4, 16 + 7 * each.name.length];
    const covered = (other) => other !== each && Math.abs(y(other.accuracy) + 4 - place) < 12 &&
      x(other.latency_ms) > x(each.latency_ms) + from && x(other.latency_ms) < x(each.latency_ms) + to;
    while (names.some(crowded) || known.some(covered)) place += 16;
    names.push({ x: x(each.latency_ms), y: place });
    parts.push(svg("text", { class: "name", x: x(each.latency_ms) + (beside ? -12 : 12), y: place,
      "text-anchor": beside ? "end" : "start" }, each.name));
  }
  byId("pareto").replaceChildren(...parts);
  byId("pareto").setAttribute("aria-label", `Accuracy and latency of ${known.length} variants; ${status.active} is active`);
  const tokened = Boolean(byId("token").value);
  const key = JSON.stringify([status.variants, tokened, status.pinned]);
  if (drawVariants.key === key) return; // a button that has the focus stays
  drawVariants.key = key;
  const focused = document.activeElement?.dataset?.variant;
  byId("variants").replaceChildren(...status.variants.map((each) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "pin";
    button.dataset.variant = each.name;
    button.setAttribute("aria-label", `pin ${each.name}`);
    button.disabled = !tokened || each.state === "put aside" || status.pinned === each.name;
    button.addEventListener("click", () => change("/v1/pin", { variant: each.name }, `pinned ${each.name}`));
    const accuracy = each.accuracy == null ? "" : metric(each.accuracy, 2);
    const state = status.pinned === each.name ? `${each.state}, pinned` : each.state;
    return row([each.name, `${each.precision}, ${each.engine}`, { text: accuracy, number: true },
      { text: ms(each.latency_ms), number: true }, state, button],
      each.state === "active" ? "active" : "");
  }));
  if (focused) byId("variants").querySelector(`[data-variant="${CSS.escape(focused)}"]`)?.focus();
}

function drawEvents(status) {
  const key = status.events.length ? status.events.at(-1).at : 0;
  if (drawEvents.key === key) return;
  drawEvents.key = key;
  const rows = status.events.slice().reverse().map((event) => row([clock(event.at), event.kind, event.variant, event.why]));
  byId("events").replaceChildren(...(rows.length ? rows : [row(["", "nothing yet", "", ""])]));
}

async function change(path, told, done) {
  const headers = { "content-type": "application/json", authorization: `Bearer ${byId("token").value}` };
  try {
    const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(told) });
    put("answer", answer.ok ? done : (await answer.json()).error);
  } catch {
    put("answer", "the server does not answer");
  }
}

function connection(text, kind) {
  put("connection", text);
  byId("connection").className = `badge ${kind}`;
}

async function listen() {
  for (;;) {
    try {
      const token = byId("token").value;
      const answer = await fetch("/events", { headers: token ? { authorization: `Bearer ${token}` } : {} });
      if (!answer.ok) throw new Error(`${(await answer.json()).error}`);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let text = ""; ;) {
        const { value, done } = await reader.read();
        if (done) break;
        text += value;
        const parts = text.split("\n\n");
        text = parts.pop();
        if (!parts.length) continue;
        const statuses = parts.map((part) => JSON.parse(part.slice("data: ".length)));
        statuses.forEach(show);
        const workers = statuses.at(-1).workers.length;
        connection(`${statuses.at(-1).state}${workers > 1 ? `, ${workers} workers` : ""}`, "good");
      }
      connection("the server ended the connection", "bad");
    } catch (error) {
      connection(error instanceof TypeError ? "the server does not answer" : error.message, "bad");
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

byId("token").value = sessionStorage.getItem("prunit-token") ?? "";
byId("token").addEventListener("input", (event) => sessionStorage.setItem("prunit-token", event.target.value));
byId("unpin").addEventListener("click", () => change("/v1/pin", { variant: null }, "the policy chooses"));
byId("controls").addEventListener("submit", (event) => {
  event.preventDefault();
  const value = Number(byId("ms").value);
  if (value > 0) change("/v1/target", { ms: value }, `target ${value} ms`);
});
listen();
