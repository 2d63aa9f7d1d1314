"use strict";
async function inflate(base64) {
  const packed = Uint8Array.from(atob(base64.trim()), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}
function ink() {
  return { "font.color": getComputedStyle(document.body).color };
}
async function drawPlots() {
  const script = document.createElement("script");
  script.textContent = await inflate(document.getElementById("plotly-gzip").textContent);
  document.head.append(script);
  const places = [...document.querySelectorAll("[data-figure]")];
  for (const place of places) {
    const figure = JSON.parse(document.getElementById(place.dataset.figure).textContent);
    await Plotly.newPlot(place, figure.data, figure.layout, { responsive: true, displaylogo: false, displayModeBar: "hover" });
    await Plotly.relayout(place, ink());
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const place of places) Plotly.relayout(place, ink());
  });
  document.getElementById("plot-note").hidden = true;
}
drawPlots().catch((error) => {
  document.getElementById("plot-note").append(` (${error})`);
});
