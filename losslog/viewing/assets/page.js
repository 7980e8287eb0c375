"use strict";
(() => {
  const DATA = JSON.parse(document.getElementById("data").textContent);
  const RUNS = DATA.runs, MANY = RUNS.length > 1, root = document.documentElement;
  const DASHES = [[], [6, 3], [2, 3], [9, 3, 2, 3], [1, 4], [12, 4]];
  const view = { x: null, unit: "step", scale: "fitted", smooth: 2, off: new Set() };
  const charts = [];
  let colours = {};

  // ------------------------------------------------------------------ the page's elements, all text as text

  function el(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else if (key === "own") made.style.setProperty("--own", `var(--run${value % 8})`);
      else made.setAttribute(key, value);
    }
    made.append(...children.flat().filter((each) => each !== null && each !== undefined && each !== ""));
    return made;
  }
  const short = (value) => {
    if (value === null || value === undefined || !isFinite(value)) return "–";
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
    return String(+value.toPrecision(4));
  };
  const clock = (seconds) => {
    const s = Math.max(0, Math.round(seconds)), two = (n) => String(n).padStart(2, "0");
    return s < 60 ? `${s} s` : s < 3600 ? `${(s / 60) | 0}:${two(s % 60)}` : `${(s / 3600) | 0}:${two(((s / 60) | 0) % 60)}:${two(s % 60)}`;
  };
  const bytes = (n) => (n < 1024 ? `${n} B` : n < 1 << 20 ? `${(n / 1024).toFixed(0)} KiB` : `${(n / (1 << 20)).toFixed(1)} MiB`);
  const many = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;
  const tail = (run) => run.id.replace(/^\d{8}-/, "");
  const distinct = new Set(RUNS.map((run) => run.name)).size === RUNS.length;
  const label = (run) => (MANY && !distinct ? `${run.name || "run"} ${tail(run)}` : run.name || run.id);
  const section = (title, hint, ...children) => {
    const made = el("section", {}, el("h2", {}, title, hint ? el("small", {}, hint) : ""), ...children);
    document.getElementById("main").append(made);
    return made;
  };

  // ------------------------------------------------------------------ axes: from steps to what is shown

  const UNITS = { step: "steps", epoch: "epochs", images: "images seen", time: "time" };
  const COLUMN = { epoch: 1, images: 2, time: 3 };
  function place(run, step) {
    if (view.unit === "step" || step === null) return step;
    const knots = run.knots, column = COLUMN[view.unit];
    if (!knots.length) return view.unit === "epoch" ? step : null;
    let low = 0, high = knots.length - 1;
    if (view.unit === "epoch") {
      const marks = run.marks;
      if (marks.length && marks[0][1] !== undefined) {
        let before = [marks[0][0] - 1, -1];
        for (const mark of marks) {
          if (step <= mark[1]) return before[0] + ((step - before[1]) / Math.max(1, mark[1] - before[1])) * (mark[0] - before[0]);
          before = mark;
        }
        const mean = before[1] / Math.max(1, before[0]);
        return before[0] + (mean ? (step - before[1]) / mean : 0);
      }
    }
    if (step <= knots[0][0]) return (knots[0][column] * (step + 1)) / (knots[0][0] + 1);
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (knots[middle][0] < step) low = middle; else high = middle;
    }
    const [a, b] = [knots[low], knots[high]];
    return b[0] === a[0] ? a[column] : a[column] + ((step - a[0]) / (b[0] - a[0])) * (b[column] - a[column]);
  }
  const units = Object.keys(UNITS).filter((unit) => unit !== "images" || RUNS.every((run) => run.knots.some((knot) => knot[2] > 0)));
  function perStep(run) {
    const last = run.knots[run.knots.length - 1];
    return last && last[0] >= 0 ? last[2] / (last[0] + 1) : 0;
  }
  if (MANY && units.includes("images")) {
    const sizes = RUNS.map(perStep);
    if (Math.max(...sizes) > 1.02 * Math.min(...sizes)) view.unit = "images";
  }
  else if (MANY && RUNS.some((run) => run.steps) && RUNS.some((run) => !run.steps && run.epoch)) view.unit = "epoch";

  // ------------------------------------------------------------------ series

  /** What one column draws: faint points that reach its lowest and highest values, and means for the line. */
  function parts(run, column) {
    const faint = [[], []], line = [[], []];
    if (!column || typeof column.x !== "number") return { faint, line };
    const xs = run.xs[column.x], wide = column.w > 1;
    for (let i = 0; i < xs.length; i++) {
      if (column.mean[i] === null) continue;
      if (wide && column.lo) {
        const top = xs[i] + column.at[i], first = column.at[i] > column.w / 2;
        const low = [first ? xs[i] : Math.max(top + 1, xs[i] + column.w - 1), column.lo[i]];
        for (const [x, y] of first ? [low, [top, column.hi[i]]] : [[top, column.hi[i]], low]) {
          faint[0].push(x);
          faint[1].push(y);
        }
      } else {
        faint[0].push(xs[i]);
        faint[1].push(column.mean[i]);
      }
      line[0].push(xs[i] + (column.w - 1) / 2);
      line[1].push(column.mean[i]);
    }
    return { faint, line };
  }
  function smoothed(values) {
    const reach = Math.floor((values.length * view.smooth) / 200);
    if (reach < 1) return values;
    return values.map((_, i) => { // each window anew: a running sum never forgets a spike
      let sum = 0, count = 0;
      for (let at = Math.max(0, i - reach); at <= Math.min(values.length - 1, i + reach); at++) { sum += values[at]; count++; }
      return sum / count;
    });
  }
  /** Aligned data out of tables of their own x. */
  function joined(tables, run) {
    const moved = tables.map(({ run, xs, ys, role }) => {
      const pairs = xs.map((x, i) => [place(run, x), ys[i]]).filter(([x, y]) => x !== null && isFinite(x) && (y !== null || role === "area"));
      pairs.sort((a, b) => a[0] - b[0]);
      const table = [[], []];
      for (const [x, y] of pairs) {
        if (table[0].length && table[0][table[0].length - 1] === x) table[1][table[1].length - 1] = y;
        else { table[0].push(x); table[1].push(y); }
      }
      return table;
    });
    return moved.length ? uPlot.join(moved) : [[]];
  }

  // ------------------------------------------------------------------ charts

  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const ownColour = (index) => colours[`run${index % 8}`];
  const faded = (colour, part) => colour + Math.round(part * 255).toString(16).padStart(2, "0");
  const visible = (index) => !view.off.has(index);

  function extent() {
    let low = Infinity, high = -Infinity;
    RUNS.forEach((run, index) => {
      if (!visible(index)) return;
      const ends = [];
      for (const xs of run.xs) if (xs.length) ends.push(xs[0], xs[xs.length - 1]);
      for (const mark of run.marks) ends.push(mark[1]);
      for (const each of Object.values(run.losses)) if (each && each.bad) ends.push(each.bad[0], each.bad[each.bad.length - 1]);
      if (!run.xs.length && !run.marks.length) for (const points of Object.values(run.means)) for (const point of points) ends.push(point[0]);
      for (const tag in run.evals) for (const point of run.evals[tag]) ends.push(point[0]);
      for (const x of ends) {
        const at = place(run, x);
        if (at !== null && isFinite(at)) { low = Math.min(low, at); high = Math.max(high, at); }
      }
    });
    if (!(low < high)) [low, high] = isFinite(low) ? [low - 0.5, low + 0.5] : [0, 1];
    return [low, high];
  }

  function nice(value) {
    if (view.unit === "time") return clock(value);
    const size = Math.abs(value);
    return size >= 1e6 ? `${+(value / 1e6).toFixed(2)}M` : size >= 1e4 ? `${+(value / 1e3).toFixed(1)}k` : short(value);
  }

  /** A chart that is drawn once it comes into sight.
   *  build() gives {series: [{run, xs, ys, ...uPlot's}], marks, stacked, legend, range}. */
  function chart(title, build, extra = {}) {
    const values = el("span", { class: "values" });
    const plot = el("div", { class: "plot" });
    const box = el("div", { class: "card chart" },
      el("div", { class: "top" }, el("span", {}, el("b", {}, title), " ", ...(extra.words || [])), values), plot);
    const made = { box, plot, values, build, extra, u: null, seen: false };
    charts.push(made);
    watcher.observe(box);
    return box;
  }
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const found = charts.find((each) => each.box === entry.target);
      found.seen = entry.isIntersecting;
      if (found.seen && (!found.u || found.stale)) draw(found);
    }
  }, { rootMargin: "400px" });

  function draw(made) {
    if (made.u) made.u.destroy();
    made.stale = false;
    const { series, marks = [], bands = null, legend = false, low = null } = made.build();
    const width = Math.max(200, made.plot.clientWidth);
    const shown = series.filter((each) => visible(each.index));
    const data = made.data = joined(shown);
    const range = (u, min, max) => yRange(made, u, shown, low);
    const options = {
      width, height: legend ? 190 : 170, legend: { show: legend, live: true }, padding: [8, 8, 0, 0],
      cursor: { sync: { key: "losslog" }, drag: { x: true, y: false, setScale: false }, points: { show: false }, bind: { dblclick: () => () => { zoom(null); return null; } } },
      scales: { x: { time: false, range: () => view.x || extent() }, y: { range, distr: view.scale === "log" && !bands && !made.extra.linear ? 3 : 1 } },
      axes: [
        { stroke: colours.soft, grid: { stroke: colours.grid, width: 1 }, ticks: { show: false }, size: 24, font: FONT, values: (u, at) => at.map(nice), space: 60 },
        { stroke: colours.soft, grid: { stroke: colours.grid, width: 1 }, ticks: { show: false }, size: room, font: FONT, values: labels },
      ],
      series: [{ label: UNITS[view.unit], value: (u, value) => (value === null ? "" : nice(value)) }, ...shown.map(({ run, index, xs, ys, role, ...rest }) => ({ spanGaps: true, value: (u, value) => (value === null || value === undefined ? "" : short(value)), ...rest }))],
      bands: bands ? bands(shown) : undefined,
      hooks: { setSelect: [selected], setCursor: [(u) => readout(made, u, shown)], draw: [(u) => drawMarks(made, u, shown, marks)] },
    };
    made.u = new uPlot(options, data, made.plot);
    made.shown = shown;
  }
  const FONT = '11px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';

  /** Labels that tell neighbours apart, and the room they take. */
  function labels(u, at, axis, space, step) {
    const size = Math.max(...at.map((each) => Math.abs(each || 0)));
    const digits = Math.min(12, Math.max(4, Math.ceil(Math.log10(size / step || 1)) + 1));
    return at.map((each) => {
      if (each === null) return "";
      const small = Math.abs(each) < step / 1000 ? 0 : each;
      return small !== 0 && (size < 1e-3 || size >= 1e6) ? small.toExponential(digits > 4 ? digits - 1 : 2).replace(/\.?0+e/, "e").replace("e+", "e") : String(+small.toPrecision(digits));
    });
  }
  const room = (u, texts) => Math.max(50, 14 + 6.3 * Math.max(0, ...(texts || []).map((each) => each.length)));

  function yRange(made, u, shown, low) {
    const [from, to] = view.x || extent();
    const xs = made.data[0], start = from + 0.04 * (to - from);
    let bottom = Infinity, top = -Infinity, all = -Infinity, under = Infinity;
    shown.forEach((each, place) => {
      const ys = made.data[place + 1];
      if (u.series[place + 1] && u.series[place + 1].show === false) return;
      for (let i = 0; i < xs.length; i++) {
        const y = ys[i];
        if (y === null || y === undefined || xs[i] < from || xs[i] > to) continue;
        all = Math.max(all, y);
        under = Math.min(under, y);
        if (each.role === "faint" || (each.role === "line" && xs[i] < start)) continue;
        top = Math.max(top, y);
        bottom = Math.min(bottom, y);
      }
    });
    if (all === -Infinity) return view.scale === "log" ? [0.1, 1] : [0, 1];
    if (view.scale === "log" && !made.extra.linear) {
      if (under <= 0) under = Math.max(1e-9, all * 1e-6);
      return all > under ? [under * 0.9, all * 1.1] : [under / 2, under * 2 || 1];
    }
    if (top === -Infinity) { top = all; bottom = under; }
    if (view.scale === "full" || all < 1.8 * top || top <= 0) { top = all; }
    else top *= 1.25;
    bottom = Math.min(bottom, view.scale === "full" ? under : bottom);
    if (low !== null) bottom = Math.min(bottom, low);
    const noise = top - bottom <= 1e-6 * Math.max(Math.abs(top), Math.abs(bottom)); // what a float32 is rounded by
    const pad = (noise ? 0 : 0.05 * (top - bottom)) || Math.abs(top) * 0.1 || 0.5;
    return [bottom >= 0 ? Math.max(0, bottom - pad) : bottom - pad, top + pad];
  }

  let zooming = false;
  function selected(u) {
    if (u.select.width > 4 && !zooming) {
      zooming = true; // the other charts are told of the same selection, and would each zoom again
      setTimeout(() => { zooming = false; });
      zoom([u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x")]);
    }
    u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
  }
  function zoom(range) {
    view.x = range;
    resetButton.hidden = range === null;
    const [min, max] = range || extent();
    for (const each of charts) if (each.u) each.u.batch(() => { each.u.setScale("x", { min, max }); });
  }
  function redraw() {
    for (const each of charts) {
      if (each.seen || printing) draw(each);
      else each.stale = true;
    }
  }

  /** The values of all runs under the cursor, in every chart at once. */
  function readout(made, u, shown) {
    const left = u.cursor.left;
    if (left === undefined || left < 0 || !made.extra.readout) { made.values.replaceChildren(...(made.rest || [])); return; }
    const x = u.posToVal(left, "x"), told = [];
    shown.forEach((each, place) => {
      if (each.role !== "line" && each.role !== "faint") return;
      const near = nearest(made.data[0], made.data[place + 1], x);
      if (near === null) return;
      const known = told.find((entry) => entry.index === each.index) || (told.push({ index: each.index }), told[told.length - 1]);
      known[each.role] = made.data[place + 1][near];
      if (each.role === "faint") known.high = highest(made, place + 1, near);
    });
    made.values.replaceChildren(`${view.unit} ${nice(x)}`, ...told.map((each) => {
      const line = each.line === undefined ? each.faint : each.line;
      const peak = each.high > 1.5 * Math.abs(line) ? ` ▲${short(each.high)}` : "";
      return el("span", { own: each.index }, `${short(line)}${peak}`);
    }));
  }
  function highest(made, row, at) {
    let found = -Infinity;
    for (let i = Math.max(0, at - 3); i <= Math.min(made.data[0].length - 1, at + 3); i++) if (made.data[row][i] > found) found = made.data[row][i];
    return found;
  }
  function nearest(xs, ys, x) {
    if (!xs.length) return null;
    let low = 0, high = xs.length - 1;
    while (high - low > 1) { const middle = (low + high) >> 1; if (xs[middle] < x) low = middle; else high = middle; }
    for (let reach = 0; reach < 400; reach++) {
      for (const at of [low - reach, high + reach]) if (at >= 0 && at < xs.length && ys[at] !== null && ys[at] !== undefined) return at;
    }
    return null;
  }

  /** Alerts, resumes, cuts, ends of epochs, values out of sight, values that are not finite. */
  function drawMarks(made, u, shown, marks) {
    const { ctx, bbox } = u, ratio = devicePixelRatio || 1;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    const across = (x) => u.valToPos(x, "x", true);
    const upright = (x, colour, dash, from = bbox.top) => {
      ctx.beginPath();
      ctx.setLineDash(dash.map((each) => each * ratio));
      ctx.strokeStyle = colour;
      ctx.lineWidth = 1.4 * ratio;
      ctx.moveTo(across(x), from);
      ctx.lineTo(across(x), bbox.top + bbox.height);
      ctx.stroke();
    };
    const sign = (text, x, colour, y) => {
      ctx.setLineDash([]);
      ctx.fillStyle = colour;
      ctx.font = `${10 * ratio}px system-ui, "DejaVu Sans", sans-serif`;
      ctx.textAlign = "center";
      ctx.fillText(text, Math.min(bbox.left + bbox.width - 6 * ratio, Math.max(bbox.left + 6 * ratio, across(x))), y);
    };
    RUNS.forEach((run, index) => {
      if (!visible(index)) return;
      let last = -Infinity;
      for (const [, step] of run.marks) {
        const at = across(place(run, step));
        if (at - last < 12 * ratio) continue;
        last = at;
        upright(place(run, step), faded(ownColour(index), 0.5), [], bbox.top + bbox.height - 4 * ratio);
      }
      for (const [step] of run.resumes) {
        if (step === null) continue;
        upright(place(run, step), faded(colours.soft, 0.7), []);
        sign("⟲", place(run, step), colours.soft, bbox.top + 10 * ratio);
      }
      for (const step of run.cuts) upright(place(run, step), faded(colours.soft, 0.5), [1, 3]);
    });
    for (const mark of marks) {
      if (!visible(mark.index)) continue;
      const colour = mark.level === "error" ? colours.error : mark.level === "info" ? colours.info : colours.warn;
      upright(mark.x, colour, [4, 3]);
      sign("▲", mark.x, colour, bbox.top + bbox.height - 1 * ratio);
    }
    const [, top] = [u.scales.y.min, u.scales.y.max];
    const taken = [];
    shown.forEach((each, row) => {
      if (each.role !== "faint") return;
      const xs = made.data[0], ys = made.data[row + 1];
      let peak = null;
      const tell = () => {
        if (peak !== null && !taken.some((at) => Math.abs(at - across(xs[peak])) < 9 * ratio)) {
          taken.push(across(xs[peak]));
          sign("▲", xs[peak], ownColour(each.index), bbox.top + 9 * ratio);
        }
        peak = null;
      };
      for (let i = 0; i < xs.length; i++) {
        if (ys[i] === null || ys[i] === undefined) continue;
        if (ys[i] > top && across(xs[i]) >= bbox.left) peak = peak === null || ys[i] > ys[peak] ? i : peak;
        else if (ys[i] <= top) tell();
      }
      tell();
      let last = -Infinity;
      for (const step of each.bad || []) if (across(place(each.run, step)) - last > 9 * ratio && (last = across(place(each.run, step)))) sign("✕", place(each.run, step), colours.error, bbox.top + 9 * ratio);
    });
    ctx.restore();
  }

  // ------------------------------------------------------------------ what stands in the charts

  function componentSeries(name) {
    const series = [];
    RUNS.forEach((run, index) => {
      const column = name === null ? run.total : run.losses[name];
      const colour = ownColour(index);
      const { faint, line } = parts(run, column);
      const bad = column && column.bad && [...column.bad];
      const end = run.knots.length ? run.knots[run.knots.length - 1][0] : 0; // the page has the first steps alone
      if (bad && typeof column.badSince === "number") for (let i = 0, from = bad[bad.length - 1]; i < 400; i++) bad.push(from + ((end - from) * (i + 1)) / 400);
      if (faint[0].length || bad) series.push({ run, index, role: "faint", xs: faint[0], ys: faint[1], bad, stroke: faded(colour, MANY ? 0.28 : 0.35), width: 1, points: { show: faint[0].length < 3, size: 3 } });
      if (line[0].length > 2) series.push({ run, index, role: "line", xs: line[0], ys: smoothed(line[1]), stroke: colour, width: 1.8, points: { show: false } });
      const means = name === null ? run.totals : run.means[name];
      const points = (list, fill) => list && list.length && series.push({ run, index, role: "points", xs: list.map((each) => each[0]), ys: list.map((each) => each[1]), stroke: colour, paths: () => null, points: { show: true, size: list.length > 40 || RUNS.length > 3 ? 4 : 6, width: 1.3, stroke: colour, fill } });
      if (line[0].length < 3 && means && means.length > 1) series.push({ run, index, role: "line", xs: means.map((each) => each[0]), ys: means.map((each) => each[1]), stroke: colour, width: 1.8, points: { show: false } });
      points(means, colour);
      points(run.val[name === null ? "total" : name], colours.back);
    });
    return series;
  }
  function alertMarks(name) {
    const marks = [];
    RUNS.forEach((run, index) => {
      for (const alert of run.alerts) {
        if (alert.step === null || alert.step === undefined) continue;
        if (name === null || alert.component === name) marks.push({ index, x: place(run, alert.step), level: alert.level });
      }
    });
    return marks;
  }
  function verdictsOf(name) {
    const words = RUNS.map((run) => run.verdicts[name]);
    if (!words.some(Boolean)) return [];
    const bad = (word) => word && !/^(improving|converged|unclear|warming up)/.test(word);
    return words.flatMap((word, index) => [index ? el("span", { class: "verdict" }, " | ") : "", el("span", { class: `verdict${bad(word) ? " bad" : ""}` }, word || "–")]);
  }
  /** The components of a run that were not finite, and a word on each. */
  const lostIn = (run) => Object.keys(run.losses).filter((name) => run.losses[name] && run.losses[name].badCount);
  const since = (column) => (column.badSince === null || column.badSince === undefined ? `${column.badCount} value${column.badCount > 1 ? "s" : ""}, the first at step ${column.bad[0]}` : `from step ${column.badSince} on`);
  const lostWords = (run) => lostIn(run).slice(0, 3).map((name) => el("span", { class: "verdict bad" }, `${name} not finite: ${since(run.losses[name])}; `));
  const union = (key) => [...new Set(RUNS.flatMap((run) => Object.keys(run[key])))];

  /** Several series of one kind in one chart: colour by run where there are several, by series where there is one. */
  function family(tags, take, extra = {}) {
    return () => {
      const series = [];
      RUNS.forEach((run, index) => tags.forEach((tag, place) => {
        const found = take(run, tag);
        if (!found || !found.xs.length) return;
        const stroke = MANY ? ownColour(index) : ownColour(place);
        series.push({ run, index, role: "line", xs: found.xs, ys: found.ys, stroke, width: 1.7, dash: MANY ? DASHES[place % DASHES.length] : DASHES[Math.floor(place / 8) % DASHES.length], label: tags.length === 1 && MANY ? label(run) : `${MANY ? `${label(run)} ` : ""}${extra.name ? extra.name(tag) : tag}`, points: { show: found.xs.length < 40, size: 4 } });
      }));
      return { series, legend: series.length > 1, low: extra.low === undefined ? null : extra.low };
    };
  }
  const column = (kind) => (run, tag) => {
    const { line } = parts(run, run[kind][tag]);
    return { xs: line[0], ys: line[1] };
  };
  const ofEvals = (run, tag) => {
    const points = run.evals[tag] || [];
    return { xs: points.map((each) => each[0]), ys: points.map((each) => each[1]) };
  };

  function shares(run, index) {
    return () => {
      const drawn = (name) => run.losses[name] && typeof run.losses[name].x === "number";
      const sorted = Object.keys(run.losses).filter(drawn).sort((a, b) => heights[b] - heights[a] || (a < b ? -1 : 1)); // the same order, so colours, in all runs
      const first = sorted.slice(0, 7), others = sorted.slice(7), lost = lostIn(run);
      const wide = Math.max(1, ...sorted.map((name) => run.losses[name].w)), rows = new Map();
      for (const name of sorted) {
        const { line } = parts(run, run.losses[name]);
        const ys = smoothed(line[1]);
        line[0].forEach((x, i) => {
          const start = Math.floor(x / wide) * wide;
          if (!rows.has(start)) rows.set(start, {});
          const row = rows.get(start), known = row[name] || (row[name] = [0, 0]);
          known[0] += Math.abs(ys[i]);
          known[1]++;
        });
      }
      const at = new Map(), starts = [...rows.keys()].sort((a, b) => a - b), order = starts.map((x) => x + (wide - 1) / 2);
      starts.forEach((start, i) => {
        const row = rows.get(start), found = {};
        if (lost.every((name) => name in row)) for (const name in row) {
          const key = others.includes(name) ? "others" : name;
          found[key] = (found[key] || 0) + row[name][0] / row[name][1];
        }
        at.set(order[i], found); // empty where one is not finite: nothing has a share of that
      });
      const keys = others.length ? [...first, `others`] : first;
      const series = [];
      let below = order.map(() => 0);
      const tops = [];
      for (const key of keys) {
        below = order.map((x, i) => {
          const row = at.get(x), sum = keys.reduce((total, each) => total + (row[each] || 0), 0);
          return sum ? below[i] + (100 * (row[key] || 0)) / sum : null;
        });
        tops.push(below);
      }
      keys.map((key, place) => [key, place]).reverse().forEach(([key, place]) => {
        const colour = ownColour(place);
        series.push({ run, index, role: "area", xs: order, ys: tops[place], stroke: colour, fill: faded(colour, 0.75), width: 1, spanGaps: false, label: key === "others" ? many(others.length, "other") : key, points: { show: false },
          value: (u, value, row, i) => (i === null || value === null || value === undefined ? "" : `${short(value - (place ? tops[place - 1][order.indexOf(order[i])] : 0))} %`) });
      });
      return { series, legend: true, low: 0, bands: () => keys.slice(1).map((_, i) => ({ series: [i + 1, i + 2] })), marks: alertMarks(null).filter((mark) => mark.index === index) };
    };
  }

  // ------------------------------------------------------------------ sections

  let printing = false;
  const resetButton = el("button", { hidden: "", onclick: () => zoom(null) }, "whole run");

  function head() {
    const header = document.getElementById("head");
    header.append(el("div", { class: "runs" }, ...RUNS.map((run, index) => {
      const done = run.epochs ? `epoch ${run.epoch}/${run.epochs}` : run.epoch ? many(run.epoch, "epoch") : many(run.steps, "step");
      const chip = el("button", { class: "chip", own: index, "aria-pressed": "true", title: MANY ? "show or hide this run" : "", onclick: () => {
        if (!MANY) return;
        if (view.off.has(index)) view.off.delete(index); else view.off.add(index);
        chip.setAttribute("aria-pressed", String(visible(index)));
        redraw();
      } }, el("h1", { style: "display:inline" }, run.name || "run"), el("span", {}, ` ${run.id} · ${run.status} · ${done} · ${clock(run.seconds)}`));
      return chip;
    })));
    const choose = (name, options, value, change) => el("label", {}, `${name} `, el("select", { onchange: (event) => { change(event.target.value); redraw(); } }, ...options.map(([key, text]) => el("option", key === value ? { value: key, selected: "" } : { value: key }, text))));
    header.append(el("div", { class: "tools" },
      choose("by", units.map((unit) => [unit, UNITS[unit]]), view.unit, (unit) => { view.unit = unit; view.x = null; resetButton.hidden = true; }),
      choose("scale", [["fitted", "fitted to the lines"], ["full", "with every spike"], ["log", "logarithmic"]], view.scale, (scale) => { view.scale = scale; }),
      choose("smoothing", [["0", "none"], ["1", "1 %"], ["2", "2 %"], ["5", "5 %"], ["10", "10 %"]], String(view.smooth), (part) => { view.smooth = +part; }),
      el("button", { class: "theme", onclick: () => theme(root.dataset.theme === "dark" ? "light" : "dark") }, "light / dark"), resetButton,
      el("span", {}, "drag across a chart to zoom all, double click to leave")));
  }

  function notes() {
    const main = document.getElementById("main");
    const note = (level, ...children) => main.append(el("div", { class: `card note ${level}` }, ...children));
    for (const each of DATA.comparison) note("info", el("b", {}, "Where they part"), el("span", { class: "soft" }, each.of), el("ul", {}, ...each.lines.map((line) => el("li", {}, line))));
    RUNS.forEach((run, index) => {
      const dot = MANY ? el("span", { class: "dot", own: index }) : "";
      if (run.error) note("error", dot, el("b", {}, `The run ${run.status}`), el("p", {}, run.error));
      else if (run.status === "crashed") note("error", dot, el("b", {}, "The run crashed"), el("span", { class: "soft" }, "its process is gone, and its journal has no end"));
      const ranked = ["error", "warning", "info"].flatMap((level) => run.alerts.filter((alert) => alert.level === level));
      ranked.slice(0, 30).forEach((alert) => {
        const where = [alert.step !== null && alert.step !== undefined ? `step ${alert.step}` : "", alert.epoch ? `epoch ${alert.epoch}` : "", alert.source].filter(Boolean).join(", ");
        note(alert.level, dot.cloneNode ? dot.cloneNode() : "", el("b", {}, alert.title), el("span", { class: "soft" }, where), alert.text && alert.text !== alert.title ? el("p", {}, alert.text) : "");
      });
      if (ranked.length > 30) note("", dot.cloneNode ? dot.cloneNode() : "", `${many(ranked.length - 30, "more alert")}: losslog show ${run.id}`);
      const wrong = Object.entries({ ...run.losses, total: run.total }).filter(([, each]) => each && each.badCount);
      if (wrong.length) note("error", dot.cloneNode ? dot.cloneNode() : "", el("b", {}, "Not finite"), el("ul", {}, ...wrong.map(([name, each]) => el("li", {}, `${name}: ${since(each)}${each.badSince === null || each.badSince === undefined ? "" : ` (${many(each.badCount, "value")} in all)`}`))));
    });
    if (!RUNS.some((run) => run.steps || run.epoch)) note("", "No losses have been logged yet.");
  }

  function components() {
    const names = union("losses");
    for (const name of union("means")) if (!names.includes(name)) names.push(name);
    if (!names.length) return;
    const box = el("div", { class: "charts" });
    section("Components", "faint: every step, its spikes kept · line: smoothed · ● epoch mean · ○ validation · ┆ alert · ▲ above the chart · ⟲ resume", box);
    const one = (name) => box.append(chart(name === null ? "total" : name, () => ({ series: componentSeries(name), marks: alertMarks(name) }), { readout: true, words: verdictsOf(name === null ? "total" : name) }));
    names.forEach(one);
    if (RUNS.some((run) => run.total || run.totals.length)) one(null);
    const left = RUNS.reduce((sum, run) => sum + run.leftOut, 0);
    if (left) box.append(el("p", { class: "soft" }, `${left} more series are in the journal.`));
  }

  const heights = Object.fromEntries(union("losses").map((name) => [name, RUNS.reduce((sum, run) => sum + (((run.losses[name] || {}).mean || []).reduce((all, each) => all + Math.abs(each || 0), 0) / Math.max(1, run.steps)), 0)]));
  function share() {
    const box = el("div", { class: "charts" });
    RUNS.forEach((run, index) => {
      if (Object.keys(run.losses).length > 1) box.append(chart(MANY ? label(run) : "share", shares(run, index), { linear: true, words: lostWords(run) }));
    });
    if (box.children.length) section("Share of the total", "%", box);
  }

  function metrics() {
    const box = el("div", { class: "charts" });
    const tags = union("evals").filter((tag) => !tag.startsWith("mAP_class"));
    const groups = new Map();
    for (const tag of tags) {
      const [group, name] = [tag.slice(0, tag.indexOf("/")), tag.slice(tag.indexOf("/") + 1)];
      const key = group.startsWith("mAP") ? (/_AP$/.test(name) ? `${group}: AP` : /_AP(50|75)$/.test(name) ? `${group}: AP50, AP75` : /_AP[sml]$/.test(name) ? `${group}: AP by size` : `${group}: AR`) : group;
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(tag);
    }
    for (const [key, found] of groups) if (!/AR$|by size$/.test(key)) box.append(chart(key, family(found, ofEvals, { low: /^mAP/.test(key) ? 0 : undefined, name: (tag) => tag.slice(tag.indexOf("/") + 1) }), { linear: true }));
    if (box.children.length) section("Evaluation", "", box);
    table();

    const rates = el("div", { class: "charts" });
    if (union("rates").length) rates.append(chart("learning rate", family(union("rates"), column("rates"), { low: 0 })));
    const weights = union("weights");
    if (weights.length) rates.append(chart("weights of the components", family(weights, column("weights"))));
    const kinds = new Map();
    const size = (tag) => Math.max(...RUNS.map((run) => { const found = (run.metrics[tag] || {}).mean || []; return Math.abs(found[found.length >> 1] || 0); }));
    for (const tag of union("metrics")) {
      let kind = tag.includes("/") ? tag.slice(0, tag.indexOf("/")) : tag;
      const before = kinds.get(kind);
      if (before && !(Math.abs(Math.log10(size(tag) || 1e-9) - Math.log10(size(before[0]) || 1e-9)) < 1.3)) kind = tag;
      if (!kinds.has(kind)) kinds.set(kind, []);
      kinds.get(kind).push(tag);
    }
    const first = ["reach", "grad_norm"];
    const order = [...kinds.keys()].sort((a, b) => (first.indexOf(b) - first.indexOf(a)) || (a < b ? -1 : 1));
    for (const kind of order) {
      const found = kinds.get(kind);
      for (let i = 0; i < found.length; i += 8) rates.append(chart(found.length > 8 ? `${kind} ${i / 8 + 1}` : found.length === 1 ? found[0] : kind, family(found.slice(i, i + 8), column("metrics"))));
    }
    if (rates.children.length) section("Learning rates, gradients, other metrics", "", rates);
  }

  const change = (a, b, percent) => {
    const delta = (b - a) * (percent ? 100 : 1);
    return el("td", { class: Math.abs(delta) < 0.05 ? "" : delta > 0 ? "up" : "down" }, Math.abs(delta) < 0.05 ? "0.0" : `${delta > 0 ? "+" : ""}${delta.toFixed(1)}`);
  };
  function table() {
    const tags = union("evals").filter((tag) => /^mAP/.test(tag) && (tag.startsWith("mAP_class") || /_AP(50|75|s|m|l)?$/.test(tag)));
    if (!tags.length) return;
    const last = (run, tag) => { const points = run.evals[tag]; return points && points.length ? points[points.length - 1] : null; };
    const best = (run, tag) => (run.evals[tag] || []).reduce((a, b) => (a === null || (b[1] !== null && b[1] > a[1]) ? b : a), null);
    const cell = (point) => el("td", {}, point === null || point[1] === null ? "–" : point[1].toFixed(3));
    const heading = MANY
      ? [...RUNS.map((run, index) => el("th", {}, el("span", { class: "dot", own: index }), label(run))), ...(RUNS.length === 2 ? [el("th", {}, "Δ")] : [])]
      : [el("th", {}, "last"), el("th", {}, "best"), el("th", {}, "in epoch")];
    const rows = tags.slice(0, 200).map((tag) => el("tr", {}, el("td", {}, tag), ...(MANY
      ? [...RUNS.map((run) => cell(last(run, tag))), ...(RUNS.length === 2 ? [RUNS.every((run) => last(run, tag)) ? change(last(RUNS[0], tag)[1], last(RUNS[1], tag)[1], true) : el("td", {}, "–")] : [])]
      : [cell(last(RUNS[0], tag)), cell(best(RUNS[0], tag)), el("td", {}, String((best(RUNS[0], tag) || [0, 0, "–"])[2]))])));
    section("Average precision, overall and by class", MANY ? "the last evaluation" : "", el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, el("th", {}, ""), ...heading)), el("tbody", {}, ...rows))),
      tags.length > 200 ? el("p", { class: "soft" }, `${tags.length - 200} more in the journal.`) : "");
  }

  function trains() {
    RUNS.forEach((run) => {
      const [heading, ...rows] = run.trains;
      if (heading) section(MANY ? `What each loss trains: ${label(run)}` : "What each loss trains", run.trainsAt === null ? "" : `tensors by part of the model, at step ${run.trainsAt}`, el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ...heading.map((text) => el("th", {}, text)))), el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((text) => el("td", {}, text))))))));
    });
  }

  function pairs(title, key, hint) {
    const names = union(key);
    if (!names.length) return;
    const rows = names.map((name) => {
      const texts = RUNS.map((run) => (name in run[key] ? run[key][name] : "–"));
      const plain = texts.map((text) => text.replace(/ at 0x[0-9a-fA-F]+/g, "")); // where an object lies is no setting
      return el("tr", MANY && plain.some((text) => text !== plain[0]) ? { class: "differs" } : {}, el("td", {}, name), ...texts.map((text) => el("td", { class: "text" }, text)));
    });
    const heading = MANY ? el("thead", {}, el("tr", {}, el("th", {}, ""), ...RUNS.map((run, index) => el("th", { style: "text-align:left" }, el("span", { class: "dot", own: index }), label(run))))) : "";
    section(title, hint, el("div", { class: "scroll" }, el("table", {}, heading, el("tbody", {}, ...rows))));
  }

  function rest() {
    pairs("Config", "config", MANY ? "differences bold" : "");
    pairs("Run", "about", "");
    const list = (title, hint, heading, rows, closed) => rows.length && section(title, hint, el(closed && rows.length > 6 ? "details" : "div", {}, closed && rows.length > 6 ? el("summary", {}, closed) : "", el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ...heading.map((text) => el("th", {}, text)))), el("tbody", {}, ...rows)))));
    const own = (run, index) => (MANY ? el("span", { class: "dot", own: index, title: label(run) }) : "");
    list("Checkpoints", "", ["file", "epoch", "step"], RUNS.flatMap((run, index) => run.checkpoints.map(([path, epoch, step]) => el("tr", {}, el("td", {}, own(run, index), path), el("td", {}, String(epoch ?? "–")), el("td", {}, String(step ?? "–"))))), "all that are in the journal");
    list("Plugins", "how far each had the journal when this page was made", ["plugin", "", "behind"], RUNS.flatMap((run, index) => run.plugins.map(([name, complete, behind, seq]) => el("tr", complete ? {} : { class: "differs" }, el("td", {}, own(run, index), name), el("td", {}, complete ? "complete" : `up to record ${seq}`), el("td", {}, complete ? "" : bytes(behind))))));
    pairs("What logging cost", "cost", "");
    const made = new Date(1000 * DATA.made).toISOString().slice(0, 16).replace("T", " ");
    document.getElementById("foot").append(`Made ${made} UTC by losslog from ${RUNS.map((run) => `${many(run.records, "record")} (${bytes(run.bytes)})`).join(", ")}. `,
      RUNS.some((run) => run.garbled) ? `Skipped: ${many(RUNS.reduce((sum, run) => sum + run.garbled, 0), "garbled line")}. ` : "", "Charts by uPlot (MIT).");
  }

  // ------------------------------------------------------------------ images: boxes and masks over small pictures

  /** COCO's compressed run lengths, painted down the columns. */
  function paint(data, text, width, height, colour) {
    const runs = [];
    for (let at = 0; at < text.length;) {
      let value = 0, shift = 0, more = true;
      while (more && at < text.length) {
        const bits = text.charCodeAt(at++) - 48;
        value |= (bits & 31) << shift;
        shift += 5;
        more = (bits & 32) !== 0;
        if (!more && bits & 16) value |= -1 << shift;
      }
      runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
    }
    let place = 0;
    runs.forEach((run, turn) => {
      if (turn % 2) for (let i = place; i < place + run && i < width * height; i++) {
        const pixel = 4 * ((i % height) * width + Math.floor(i / height));
        for (let part = 0; part < 3; part++) data[pixel + part] = 0.55 * data[pixel + part] + 0.45 * colour[part];
      }
      place += run;
    });
  }
  const GAP = 2;
  function drawImage(canvas, image, found, picture) {
    const both = image.f.length || image.both, ratio = devicePixelRatio > 1 ? 2 : 1;
    const width = both ? 2 * image.w + GAP : image.w;
    canvas.width = width * ratio;
    canvas.height = image.h * ratio;
    canvas.style.width = `${width}px`;
    const at = canvas.getContext("2d");
    at.scale(ratio, ratio);
    (both ? [image.t, image.f] : [image.t]).forEach((things, number) => {
      const small = document.createElement("canvas");
      small.width = image.w;
      small.height = image.h;
      const ground = small.getContext("2d");
      ground.fillStyle = "rgb(190, 190, 190)";
      ground.fillRect(0, 0, image.w, image.h);
      if (picture) ground.drawImage(picture, 0, 0, image.w, image.h);
      const pixels = ground.getImageData(0, 0, image.w, image.h);
      for (const [, label, , , mask] of things) if (mask) paint(pixels.data, mask, image.w, image.h, found.colours[label]);
      ground.putImageData(pixels, 0, 0);
      const left = number * (image.w + GAP);
      at.drawImage(small, left, 0);
      for (const [[x1, y1, x2, y2], label, , wrong] of things) {
        if (wrong) { at.strokeStyle = "rgb(225, 20, 20)"; at.lineWidth = 2; at.strokeRect(left + x1 - 1.5, y1 - 1.5, x2 - x1 + 3, y2 - y1 + 3); }
        at.strokeStyle = `rgb(${found.colours[label]})`;
        at.lineWidth = wrong ? 1 : 1.6;
        at.strokeRect(left + x1, y1, x2 - x1, y2 - y1);
      }
      at.font = '9px system-ui, "DejaVu Sans", sans-serif';
      const taken = [], made = [];
      for (const [[x1, y1, , y2], label, score, wrong] of [...things].sort((a, b) => (b[2] ?? 1) - (a[2] ?? 1))) {
        const chips = [[`${found.labels[label].slice(0, 16)}${score === null ? "" : ` ${score.toFixed(2)}`}`, found.colours[label]]];
        if (wrong) chips.push([wrong.replace("_", " "), [225, 20, 20]]);
        const widths = chips.map(([text]) => at.measureText(text).width + 3), wide = widths.reduce((a, b) => a + b, 0);
        const x = Math.max(left, left + Math.min(x1, image.w - wide));
        const tops = [y1 - 10, y1 + 1, y2 + 1, y2 - 11, y1 + 12].map((top) => Math.min(Math.max(0, top), image.h - 10));
        const y = tops.find((top) => !taken.some(([from, to, other]) => from < x + wide && x < to && Math.abs(top - other) < 10)) ?? tops[0];
        taken.push([x, x + wide, y]);
        made.push([x, y, chips, widths]);
      }
      for (let [x, y, chips, widths] of made.reverse()) {
        chips.forEach(([text, colour], place) => {
          at.fillStyle = `rgb(${colour})`;
          at.fillRect(x, y, widths[place], 10);
          at.fillStyle = 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2] > 140 ? "#000" : "#fff";
          at.fillText(text, x + 1.5, y + 8);
          x += widths[place];
        });
      }
    });
  }
  function images() {
    RUNS.forEach((run, index) => {
      const found = run.images || {}, names = Object.keys(found.sets || {});
      if (names.length) {
        const pictures = {}, shown = { name: names.includes("val hardest") ? "val hardest" : names[0], at: 0 };
        const box = el("div", { class: "images" }), word = el("span", { class: "soft" });
        const slider = el("input", { type: "range", min: "0", step: "1", "aria-label": "epoch", oninput: (event) => { shown.at = +event.target.value; show(); } });
        const choose = el("select", { "aria-label": "which images", onchange: (event) => { shown.name = event.target.value; open(); } }, ...names.map((name) => el("option", name === shown.name ? { value: name, selected: "" } : { value: name }, name)));
        const picture = (key, then) => {
          if (!key || !found.pictures[key]) { then(null); return; }
          if (!pictures[key]) { pictures[key] = new Image(); pictures[key].src = found.pictures[key]; }
          if (pictures[key].complete) then(pictures[key]); else pictures[key].addEventListener("load", () => then(pictures[key]), { once: true });
        };
        const show = () => {
          const [epoch, list] = found.sets[shown.name][shown.at], many = list.some((image) => image.f.length);
          word.textContent = `epoch ${epoch}`;
          box.replaceChildren(...list.map((image) => {
            const canvas = el("canvas", { role: "img", "aria-label": image.c });
            picture(image.p, (loaded) => drawImage(canvas, { ...image, both: many }, found, loaded));
            return el("figure", {}, canvas, el("figcaption", {}, image.c));
          }));
        };
        const open = () => {
          const last = found.sets[shown.name].length - 1;
          slider.max = String(last);
          slider.hidden = last < 1;
          shown.at = last;
          slider.value = String(last);
          show();
        };
        section(MANY ? `Images: ${label(run)}` : "Images", "truth on the left, predictions on the right; what is wrong is framed in red", el("div", { class: "tools" }, choose, slider, word), box);
        open();
      }
      const rows = Object.entries(run.hardest || {}).flatMap(([name, batches]) => batches.map(([value, step, ids], place) => el("tr", {}, el("td", {}, place ? "" : name), el("td", {}, short(value)), el("td", {}, String(step)), el("td", { class: "text" }, ids))));
      if (rows.length) section(MANY ? `Highest losses: ${label(run)}` : "Highest losses", `batches of epoch ${run.hardestEpoch}`, el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ...["loss", "value", "step", "images"].map((text) => el("th", {}, text)))), el("tbody", {}, ...rows))));
    });
  }

  // ------------------------------------------------------------------ light, dark, print, width

  function theme(name) {
    root.dataset.theme = name;
    colours = Object.fromEntries(["soft", "grid", "warn", "error", "info", "back", ...Array.from({ length: 8 }, (_, i) => `run${i}`)].map((key) => [key, css(`--${key}`)]));
    redraw();
  }
  const dark = matchMedia("(prefers-color-scheme: dark)");
  theme(dark.matches ? "dark" : "light");
  dark.addEventListener("change", () => theme(dark.matches ? "dark" : "light"));
  let before = null;
  addEventListener("beforeprint", () => { printing = true; before = root.dataset.theme; theme("light"); });
  addEventListener("afterprint", () => { printing = false; theme(before); });
  let waiting = 0, wide = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== wide) { wide = innerWidth; clearTimeout(waiting); waiting = setTimeout(redraw, 150); } });

  head();
  notes();
  components();
  share();
  metrics();
  images();
  trains();
  rest();
})();
