"use strict";
/*
 * Draw the data (src/report/data.h) as the page. Whatever comes from a file is put in as text, never as HTML.
 */
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const { runs } = data;
const many = runs.length > 1;
const page = document.getElementById("page");
const COLOURS = 6, DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3]];
const NARROW = "\u202f"; // space between a number and its unit

/* ------------------------------------------------------------------- words */

/* An element with attributes and children; texts become text. */
function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "style") Object.assign(node.style, value);
    else if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined));
  return node;
}

const is = x => typeof x === "number" && Number.isFinite(x);
const finite = list => list.filter(is);
const count = n => Number(n).toLocaleString("en");
const significant = (x, digits = 4) => !is(x) ? "–" : x !== 0 && (Math.abs(x) >= 1e6 || Math.abs(x) < 1e-3)
  ? x.toExponential(Math.max(0, digits - 2)).replace("e+", "e") : String(Number(x.toPrecision(digits)));
const fixed = (x, digits = 4) => is(x) && Math.abs(x) >= 1e4 ? significant(x) : is(x) ? x.toFixed(digits) : "–";
const percent = x => !is(x) ? "–" : x > 0 && x < 0.01 ? "<1%" : x < 1 && x > 0.99 ? ">99%" : `${Math.round(100 * x)}%`;

/* 81200: "81.2k"; of a small number "0.012" */
function short(x) {
  if (!is(x)) return "–";
  const size = Math.abs(x);
  if (size >= 1e12) return significant(x, 2);
  for (const [scale, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (size >= scale) return Number((x / scale).toPrecision(3)) + letter;
  }
  return significant(x, 3);
}

function duration(s) {
  if (!is(s)) return "–";
  if (s < 100) return `${Number(s.toPrecision(3))}${NARROW}s`;
  const minutes = Math.round(s / 60);
  return minutes < 100 ? `${minutes}${NARROW}min` : `${Math.floor(minutes / 60)}${NARROW}h ${String(minutes % 60).padStart(2, "0")}${NARROW}min`;
}

/* Names: the last part of the path, or as much of it as tells the runs apart. */
function nameRuns() {
  const parts = runs.map(run => run.file.replace(/\.h5$/, "").split("/"));
  for (let n = 1; ; ++n) {
    const names = parts.map(p => p.slice(-n).join("/"));
    if (new Set(names).size === names.length || n > 40) return runs.forEach((run, i) => { run.name = names[i]; });
  }
}
nameRuns();
runs.forEach((run, i) => {
  run.index = i;
  run.dash = DASHES[Math.floor(i / COLOURS) % DASHES.length];
  run.tag = !many ? "" : runs.length <= 4 ? run.name : String(run.rank);
});

/* ----------------------------------------------------------------- figures */

const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colourOf = i => css(`--c${i % COLOURS}`);
const figures = []; // each draws itself anew: after a change of size, colours, abscissa
const state = { x: "step", focus: null };
const axes = { step: ["updates", short], tokens: ["tokens", short], seconds: ["time", duration] };

/* Where a step lies on the abscissa of a run: counted in its reports, linear in between. */
function abscissa(run, step) {
  if (state.x === "step") return step;
  const steps = run.train.step, values = run.train[state.x];
  let i = steps.findIndex(s => s >= step);
  if (i < 0) i = steps.length - 1;
  const end = i < 0 ? [run.state.step, run.state[state.x]] : [steps[i], values[i]];
  const begin = i > 0 ? [steps[i - 1], values[i - 1]] : [0, 0];
  return end[0] > begin[0] ? begin[1] + (end[1] - begin[1]) * (step - begin[0]) / (end[0] - begin[0]) : end[1];
}

/* A curve of column `key` of a table of the run. */
function curve(run, table, key, more = {}) {
  const rows = run[table];
  return { run, tag: run.tag, x: () => rows.step.map(step => abscissa(run, step)), y: rows[key], colour: run.index, dash: run.dash, ...more };
}

const points = series => series.reduce((n, s) => n + finite(s.y).length, 0);

/* A figure with a caption; `draw(box, readout)` returns the plots it made. Without points a line says so. */
function figure(parent, { id, title, unit, note, none, wide, n, draw }) {
  const readout = el("output");
  const box = el("div");
  const node = el("figure", { id, "data-points": n, class: wide ? "wide" : null },
    el("figcaption", {}, el("h3", {}, title), unit ? el("span", { class: "unit" }, unit) : null, readout),
    n > 0 ? box : el("div", { class: "none" }, none), note && n > 0 ? el("p", { class: "note" }, note) : null);
  parent.append(node);
  if (n > 0) figures.push({ box, readout, draw, plots: [] });
}

function redraw(only) {
  for (const f of figures) {
    if (only && !only.includes(f)) continue;
    f.plots.forEach(plot => plot.destroy());
    f.width = f.box.clientWidth;
    f.plots = f.width > 0 ? [f.draw(f.box, f.readout, f.width)] : [];
  }
}

const faded = run => state.focus !== null && run && run.index !== state.focus;
const alpha = (colour, a) => colour + Math.round(255 * a).toString(16).padStart(2, "0");
const FONT = () => `12px ${css("--font")}`;

function axis(more) {
  return { stroke: css("--muted"), font: FONT(), size: 30, gap: 4, grid: { stroke: css("--grid"), width: 1 },
    ticks: { show: false }, ...more };
}

/* As many dashes as there are, in the pixels of the device. */
const dashed = pattern => pattern.length ? pattern : undefined;

/* Logarithmic where a few values would hide all others. */
function wantsLog(values) {
  const sorted = finite(values).filter(y => y > 0).sort((a, b) => a - b);
  const middle = sorted[Math.floor(sorted.length / 2)];
  return sorted.length > 2 && (sorted[sorted.length - 1] > 20 * middle || middle > 20 * sorted[0]);
}

/*
 * The upper edge, where losses above twice that of a uniform guess are drawn, as of runs that diverged: they would hide
 * all others. Infinity where there are none such, or hardly others. `guess` is a run's own, in the unit of the values.
 */
const uniform = run => Math.log(Number(run.model.vocab));
const twice = guess => 2 * Math.max(...finite(runs.map(guess)));
function roofOf(values, guess) {
  const all = finite(values), most = twice(guess), near = all.filter(y => y <= most);
  if (near.length === all.length || 2 * near.length < all.length) return Infinity;
  const low = near.reduce((a, b) => Math.min(a, b)), high = near.reduce((a, b) => Math.max(a, b));
  return high + 0.15 * (high - low || 1);
}
const edge = roof => is(roof) ? ` ↑ Above ${significant(twice(uniform), 3)}, twice a uniform guess, curves are drawn at the edge.` : "";

/* Logarithms: uPlot's own scale ends at 1e-24, gradients may go on. Ticks at powers of ten, between few of them at 2 and 5. */
function decades(u, axis, low, high) {
  const step = Math.max(1, Math.ceil((high - low) / 5)), ticks = [];
  for (let e = Math.floor(low / step) * step; e <= high; e += step) {
    ticks.push(e);
    if (high - low < 3) ticks.push(e + Math.log10(2), e + Math.log10(5));
  }
  return ticks.filter(t => t >= low && t <= high);
}
const power = t => t > 5 || t < -3.5 ? `1e${Math.round(t)}` : short(10 ** t);

/* With an arrow where the end of the curve is above the roof of its figure. */
const endTag = s => s.tag && finite(s.y).at(-1) > s.roof ? `${s.tag} ↑` : s.tag || "";

/* Labels at the ends of the curves, moved apart where they would overlap. */
function endLabels(u, series) {
  const ratio = devicePixelRatio, height = 13 * ratio, labels = [];
  for (const s of series) {
    let i = s.y.length - 1;
    while (i >= 0 && !is(s.shown[i])) --i;
    if (i < 0 || !s.tag) continue;
    labels.push({ s, x: u.valToPos(s.at[i], "x", true), y: u.valToPos(s.shown[i], "y", true) });
  }
  labels.sort((a, b) => a.y - b.y);
  const low = u.bbox.top + height / 2, high = u.bbox.top + u.bbox.height - height / 2;
  let next = low;
  for (const l of labels) { l.at = Math.max(l.y, next); next = l.at + height; }
  next = high;
  for (const l of [...labels].reverse()) { l.at = Math.min(l.at, next); next = l.at - height; }
  const { ctx } = u;
  ctx.save();
  ctx.font = `600 ${11.5 * ratio}px ${css("--font")}`;
  ctx.textBaseline = "middle";
  ctx.textAlign = "left";
  for (const l of labels) {
    ctx.fillStyle = faded(l.s.run) ? alpha(colourOf(l.s.colour), 0.2) : colourOf(l.s.colour);
    ctx.fillText(endTag(l.s), l.x + 5 * ratio, l.at);
  }
  ctx.restore();
}

const ruler = document.createElement("canvas").getContext("2d");
function labelWidth(series) {
  ruler.font = `600 11.5px ${css("--font")}`;
  return Math.max(0, ...series.map(s => ruler.measureText(endTag(s)).width)) + 10;
}

/* What is under the pointer: the nearest point of all curves. */
function nearest(u, series, say, { left, top }) {
  let best = null;
  for (const s of left < 0 ? [] : series) {
    for (let i = 0; i < s.at.length; ++i) {
      if (!is(s.shown[i]) || !is(s.at[i])) continue;
      const distance = Math.abs(u.valToPos(s.at[i], "x") - left) + 0.5 * Math.abs(u.valToPos(s.shown[i], "y") - top);
      if (best === null || distance < best.distance) best = { distance, s, i };
    }
  }
  return best === null ? "" : say(best.s, best.i);
}

/*
 * Curves. Each of `series` has x (an array, or a function that gives one) and y, a tag that stands at its end, `colour`,
 * `dash`, `width`, `dots`. `lines`: heights to mark, with a text. `roof`: values above it are drawn there. `second`: a scale to the right, a function of the left.
 */
function curves({ series, height = 230, log, xAxis, lines = [], second, zero, roof = Infinity, ySay = significant }) {
  return (box, readout, width) => {
    const [xName, xFormat] = xAxis || axes[state.x];
    const isLog = typeof log === "function" ? log() : log;
    for (const s of series) {
      s.at = typeof s.x === "function" ? s.x() : s.x;
      s.roof = roof;
      s.shown = s.y.map(y => !is(y) ? null : !isLog ? Math.min(y, roof) : y > 0 ? Math.log10(Math.min(y, roof)) : null);
    }
    lines = lines.map(l => ({ ...l, at: isLog ? Math.log10(l.y) : l.y }));
    const used = series.filter(s => finite(s.shown).length > 0);
    const tables = used.map(s => {
      const rows = s.at.map((x, i) => [x, s.shown[i]]).filter(([x]) => is(x)).sort((a, b) => a[0] - b[0]);
      return [rows.map(r => r[0]), rows.map(r => r[1])];
    });
    const xs = tables.flatMap(t => [t[0][0], t[0][t[0].length - 1]]);
    const ys = used.flatMap(s => finite(s.shown));
    let [x0, x1] = [Math.min(...xs), Math.max(...xs)];
    let y0 = ys.reduce((a, b) => Math.min(a, b)), y1 = ys.reduce((a, b) => Math.max(a, b));
    if (zero) y0 = Math.min(0, y0);
    if (x1 === x0) { x1 += 0.5 * (Math.abs(x0) || 1); x0 -= 0.5 * (Math.abs(x0) || 1); }
    const last = Math.max(...xs);
    const label = labelWidth(used), side = second ? 48 : 8;
    x1 += (x1 - x0) * Math.min(1, label / Math.max(60, width - 56 - side - label));
    if (y1 === y0) { y1 += 0.05 * (Math.abs(y1) || 1); y0 -= zero && y0 >= 0 ? 0 : 0.05 * (Math.abs(y0) || 1); }
    else { y1 += 0.06 * (y1 - y0); y0 -= zero && y0 === 0 ? 0 : 0.06 * (y1 - y0); }

    const options = {
      width, height, legend: { show: false }, padding: [8, second ? 0 : 8, 0, 0],
      cursor: { y: false, points: { show: false }, drag: { x: true, y: false } },
      scales: { x: { time: false, range: (u, a, b) => u.zoomed ? [a, b] : [x0, x1] }, y: { range: () => [y0, y1] } },
      axes: [
        axis({ grid: { show: false }, size: 24, label: xName || null, labelFont: FONT(), labelSize: 16, labelGap: 0,
          values: (u, splits) => splits.map(v => v > last * 1.0001 ? "" : xFormat(v)) }),
        axis({ size: 50, values: (u, splits) => splits.map(v => v === null ? "" : isLog ? power(v) : short(v)), ...(isLog ? { splits: decades } : {}) }),
      ],
      series: [{}],
      hooks: {
        draw: [u => {
          const { ctx } = u, ratio = devicePixelRatio;
          for (const line of lines.filter(l => l.at >= y0 && l.at <= y1)) {
            const y = u.valToPos(line.at, "y", true);
            ctx.save();
            ctx.strokeStyle = ctx.fillStyle = css("--muted");
            ctx.lineWidth = ratio;
            ctx.setLineDash([4 * ratio, 3 * ratio]);
            ctx.beginPath();
            ctx.moveTo(u.bbox.left, y);
            ctx.lineTo(u.bbox.left + u.bbox.width, y);
            ctx.stroke();
            ctx.font = `${11.5 * ratio}px ${css("--font")}`;
            const below = y - 15 * ratio < u.bbox.top;
            ctx.textBaseline = below ? "top" : "bottom";
            ctx.textAlign = "left";
            ctx.fillText(line.text, u.bbox.left + 4 * ratio, y + (below ? 3 : -2) * ratio);
            ctx.restore();
          }
          endLabels(u, used);
        }],
        setCursor: [u => { readout.textContent = nearest(u, used, (s, i) => `${[s.what || s.tag, `${xName} ${xFormat(s.at[i])}`, ySay(s.y[i])].filter(Boolean).join("  ·  ")}`, u.cursor); }],
        setSelect: [u => { u.zoomed = true; }],
      },
    };
    if (second) options.axes.push(axis({ side: 1, scale: "y", size: side, grid: { show: false }, values: (u, splits) => splits.map(v => v === null ? "" : second(isLog ? 10 ** v : v)), ...(isLog ? { splits: decades } : {}) }));
    for (const [k, s] of used.entries()) {
      options.series.push({
        width: s.width || 1.75, spanGaps: false, dash: dashed(s.dash || []),
        stroke: () => alpha(colourOf(s.colour), faded(s.run) ? 0.12 : s.opacity || 1),
        points: { show: s.dots || tables[k][0].length === 1, size: tables[k][0].length > 40 ? 3.5 : 6,
          fill: () => alpha(colourOf(s.colour), faded(s.run) ? 0.12 : 1), stroke: () => alpha(colourOf(s.colour), faded(s.run) ? 0.12 : 1) },
      });
    }
    const plot = new uPlot(options, uPlot.join(tables, tables.map(() => [0, 1])), box);
    plot.over.addEventListener("dblclick", () => { plot.zoomed = false; plot.setScale("x", { min: x0, max: x1 }); });
    return plot;
  };
}

/* How far the plane goes: a few eigenvalues of a run that diverged must not hide all others. */
const FAR = 4;
const sizes = sets => sets.flatMap(s => s.re.map((re, i) => Math.max(Math.abs(re), Math.abs(s.im[i])))).filter(is);
function reach(sets) {
  const all = sizes(sets), near = all.filter(size => size <= FAR);
  return (2 * near.length >= all.length ? near : all).reduce((a, b) => Math.max(a, b), 1);
}

/* Eigenvalues in the complex plane, with the unit circle. */
function spectrum(sets) {
  return (box, readout, width) => {
    const R = 1.08 * reach(sets);
    const left = 40, bottom = 28, size = Math.min(width, 380);
    const ticks = (u, splits) => splits.map(short);
    const dots = u => {
      const { ctx } = u, ratio = devicePixelRatio;
      const X = x => u.valToPos(x, "x", true), Y = y => u.valToPos(y, "y", true);
      ctx.save();
      ctx.beginPath();
      ctx.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
      ctx.clip();
      ctx.strokeStyle = css("--muted");
      ctx.lineWidth = ratio;
      ctx.beginPath();
      ctx.ellipse(X(0), Y(0), X(1) - X(0), Y(0) - Y(1), 0, 0, 2 * Math.PI);
      ctx.stroke();
      for (const s of sets) {
        ctx.fillStyle = alpha(colourOf(s.run.index), faded(s.run) ? 0.08 : sets.length > 4 ? 0.5 : 0.75);
        const radius = (s.re.length > 400 ? 1.3 : 2) * ratio;
        for (let i = 0; i < s.re.length; ++i) {
          ctx.beginPath();
          ctx.arc(X(s.re[i]), Y(s.im[i]), radius, 0, 2 * Math.PI);
          ctx.fill();
        }
      }
      ctx.restore();
    };
    return new uPlot({
      width: size, height: size - left + bottom, legend: { show: false }, padding: [6, 6, 0, 0],
      cursor: { show: false },
      scales: { x: { time: false, range: () => [-R, R] }, y: { range: () => [-R, R] } },
      axes: [axis({ size: bottom, values: ticks, space: 34 }), axis({ size: left, values: ticks, space: 34 })],
      series: [{}, { show: false }],
      hooks: { draw: [dots] },
    }, [[-R, R], [null, null]], box);
  };
}

/* -------------------------------------------------------------------- head */

function section(title, text) {
  const node = el("section", {}, el("h2", {}, title), text ? el("p", { class: "small" }, text) : null);
  page.append(node);
  return node;
}

const onScreen = text => el("span", { class: "screen" }, text);

const grid = (parent, kind = "") => {
  const node = el("div", { class: `figures ${kind}` });
  parent.append(node);
  return node;
};

const plural = (n, word) => `${count(n)} ${word}${Number(n) === 1 ? "" : "s"}`;

function describe(run) {
  const m = run.model;
  return `A ${m.level} model: ${plural(m.layers, "layer")} of ${count(m.hidden)} ${m.units} units, vocabulary of ${count(m.vocab)}, ` +
    `${count(m.parameters)} parameters. ${run.finished ? "Finished" : "Not finished: stands"} after step ${count(run.step)}, ` +
    `${duration(run.seconds)} on ${plural(run.ranks, "rank")} × ${plural(run.threads, "thread")}.`;
}

function tiles(run) {
  const list = el("ul", { class: "tiles" });
  const tile = (value, text) => list.append(el("li", {}, el("b", {}, value), el("span", {}, text)));
  if (is(run.best_loss)) {
    if (is(run.bits_per_character)) tile(fixed(run.bits_per_character, 3), "bits per character");
    tile(fixed(run.best_loss, 3), "nats per token");
    tile(significant(run.perplexity), "perplexity");
    tile(count(run.best_step), "step of this best validation");
  } else {
    tile(fixed(run.train_loss, 3), "nats per token in training, not validated");
  }
  tile(short(run.tokens_per_second), "tokens per second");
  tile(duration(run.seconds), "training");
  return list;
}

function head() {
  const title = many ? `${runs.length} runs` : runs[0].name;
  document.title = `${title}: unroll`;
  page.append(el("header", {}, el("h1", {}, title),
    el("p", { class: "lead" }, many ? `The best one: ${runs[0].name}. ${describe(runs[0])}` : describe(runs[0])), tiles(runs[0]),
    !many && Number(runs[0].state.skipped) > 0 ? el("p", { class: "warn" }, `${plural(runs[0].state.skipped, "update")} left out: loss or gradient not finite.`) : null));
}

/* ----------------------------------------------------------------- ranking */

const key = run => el("span", { class: "key", style: { borderTopColor: `var(--c${run.index % COLOURS})`, borderTopStyle: ["solid", "dashed", "dotted", "double"][Math.floor(run.index / COLOURS) % 4] } });
const optionText = text => text === "" ? "none" : text;

function focusOn(run) {
  state.focus = run;
  for (const f of figures) f.plots.forEach(plot => plot.redraw(false));
}

function ranking() {
  if (!many) return;
  const node = section("Ranking", ["By the best validation, in bits per character; in the middle, the options that differ.", onScreen(" Point at a run to see it alone.")]);
  const rows = runs.map(run => {
    const row = el("tr", {}, el("td", { class: "left", title: run.file }, key(run), `${run.rank} ${run.name}`),
      el("td", { class: run.rank === 1 ? "best" : "" }, fixed(run.bits_per_character)), el("td", {}, fixed(run.best_loss)), el("td", {}, significant(run.perplexity)),
      data.differing.map(name => el("td", { class: "option" }, optionText(run.config[name]))),
      el("td", {}, run.best_step ? count(run.best_step) : "–"), el("td", {}, count(run.step) + (run.finished ? "" : " …")),
      el("td", {}, short(run.tokens_per_second)), el("td", {}, `${run.ranks} × ${run.threads}`), el("td", {}, run.clip.threshold > 0 ? percent(run.clip.share) : "off"), el("td", { title: run.weights_sha256 }, el("code", {}, run.weights_sha256.slice(0, 8))));
    row.addEventListener("mouseenter", () => focusOn(run.index));
    row.addEventListener("mouseleave", () => focusOn(null));
    return row;
  });
  const heads = ["run", "bits/char", "loss", "perplexity", ...data.differing, "at step", "of", "tokens/s", "on", "clipped", "weights"];
  node.append(el("div", { class: "scroll" }, el("table", { class: "ranking" },
    el("thead", {}, el("tr", {}, heads.map((h, i) => el("th", { class: i === 0 ? "left" : i > 3 && i < 4 + data.differing.length ? "option" : "" }, h)))),
    el("tbody", {}, rows))));

  const notes = ["on: ranks × threads; clipped: share of the reports with clipped updates; weights: the beginning of their SHA-256."];
  if (!data.same_texts) notes.push("The texts, or how they are read, are not the same: these losses are of different texts.");
  if (runs.some(run => !run.finished)) notes.push("… has not finished.");
  if (runs.some(run => !is(run.best_loss))) notes.push("Runs without a validation stand last, by their training loss.");
  if (data.differing.length === 0) notes.push("No option differs.");
  runs.forEach((run, i) => {
    const twin = runs.slice(i + 1).find(other => other.weights_sha256 === run.weights_sha256);
    if (twin) notes.push(`${run.rank} and ${twin.rank} have the same weights, bit for bit.`);
  });
  notes.forEach(text => node.append(el("p", { class: "small" }, text)));
  sweep(node);
}

/* The best validation over the values of each option that differs. */
function sweep(parent) {
  const measure = runs.some(run => is(run.bits_per_character)) ? ["bits_per_character", "bits per character"] : ["best_loss", "nats per token"];
  const valued = runs.filter(run => is(run[measure[0]]));
  const roof = roofOf(valued.map(run => run[measure[0]]), run => uniform(run) * run[measure[0]] / run.best_loss);
  const box = grid(parent, "squares");
  box.style.marginTop = "1.5rem";
  const output = new Set(data.options.filter(option => option.heading === "Output").map(option => option.name));
  for (const name of data.differing.filter(name => !output.has(name))) {
    const values = [...new Set(valued.map(run => run.config[name]))];
    if (values.length < 2 || values.length > 24) continue;
    values.sort((a, b) => Number.isNaN(Number(a) - Number(b)) ? (a < b ? -1 : 1) : Number(a) - Number(b));
    const series = valued.map(run => ({ run, tag: String(run.rank), what: run.name, x: [values.indexOf(run.config[name])], y: [run[measure[0]]], colour: run.index, dots: true }));
    figure(box, { id: `sweep-${name}`, title: name, unit: measure[1], n: points(series),
      draw: curves({ series, height: 200, roof, xAxis: ["", v => Number.isInteger(v) && v >= 0 && v < values.length ? optionText(values[v]) : ""] }) });
  }
}

/* ---------------------------------------------------------------- learning */

function abscissae(parent) {
  const box = el("fieldset", { class: "choice" }, "over ");
  for (const [name, [text]] of Object.entries(axes)) {
    const input = el("input", { type: "radio", name: "x", value: name });
    input.checked = name === state.x;
    input.addEventListener("change", () => { state.x = name; redraw(); });
    box.append(el("label", {}, input, text));
  }
  parent.append(box);
}

const thinned = () => {
  const most = Math.max(...runs.map(run => run.rows_per_point));
  return most > 1 ? ` A point is the mean of up to ${most} reports.` : "";
};

function missing(series) {
  const n = series.reduce((sum, s) => sum + s.y.length - finite(s.y).length, 0);
  return n > 0 ? ` ${plural(n, "report")} without a finite loss ${n === 1 ? "is" : "are"} missing.` : "";
}

function learning() {
  const node = section("Learning");
  abscissae(node);
  const box = grid(node);

  const train = runs.map(run => curve(run, "train", "loss", many ? { tag: "", what: `${run.name}, training`, width: 1, opacity: 0.45 } : { tag: "train", width: 1.25 }));
  const valid = runs.map(run => curve(run, "valid", "loss", many ? { what: `${run.name}, validation`, width: 2, dots: run.valid.step.length < 40 } : { tag: "valid", colour: 1, width: 2, dots: run.valid.step.length < 40 }));
  const valued = runs.some(run => finite(run.valid.loss).length > 0);
  const loss = [...train.map((s, i) => !finite(valid[i].y).length && many ? { ...s, tag: runs[i].tag } : s), ...valid];
  const losses = finite(loss.flatMap(s => s.y)), roof = roofOf(losses, uniform);
  figure(box, { id: "loss", title: "Loss", unit: "nats per token; right: perplexity", wide: true, n: points(loss),
    none: runs.some(run => run.train.step.length > 0) ? "No loss is finite." : "This run has no reports yet.",
    note: (many ? `Strong: validation. Faint: training.${runs.length > 4 ? " Numbers are places in the ranking." : ""}` : valued ? "" : "No validation.") + edge(roof) + missing(train) + thinned(),
    draw: curves({ series: loss, height: 330, roof, log: () => wantsLog(losses.map(y => Math.min(y, roof))), second: v => is(Math.exp(v)) ? short(Math.exp(v)) : "" }) });

  if (many && new Set(runs.map(run => run.model.level)).size > 1) {
    const bits = runs.map(run => curve(run, "valid", "bits_per_character", { width: 2, dots: run.valid.step.length < 40 }));
    figure(box, { id: "bits", title: "Validation", unit: "bits per character: what levels have in common", n: points(bits), none: "No validation, or tokens that are not in the vocabulary: those cost only the probability of <unk>.", draw: curves({ series: bits }) });
  }

  const norm = runs.map(run => curve(run, "train", "grad_norm", { tag: run.tag }));
  const thresholds = [...new Set(runs.map(run => run.clip.threshold).filter(t => t > 0))];
  const clips = thresholds.length > 0 && thresholds.length < 4 ? thresholds.map(t => ({ y: t, text: `clipped above ${significant(t)}` })) : [];
  figure(box, { id: "norm", title: "Gradient norm", unit: "before clipping", n: points(norm), none: "No reports yet.",
    note: many ? null : runs[0].clip.threshold > 0 ? `${percent(runs[0].clip.share)} of the reports have clipped updates; mean factor ${significant(runs[0].clip.scale, 3)}.` : "No clipping.",
    draw: curves({ series: norm, log: true, lines: clips }) });

  const scale = runs.map(run => curve(run, "train", "clip_scale", { tag: run.tag }));
  figure(box, { id: "clip", title: "Factor of clipping", unit: "1: nothing was clipped", n: points(scale), none: "No reports yet.", draw: curves({ series: scale, zero: true }) });

  const rate = runs.map(run => curve(run, "train", "learning_rate"));
  figure(box, { id: "rate", title: "Learning rate", n: points(rate), none: "No reports yet.",
    draw: curves(wantsLog(rate.map(s => finite(s.y).reduce((a, b) => Math.max(a, b), 0))) ? { series: rate, log: true } : { series: rate, zero: true }) });

  if (runs.some(run => Number(run.state.skipped) > 0)) {
    const skipped = runs.map(run => curve(run, "train", "skipped"));
    figure(box, { id: "skipped", title: "Updates left out", unit: "loss or gradient not finite", n: points(skipped), none: "No reports yet.", draw: curves({ series: skipped, zero: true }) });
  }
}

/* ------------------------------------------------------------------- speed */

const PARTS = [["compute", "computing"], ["exchange", "exchanging gradients"], ["wait", "waiting for other ranks"]];

function bars() {
  const sum = run => PARTS.reduce((n, [part]) => n + (run.time[part] || 0), 0);
  const most = Math.max(...runs.map(sum));
  const node = el("div", { class: "bars" });
  for (const run of runs) {
    const total = sum(run);
    const shares = PARTS.map(([part]) => percent(total > 0 ? (run.time[part] || 0) / total : null)).join(" / ");
    node.append(el("span", { class: "name", title: run.file }, many ? `${run.rank} ${run.name}` : "a step"),
      el("div", { class: "bar", role: "img", "aria-label": shares }, PARTS.map(([part], i) =>
        el("i", { style: { width: `${most > 0 ? 100 * (run.time[part] || 0) / most : 0}%`, background: `var(--c${[0, 1, 4][i]})` } }))),
      el("span", { class: "value" }, total > 0 ? `${significant(1e3 * total, 3)}${NARROW}ms  ${shares}` : "–"));
  }
  return el("div", {}, node, el("div", { class: "legend" }, PARTS.map(([, text], i) => el("span", {}, el("i", { style: { background: `var(--c${[0, 1, 4][i]})` } }), text))));
}

function speed() {
  const node = section("Speed");
  const box = grid(node);
  const rate = runs.map(run => curve(run, "train", "tokens_per_second"));
  figure(box, { id: "speed", title: "Tokens per second", wide: many, n: points(rate), none: "No reports yet.", draw: curves({ series: rate, zero: true }) });
  if (!many) {
    const parts = PARTS.map(([part, text], i) => curve(runs[0], "train", `${part}_seconds`, { tag: part, what: text, colour: [0, 1, 4][i] }));
    parts.forEach(s => { s.y = s.y.map(y => is(y) ? 1e3 * y : null); });
    figure(box, { id: "parts", title: "Time of a step", unit: "ms, mean over ranks", n: points(parts), none: "No reports yet.", draw: curves({ series: parts, zero: true }) });
  }
  const n = runs.filter(run => is(run.time.compute)).length;
  box.append(el("figure", { id: "split", "data-points": n, class: many ? "wide" : "wide one" }, el("figcaption", {}, el("h3", {}, "Where the time goes"), el("span", { class: "unit" }, "mean of a step and of the ranks")),
    n > 0 ? bars() : el("div", { class: "none" }, "No reports yet.")));
}

/* ------------------------------------------------------------------ memory */

const GATES = { i: "input gate", f: "forget gate", g: "candidate", o: "output gate", r: "reset gate", z: "update gate", n: "candidate" };

function spectra() {
  const panels = new Map();
  for (const run of runs.filter(r => typeof r.spectra === "object")) {
    run.spectra.layers.forEach((layer, l) => layer.blocks.forEach((block, k) => {
      const gate = layer.gates[k] || "";
      const name = `${l}${gate}`;
      if (!panels.has(name)) panels.set(name, { l, gate, sets: [] });
      panels.get(name).sets.push({ run, ...block });
    }));
  }
  const further = sets => {
    const n = sizes(sets).filter(size => size > reach(sets)).length;
    return n > 0 ? `${n} further out` : "";
  };
  const radius = s => s.re.length ? Math.hypot(s.re[0], s.im[0]) : null;
  const node = section("Recurrent matrices", "Eigenvalues of W_hh and the unit circle: inside it a linear state fades, outside it grows.");
  const box = grid(node, "squares");
  for (const { l, gate, sets } of panels.values()) {
    figure(box, { id: `spectrum-${l}${gate}`, title: `Layer ${l}${gate ? `, ${GATES[gate]} ${gate}` : ""}`, n: sets.reduce((n, s) => n + s.re.length, 0), none: "",
      unit: sets.length === 1 ? `radius ${significant(radius(sets[0]), 3)}` : null,
      note: [sets.length > 1 && sets.length <= 4 ? `radius ${sets.map(s => `${s.run.tag} ${significant(radius(s), 3)}`).join(", ")}` : "", further(sets)].filter(Boolean).join("; ") || null,
      draw: spectrum(sets) });
  }
  for (const run of runs.filter(r => typeof r.spectra === "string")) {
    node.append(el("p", { class: "small" }, `${many ? `${run.name}: none, ` : "None: "}${run.spectra}.`));
  }
  const old = runs.filter(r => typeof r.spectra === "object" && r.spectra.step !== r.step);
  if (old.length) node.append(el("p", { class: "small" }, `As measured last: ${old.map(r => `${many ? `${r.tag} ` : ""}after step ${count(r.spectra.step)}`).join(", ")}.`));
}

function flow() {
  const measured = runs.filter(run => run.flow);
  const node = section("Gradient flow", measured.length ? "Norm of dl_t/dh_{t-k}: how much a loss says about the state k steps before it." : null);
  if (!measured.length) {
    node.append(el("p", { class: "small" }, "Not recorded: train with --diagnose-every N to have it here."));
    return;
  }
  const box = grid(node);
  const layers = Math.max(...measured.map(run => run.flow.layers.length));
  const of = l => layers > 1 ? `, layer ${l}` : "";
  for (let l = 0; l < layers; ++l) {
    const there = measured.filter(run => run.flow.layers[l]);
    const lags = run => Array.from({ length: Number(run.flow.lags) + 1 }, (_, k) => k);
    let series;
    if (many) {
      series = there.map(run => ({ run, tag: run.tag, what: run.name, x: lags(run), y: run.flow.layers[l].norm_mean.at(-1), colour: run.index, dash: run.dash }));
    } else {
      const run = there[0], n = run.flow.step.length;
      const moments = [...new Set([0, 1, 2, 3, 4].map(k => Math.round(k * (n - 1) / 4)))];
      series = moments.map((m, k) => ({ tag: `step ${short(run.flow.step[m])}`, x: lags(run), y: run.flow.layers[l].norm_mean[m], colour: 0,
        opacity: 0.25 + 0.75 * (k + 1) / moments.length, width: k === moments.length - 1 ? 2.25 : 1.25, dash: k === moments.length - 1 ? [] : [[2, 3], [4, 3], [7, 3], [12, 3]][k % 4] }));
    }
    figure(box, { id: `flow-${l}`, title: `Gradient over lags${of(l)}`, unit: "nats", n: points(series), none: "All are zero or not finite.",
      note: many ? "After the last measurement." : null, draw: curves({ series, log: true, xAxis: ["lag k, steps back", short] }) });
  }
  for (let l = 0; l < layers; ++l) {
    const there = measured.filter(run => run.flow.layers[l]);
    const over = (run, y, more) => ({ run, tag: run.tag, what: run.name, x: () => run.flow.step.map(step => abscissa(run, step)), y, colour: run.index, dash: run.dash, dots: run.flow.step.length < 40, ...more });
    const reach = there.flatMap(run => many ? [over(run, run.flow.layers[l].percent_lag)]
      : [over(run, run.flow.layers[l].half_lag, { tag: "half is left", what: "" }), over(run, run.flow.layers[l].percent_lag, { tag: "1% is left", what: "", colour: 1 })]);
    figure(box, { id: `reach-${l}`, title: `Reach of the gradient${of(l)}`, unit: many ? "lag at which 1% is left" : "lag, steps", n: points(reach), zero: true,
      none: `More than 1% is left ${there.map(run => run.flow.lags)[0]} steps back, at every measurement.`, note: "No point: more is left at the last lag.", draw: curves({ series: reach, zero: true }) });
    const growth = there.map(run => over(run, run.flow.layers[l].growth));
    figure(box, { id: `growth-${l}`, title: `Growth per step back${of(l)}`, unit: "factor of the norm", n: points(growth), none: "Not finite.", draw: curves({ series: growth, lines: [{ y: 1, text: "neither grows nor vanishes" }] }) });
  }
}

/* ------------------------------------------------------------------- words */

function samples() {
  const drawn = runs.filter(run => run.sample !== null);
  if (!drawn.length) return;
  const node = section("What it writes", "Drawn from the model of each file, at temperature 0.8.".replace("each", many ? "each" : "this"));
  const box = el("div", { class: "samples" });
  for (const run of drawn) box.append(el("div", {}, many ? el("h3", {}, key(run), `${run.rank} ${run.name}`) : null, el("pre", { class: "sample" }, run.sample.replace(/^\s+|\s+$/g, ""))));
  node.append(box);
}

function list(pairs) {
  return el("dl", {}, pairs.map(([name, text, attributes]) => [el("dt", {}, name), el("dd", attributes || {}, text)]));
}

function optionsOf(run) {
  const headings = [...new Set(data.options.map(option => option.heading))];
  return el("div", { class: "lists" }, headings.map(heading => el("section", {}, el("h3", {}, heading),
    list(data.options.filter(option => option.heading === heading).map(option => {
      const value = run.config[option.name], own = value !== option.default;
      return [option.name, optionText(value), { class: own ? "set" : "", title: `${option.help}; default ${optionText(option.default)}${option.unit ? ` (${option.unit})` : ""}` }];
    })))));
}

function originOf(run) {
  const p = run.provenance;
  const rows = [["file", run.file], ["command", el("code", {}, run.command_line)], ["weights", el("span", { class: "hash" }, `SHA-256 ${run.weights_sha256}`)],
    ["started", p.started], ["written", p.written], ["place", `${plural(p.ranks, "rank")} × ${plural(p.threads, "thread")} on ${p.hosts}`],
    ["CPU", `${p.cpu}, ${p.code_path}`], ["Slurm job", p.SLURM_JOB_ID], ["first weights", p.init_file && `${p.init_file}, SHA-256 ${p.init_sha256}`],
    ...run.changed.map(text => ["changed", text]),
    ["text", `${plural(p.train_tokens, "token")} for training, ${count(p.valid_tokens)} for validation, ${count(p.unknown_tokens)} unknown`],
    ...run.files.map(file => ["", [file.name, `, ${plural(file.bytes, "byte")}, `, el("span", { class: "hash" }, `SHA-256 ${file.sha256}`)]])];
  return el("div", { class: "origin" }, list(rows.filter(([, text]) => text)));
}

function details(title, text, content) {
  const node = section(title, text);
  for (const run of runs) {
    node.append(many ? el("details", {}, el("summary", {}, key(run), `${run.rank} ${run.name}`), content(run)) : content(run));
  }
}

/* --------------------------------------------------------------------- all */

head();
ranking();
learning();
speed();
spectra();
flow();
samples();
details("Options", "As they were used; strong: another value than the default.", optionsOf);
details("Origin", null, originOf);
page.append(el("footer", {}, `Made by ${data.source} (${data.revision}), ${data.written}. One file, no network.`, onScreen(" In a figure: drag to see a part, double-click to see all.")));

redraw();
document.body.dataset.ready = String(figures.length);

new ResizeObserver(() => redraw(figures.filter(f => f.box.clientWidth !== f.width))).observe(page);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());
addEventListener("beforeprint", () => { document.querySelectorAll("details").forEach(d => { d.open = true; }); });
matchMedia("print").addEventListener("change", () => redraw());
})();
