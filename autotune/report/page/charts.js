// A chart (autotune/report/chart.py) as plotly draws it. Text from outside is escaped: plotly reads it as HTML.
const MOST_INTERVALS = 150;
let palettes = null;
let phrases = {};
let trials = null;

function say(sentence, gaps = {}) {
  return (phrases[sentence] ?? sentence).replace(/\{(\w+)\}/g, (_, name) => gaps[name]);
}
function escaped(text) {
  return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
function shortened(label) {
  return label.length > 28 ? `${label.slice(0, 27)}\u2026` : label; // plotly leaves no room for a plot beside long ones
}
function significant(value, digits = 3) {
  if (value === null || value === undefined || !isFinite(value)) return "-";
  if (value === 0) return "0";
  const places = Math.max(digits - 1 - Math.floor(Math.log10(Math.abs(value))), 0);
  return fixed(Math.min(places, 9)).format(Number(value.toPrecision(digits)));
}
const formats = new Map();
function fixed(places) {
  if (!formats.has(places)) formats.set(places, new Intl.NumberFormat("en", { minimumFractionDigits: places, maximumFractionDigits: places }));
  return formats.get(places);
}
function scaleOf(unit, values) {
  const largest = Math.max(...values.filter((value) => value !== null).map(Math.abs), 0);
  if (unit === "ratio") return { factor: 100, unit: "%" };
  if (unit === "s" && largest < 1 && largest > 0) return { factor: 1000, unit: "ms" };
  return { factor: 1, unit };
}
function withUnit(value, unit) {
  if (value === null || value === undefined) return "-";
  const scale = scaleOf(unit, [value]);
  return `${significant(value * scale.factor)} ${scale.unit}`.trim();
}
function withInterval(value, low, high, unit) {
  const text = withUnit(value, unit);
  return low < high ? `${text} [${withUnit(low, unit)} .. ${withUnit(high, unit)}]` : text;
}
function isDark() {
  return !matchMedia("print").matches && matchMedia("(prefers-color-scheme: dark)").matches;
}
function colour(index) {
  const palette = palettes[isDark() ? "dark" : "light"];
  return palette[index % palette.length];
}
function style(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
function valuesOf(chart, axis) {
  const limits = chart.limits.filter((limit) => limit.axis === axis).map((limit) => limit.value);
  const strip = axis === "x" ? chart.unplaced_x : [];
  return [...chart.series.flatMap((series) => series[axis]), ...strip, ...limits].filter((value) => value !== null);
}
function isLogarithmic(axis, values) {
  return axis.is_log || (["s", "tok/s", "req/s"].includes(axis.unit) && Math.min(...values) > 0 && Math.max(...values) > 20 * Math.min(...values));
}
function layoutAxis(chart, name) {
  const axis = chart[name];
  const values = valuesOf(chart, name);
  const scale = scaleOf(axis.unit, values);
  const shown = {
    title: { text: escaped(scale.unit ? `${axis.title} (${scale.unit})` : axis.title), standoff: 8 },
    type: isLogarithmic(axis, values) ? "log" : "linear",
    autorange: axis.is_reversed ? "reversed" : true,
    gridcolor: style("--line"), zerolinecolor: style("--line"), linecolor: style("--line"), automargin: true,
  };
  if (shown.type === "log") Object.assign(shown, roundTicks(values.map((value) => value * scale.factor).filter((value) => value > 0)));
  if (axis.ticks.length) Object.assign(shown, { tickvals: axis.ticks, ticktext: axis.ticks.map((value) => value.toLocaleString("en")) });
  if (axis.labels.length) {
    const ends = [-0.5, axis.labels.length - 0.5];
    Object.assign(shown, { tickvals: axis.labels.map((_, index) => index), ticktext: axis.labels.map(shortened).map(escaped), autorange: false, range: axis.is_reversed ? ends.reverse() : ends });
  }
  return [shown, scale.factor];
}
function roundTicks(values) {
  const tickvals = [];
  const low = Math.min(...values), high = Math.max(...values);
  const steps = Math.log10(high / low) > 2.5 ? [1] : [1, 2, 5];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
    for (const step of steps) tickvals.push(Number((step * 10 ** power).toPrecision(3)));
  const isEnough = tickvals.filter((value) => low <= value && value <= high).length > 1;
  return isEnough ? { tickvals, ticktext: tickvals.map((value) => significant(value)) } : {}; // plotly's own otherwise
}
function scaled(values, factor) {
  return factor === 1 ? values : values.map((value) => (value === null ? null : value * factor));
}
function spread(series, axis) {
  return (value, index) => (value === null || !axis.labels.length || series.look === "bars" ? value : value + (((series.trials[index] ?? 0) * 0.618) % 1 - 0.5) * 0.4);
}
function interval(series, name, factor) {
  const low = series[`${name}_low`], high = series[`${name}_high`];
  if (!low.length || low.length > MOST_INTERVALS || !low.some((value, index) => value < high[index])) return undefined;
  return {
    type: "data", symmetric: false, thickness: 1, width: 3,
    array: high.map((value, index) => (value - series[name][index]) * factor),
    arrayminus: low.map((value, index) => (series[name][index] - value) * factor),
  };
}
function positions() {
  if (!trials.position) trials.position = new Map(trials.number.map((number, index) => [number, index]));
  return trials.position;
}
function trialLines(number) {
  const at = positions().get(number);
  const lines = [say("trial {number}", { number }) + ` (${trials.role[at]})`];
  for (const [name, column] of Object.entries(trials.flags)) if (column[at]) lines.push(`${name} ${column[at]}`);
  if (trials.failure[at]) lines.push(trials.failure[at].slice(0, 120));
  return lines;
}
function hoverTexts(chart, series) {
  return series.x.map((x, index) => {
    if (x === null) return "";
    const number = series.trials[index];
    if (series.look === "span") return escaped(`${series.name}, ${say("trial {number}", { number })}`);
    const at = (name) => withInterval(series[name][index], series[`${name}_low`][index], series[`${name}_high`][index], chart[name].unit);
    const place = ["x", "y"].filter((name) => !chart[name].labels.length).map((name) => `${chart[name].title}: ${at(name)}`);
    return [series.name, ...place, ...(number === undefined || number === null ? [] : trialLines(number))].map(escaped).join("<br>");
  });
}
function drawn(chart, series, factors) {
  const ink = colour(series.colour);
  const trace = {
    name: escaped(series.name), type: "scatter", hoverinfo: "text", hovertext: hoverTexts(chart, series), customdata: series.trials,
    x: scaled(series.x, factors.x).map(spread(series, chart.x)), y: scaled(series.y, factors.y),
    error_x: interval(series, "x", factors.x), error_y: interval(series, "y", factors.y),
  };
  const many = series.x.length > 1000;
  const size = { star: 14, dot: 4 }[series.symbol] ?? (many ? 6 : 9);
  const symbol = series.symbol === "dot" ? "circle" : series.symbol;
  const marker = { color: ink, size, symbol, line: { color: ink, width: many ? 1 : 2 } };
  switch (series.look) {
    case "points": return { ...trace, mode: "markers", marker };
    case "line": return { ...trace, mode: symbol === "none" ? "lines" : "lines+markers", marker, line: { color: ink, width: 2, dash: series.colour ? "dot" : "solid" } };
    case "steps": return { ...trace, mode: "lines", line: { color: ink, shape: "hv", width: 2 } };
    case "limit": return { ...trace, mode: "markers", marker: { color: ink, size: 34, symbol: "line-ew", line: { color: ink, width: 3 } } };
    case "span": return { ...trace, mode: "lines", line: { color: ink, width: Math.max(2, Math.min(10, 600 / series.x.length * 3)) } };
    default: return { ...trace, type: "bar", orientation: "h", marker: { color: ink } };
  }
}
function strip(chart, factors) {
  const isAtX = chart.unplaced_x.length > 0;
  const groups = new Map();
  chart.unplaced.forEach((number, index) => {
    const standing = trials.standing[positions().get(number)];
    if (!groups.has(standing)) groups.set(standing, []);
    const x = isAtX ? chart.unplaced_x[index] : index;
    groups.get(standing).push([x === null ? null : x * factors.x, number]);
  });
  return [...groups].map(([standing, found]) => {
    const look = trials.standings[standing], ink = colour(look.colour);
    return {
      name: escaped(isAtX ? look.name : say("{what}, no place here", { what: look.name })), type: "scatter", mode: "markers", hoverinfo: "text", xaxis: isAtX ? "x" : "x2", yaxis: "y2",
      x: found.map(([x]) => x), y: found.map(() => 0), customdata: found.map(([, number]) => number),
      hovertext: found.map(([, number]) => trialLines(number).map(escaped).join("<br>")),
      marker: { color: ink, size: found.length > 200 ? 5 : 9, symbol: look.symbol, line: { color: ink, width: 1.5 } },
    };
  });
}
function limitShapes(chart, factors) {
  return chart.limits.map(({ name, axis, value }) => {
    const across = axis === "x" ? { x0: value * factors.x, x1: value * factors.x, y0: 0, y1: 1, yref: "y domain" } : { y0: value * factors.y, y1: value * factors.y, x0: 0, x1: 1, xref: "x domain" };
    return { type: "line", ...across, line: { color: style("--alert"), dash: "dash", width: 1.5 }, layer: "below" };
  });
}
function limitNames(chart, factors, xaxis, yaxis) {
  const at = (value, axis) => (axis.type === "log" ? Math.log10(value) : value);
  return chart.limits.map(({ name, axis, value }) => ({
    text: escaped(name), showarrow: false, font: { color: style("--alert"), size: 11 }, yanchor: "bottom",
    ...(axis === "x" ? { x: at(value * factors.x, xaxis), y: 0, yref: "y domain", textangle: -90, xanchor: "right" } : { x: 0, xref: "x domain", y: at(value * factors.y, yaxis), xanchor: "left" }),
  }));
}
function stretch(chart, factors) {
  const middle = (name) => { const values = valuesOf(chart, name); return values.length ? values[values.length >> 1] * factors[name] : 1; };
  return chart.limits.map(({ axis, value }) => ({
    type: "scatter", mode: "markers", marker: { opacity: 0 }, hoverinfo: "skip", showlegend: false,
    x: [axis === "x" ? value * factors.x : middle("x")], y: [axis === "y" ? value * factors.y : middle("y")],
  }));
}
function toPlotly(chart) {
  const [xaxis, x] = layoutAxis(chart, "x"), [yaxis, y] = layoutAxis(chart, "y");
  const factors = { x, y };
  const layout = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 64, r: 16, t: 8, b: 52 },
    font: { color: style("--text"), family: "system-ui, sans-serif", size: 12 }, hovermode: "closest", hoverlabel: { align: "left" },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom" }, showlegend: chart.series.length + chart.unplaced.length > 1,
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom", shapes: limitShapes(chart, factors), annotations: limitNames(chart, factors, xaxis, yaxis), xaxis, yaxis,
  };
  if (chart.unplaced.length) {
    layout.yaxis.domain = [0.09, 1];
    Object.assign(layout.xaxis, { anchor: "free", position: 0 });
    const bare = { showgrid: false, zeroline: false, showticklabels: false, fixedrange: true };
    layout.xaxis2 = { ...bare, anchor: "y2", range: [-1, Math.max(chart.unplaced.length, 40)] };
    layout.yaxis2 = { ...bare, anchor: chart.unplaced_x.length ? "x" : "x2", domain: [0, 0.06], range: [-1, 1] };
  }
  return [[...chart.series.map((series) => drawn(chart, series, factors)), ...strip(chart, factors), ...stretch(chart, factors)], layout];
}
async function inflate(id) {
  const text = document.getElementById(id).textContent.trim();
  const packed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}
