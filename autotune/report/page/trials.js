// Tables that stay short however many trials there are, and the panel of one trial.
const PAGE = 50;
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) key.startsWith("on") ? made.addEventListener(key.slice(2), value) : made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}
function trialButton(number) {
  return element("button", { type: "button", class: "trial", "data-trial": number }, String(number));
}
function plainTable(caption, heads, rows) {
  const cells = (row) => row.map((cell, index) => element(index ? "td" : "th", index ? {} : { scope: "row" }, cell?.trial === undefined ? String(cell ?? "-") : trialButton(cell.trial)));
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    element("table", {}, element("caption", {}, caption),
      element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
      element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells(row))))));
}
// Rows are made when their page is shown: `row(index)` gives its cells, `key(index, column)` what it is sorted by.
function pagedTable(place, caption, heads, count, row, key) {
  let order = [...Array(count).keys()], first = 0, sorted = null;
  function sortBy(column) {
    const sign = sorted && sorted.column === column ? -sorted.sign : 1;
    sorted = { column, sign };
    const value = (index) => key(index, column);
    const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
    const missing = (x) => x === null || x === undefined || x === "";
    order.sort((a, b) => { const [x, y] = [value(a), value(b)]; return missing(x) || missing(y) ? missing(x) - missing(y) : sign * compare(x, y); });
    first = 0;
    show();
    place.querySelectorAll("thead button")[column].focus();
  }
  function show() {
    const shown = order.slice(first, first + PAGE);
    const table = plainTable(caption, heads, shown.map(row));
    table.querySelectorAll("thead th").forEach((head, column) => {
      head.replaceChildren(element("button", { type: "button", class: "sort", onclick: () => sortBy(column) }, heads[column]));
      if (sorted && sorted.column === column) head.setAttribute("aria-sort", sorted.sign > 0 ? "ascending" : "descending");
    });
    const turn = (text, to, isPossible) => { const button = element("button", { type: "button", onclick: () => { first = to; show(); } }, text); button.disabled = !isPossible; return button; };
    const range = say("{first} to {last} of {count}", { first: Math.min(first + 1, count), last: Math.min(first + PAGE, count), count });
    const pager = element("p", { class: "pager" }, turn(say("Back"), first - PAGE, first > 0), element("span", { role: "status" }, range), turn(say("Further"), first + PAGE, first + PAGE < count));
    place.replaceChildren(table, ...(count > PAGE ? [pager] : []));
  }
  show();
}
function numbersTable(place, chart) {
  const rows = chart.series.flatMap((series) => series.x.map((x, index) => ({ series, index })).filter(({ series, index }) => series.x[index] !== null));
  for (const number of chart.unplaced) rows.push({ number });
  const isOfTrials = chart.unplaced.length > 0 || chart.series.some((series) => series.trials.length);
  const at = (name, series, index) => chart[name].labels.length ? chart[name].labels[Math.round(series[name][index])] : withInterval(series[name][index], series[`${name}_low`][index], series[`${name}_high`][index], chart[name].unit);
  const numberOf = ({ series, index, number }) => number ?? series.trials[index];
  const cells = (entry) => {
    const number = numberOf(entry);
    const trial = isOfTrials ? [number === undefined || number === null ? "-" : { trial: number }] : [];
    if (!entry.series) return [...trial, trials.standings[trials.standing[positions().get(number)]].name, "-", "-"];
    return [...trial, entry.series.name, at("x", entry.series, entry.index), at("y", entry.series, entry.index)];
  };
  const keys = (entry) => [...(isOfTrials ? [numberOf(entry)] : []), ...(entry.series ? [entry.series.name, entry.series.x[entry.index], entry.series.y[entry.index]] : ["", null, null])];
  const heads = [...(isOfTrials ? [say("trial")] : []), say("series"), chart.x.title, chart.y.title];
  pagedTable(place, chart.name, heads, rows.length, (index) => cells(rows[index]), (index, column) => keys(rows[index])[column]);
}
function trialTable(place) {
  const flags = Object.entries(trials.flags), quantities = trials.quantities.slice(0, trials.promised);
  const columns = [
    [say("trial"), (at) => ({ trial: trials.number[at] }), (at) => trials.number[at]],
    [say("part"), (at) => trials.role[at]],
    [say("outcome"), (at) => trials.failure[at]?.split(":")[0] ?? trials.standings[trials.standing[at]].short],
    ...quantities.map((quantity) => [quantity.name, (at) => withInterval(quantity.value[at], quantity.low?.[at], quantity.high?.[at], quantity.unit), (at) => quantity.value[at]]),
    ...flags.map(([name, column]) => [name, (at) => column[at] || "-", (at) => (column[at].trim() !== "" && !isNaN(column[at].replace(/[()]/g, "")) ? Number(column[at].replace(/[()]/g, "")) : column[at])]),
  ];
  pagedTable(place, say("All trials"), columns.map(([head]) => head), trials.number.length, (at) => columns.map(([, text]) => text(at)), (at, column) => (columns[column][2] ?? columns[column][1])(at));
}
function panelParts(number) {
  const at = positions().get(number);
  const loads = [...new Set(trials.quantities.map((quantity) => quantity.load))];
  const kinds = [...new Set(trials.quantities.map((quantity) => quantity.short))];
  const find = (short, load) => trials.quantities.find((quantity) => quantity.short === short && quantity.load === load);
  const cell = (quantity) => (quantity ? withInterval(quantity.value[at], quantity.low?.[at], quantity.high?.[at], quantity.unit) : "-");
  const measured = kinds.map((short) => [short, ...loads.map((load) => cell(find(short, load)))]).filter((row) => row.slice(1).some((text) => text !== "-"));
  const judged = trials.ceilings.filter((ceiling) => ceiling.decision[at]).map((ceiling) => [ceiling.text, ceiling.decision[at], `${significant(ceiling.margin[at] * 100)} %`]);
  const flags = Object.entries(trials.flags).map(([name, column]) => [name, column[at] || "-"]);
  const engine = [[say("KV pool (tokens)"), trials.kv_tokens[at]], [say("running requests at most"), trials.running_limit[at]]].filter(([, value]) => value !== null);
  const folder = trials.folder[at];
  return [
    element("p", {}, [trials.role[at], trials.outcome[at], trials.standings[trials.standing[at]].short, trials.relation[at]].filter(Boolean).join("; ")),
    trials.failure[at] ? element("pre", { tabindex: "0" }, trials.failure[at]) : null,
    plainTable(say("Flags (in brackets what the engine chose)"), [say("flag"), say("value")], [...flags, ...engine]),
    judged.length ? plainTable(say("Ceilings"), [say("ceiling"), say("verdict"), say("margin")], judged) : null,
    measured.length ? plainTable(say("Measured"), [say("quantity"), ...loads], measured) : null,
    trials.phases[at].length ? plainTable(say("Phases"), [say("phase"), say("time")], trials.phases[at].map(([name, spent]) => [name, withUnit(spent, "s")])) : null,
    element("p", { class: "note" }, say("Raw records and logs: {folder} in the study's folder.", { folder })),
  ];
}
function openTrial(number) {
  const panel = document.getElementById("trial-panel");
  const close = element("button", { type: "button", class: "close", onclick: () => panel.close() }, say("Close"));
  panel.replaceChildren(element("div", { class: "panel-head" }, element("h2", { id: "trial-panel-title" }, say("Trial {number}", { number })), close), ...panelParts(number).filter(Boolean));
  if (!panel.open) panel.showModal();
  panel.scrollTop = 0;
}
