const shown = new Map();
function heightOf(chart) {
  return chart.y.labels.length ? `${6 + 2.2 * chart.y.labels.length}rem` : "";
}
function draw(key, chart) {
  const place = document.querySelector(`[data-plot="${key}"]`), numbers = document.querySelector(`[data-numbers="${key}"]`);
  const isFirst = !shown.has(key);
  shown.set(key, chart);
  place.style.height = heightOf(chart);
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", say("{name}; the numbers are in the table below.", { name: chart.name }));
  const [traces, layout] = toPlotly(chart);
  Plotly.react(place, traces, layout, { responsive: true, displaylogo: false, displayModeBar: false });
  if (isFirst) {
    place.on("plotly_click", (event) => { const number = event.points[0].customdata; if (number !== undefined && number !== null) openTrial(number); });
    numbers.addEventListener("toggle", () => fillNumbers(key));
  }
  fillNumbers(key);
}
function fillNumbers(key) {
  const numbers = document.querySelector(`[data-numbers="${key}"]`);
  numbers.querySelector(".table-place")?.remove();
  if (!numbers.open) return;
  const place = element("div", { class: "table-place" });
  numbers.append(place);
  numbersTable(place, shown.get(key));
}
function begin(key, charts) {
  const choices = document.querySelector(`[data-choices="${key}"]`);
  if (key === "plane") return planeChoices(choices, charts[0], (chart) => draw(key, chart));
  if (charts.length > 1) {
    const options = charts.map((chart, index) => element("option", { value: index }, chart.name));
    choices.replaceChildren(element("label", {}, `${say("Show")} `, element("select", { onchange: (event) => draw(key, charts[event.target.value]) }, ...options)));
  }
  draw(key, charts[0]);
}
function redraw() {
  for (const [key, chart] of [...shown]) draw(key, chart);
}
async function open() {
  const [library, text] = await Promise.all([inflate("library"), inflate("data")]);
  const script = document.createElement("script");
  script.textContent = library;
  document.head.append(script);
  const data = JSON.parse(text);
  palettes = data.palettes;
  phrases = data.phrases;
  trials = data.trials;
  document.addEventListener("click", (event) => { const button = event.target.closest("[data-trial]"); if (button) openTrial(Number(button.dataset.trial)); });
  if (trials.number.length) trialTable(document.getElementById("trial-table"));
  const waiting = Object.entries(data.plots).filter(([, charts]) => charts.length);
  const next = () => {
    const entry = waiting.shift();
    if (!entry) { document.body.dataset.ready = "all"; return; }
    begin(...entry);
    document.body.dataset.ready ??= "some";
    requestAnimationFrame(() => setTimeout(next, 0)); // what is drawn is shown before the next is begun
  };
  next();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("beforeprint", redraw);
  addEventListener("afterprint", redraw);
  document.getElementById("plot-note").hidden = true;
}
open();
