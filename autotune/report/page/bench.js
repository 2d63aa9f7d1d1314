async function open() {
  const [library, text] = await Promise.all([inflate("library"), inflate("data")]);
  const script = document.createElement("script");
  script.textContent = library;
  document.head.append(script);
  const charts = JSON.parse(text);
  const redraw = () => charts.forEach((chart, index) => {
    const [traces, layout] = toPlotly(chart);
    if (layout.yaxis.type === "linear") layout.yaxis.rangemode = "tozero";
    Plotly.react(document.querySelector(`[data-plot="${index}"]`), traces, layout, { responsive: true, displaylogo: false, displayModeBar: false });
  });
  redraw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("beforeprint", redraw);
  addEventListener("afterprint", redraw);
  document.getElementById("plot-note").hidden = true;
  document.body.dataset.ready = "all";
}
open();
