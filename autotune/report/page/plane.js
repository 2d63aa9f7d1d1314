// The plane of any two quantities, by the rules of autotune/report/plots/plane.py.
const BEST = 0, MET = 1;
function pareto(points) {
  const order = [...points.keys()].sort((a, b) => points[a][0] - points[b][0] || points[a][1] - points[b][1]);
  const best = new Set();
  let least = Infinity, leastAt = null;
  for (const index of order) {
    const [x, y] = points[index];
    if (y < least || (y === least && x === leastAt)) { best.add(index); least = y; leastAt = x; }
  }
  return best;
}
function planeChart(across, up) {
  const sign = (quantity) => (quantity.isLargerBetter ? -1 : 1);
  const groups = trials.standings.map(() => []), unplaced = [];
  trials.number.forEach((number, at) => {
    if (!trials.candidate[at]) return;
    if (across.value[at] === null || up.value[at] === null) unplaced.push(number);
    else groups[trials.standing[at]].push(at);
  });
  const able = groups[MET];
  const best = pareto(able.map((at) => [sign(across) * across.value[at], sign(up) * up.value[at]]));
  groups[BEST] = able.filter((_, index) => best.has(index));
  groups[MET] = able.filter((_, index) => !best.has(index));
  const pick = (column, group) => (column ? group.map((at) => column[at]) : []);
  const series = groups.map((group, standing) => ({
    ...trials.standings[standing], look: "points", trials: group.map((at) => trials.number[at]),
    x: pick(across.value, group), x_low: pick(across.low, group), x_high: pick(across.high, group),
    y: pick(up.value, group), y_low: pick(up.low, group), y_high: pick(up.high, group),
  })).filter((one) => one.x.length);
  const limitsOf = (axis, quantity) => trials.ceilings.filter((ceiling) => ceiling.key === quantity.key).map((ceiling) => ({ name: ceiling.text, axis, value: ceiling.limit }));
  const axis = (quantity) => ({ title: quantity.name, unit: quantity.unit, is_log: false, is_reversed: false, labels: [], ticks: [] });
  return {
    name: say("{y} against {x}", { x: across.name, y: up.name }), x: axis(across), y: axis(up), series, unplaced, unplaced_x: [],
    limits: [...limitsOf("x", across), ...limitsOf("y", up)],
  };
}
function quantityChoice(label, chosen, change) {
  const loads = [...new Set(trials.quantities.map((quantity) => quantity.load))];
  const option = (quantity) => { const made = element("option", { value: quantity.key }, quantity.name); made.selected = quantity.key === chosen; return made; };
  const groups = loads.map((load) => element("optgroup", { label: load }, ...trials.quantities.filter((quantity) => quantity.load === load).map(option)));
  return element("label", {}, `${label} `, element("select", { onchange: (event) => change(event.target.value) }, ...groups));
}
function planeChoices(place, first, draw) {
  const keyOf = (axis) => trials.quantities.find((quantity) => quantity.name === axis.title)?.key;
  const chosen = { x: keyOf(first.x), y: keyOf(first.y) };
  if (!chosen.x || !chosen.y) return draw(first);
  const find = (key) => trials.quantities.find((quantity) => quantity.key === key);
  const again = (name) => (key) => { chosen[name] = key; draw(planeChart(find(chosen.x), find(chosen.y))); };
  place.replaceChildren(quantityChoice(say("Across"), chosen.x, again("x")), quantityChoice(say("Up"), chosen.y, again("y")));
  draw(planeChart(find(chosen.x), find(chosen.y)));
}
