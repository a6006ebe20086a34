// Shows the values under the pointer in a chart's corner.
for (const svg of document.querySelectorAll("svg[data-chart]")) {
  const { series, x, across } = JSON.parse(svg.dataset.chart);
  const [first, last, left, right] = x;
  const readout = svg.closest("figure").querySelector(".readout");
  const rule = svg.querySelector(".rule");
  const rest = readout.textContent;
  const short = (v) => (Number.isInteger(v) ? String(v) : v !== 0 && Math.abs(v) < 0.001 ? v.toExponential(1) : String(+v.toPrecision(3)));
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    const step = first + ((at - left) / (right - left)) * (last - first);
    const near = series.map((points) => points.reduce((a, b) => (Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a)));
    const place = left + (last === first ? 0.5 : (near[0][0] - first) / (last - first)) * (right - left);
    rule.setAttribute("x1", place);
    rule.setAttribute("x2", place);
    rule.style.visibility = "visible";
    readout.textContent = across + " " + short(near[0][0]) + ": " + near.map((p) => short(p[1])).join(" / ");
  });
  svg.addEventListener("pointerleave", () => {
    rule.style.visibility = "hidden";
    readout.textContent = rest;
  });
}
