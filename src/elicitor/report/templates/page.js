// Figures. Everything here is one module with the other scripts of the page; text of data goes into text nodes alone.
let data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

/** An element with attributes and children; strings become text. */
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") node.addEventListener("click", value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

const axis = {
  domainColor: "var(--line)", tickColor: "var(--line)", gridColor: "var(--line)", gridOpacity: 0.7,
  labelColor: "var(--muted)", titleColor: "var(--muted)", labelFontSize: 12, titleFontSize: 12, titleFontWeight: 400,
  labelPadding: 6, titlePadding: 10, ticks: false, tickCount: 5,
};
const CONFIG = {
  background: "transparent", font: "system-ui, -apple-system, Segoe UI, Roboto, Noto Sans, sans-serif",
  view: { stroke: null }, axis, axisY: { domain: false }, axisYBand: { grid: false, labelColor: "var(--ink)" },
  legend: { labelColor: "var(--ink)", labelFontSize: 12, symbolType: "square", symbolOpacity: 1, offset: 4, rowPadding: 4, columns: 3, labelLimit: 180 },
  text: { color: "var(--ink)", fontSize: 12 },
};
const EMBED = {
  ast: true, renderer: "svg", actions: false, defaultStyle: false, config: CONFIG,
  tooltip: { disableDefaultStyle: true, offsetX: 14, offsetY: 10 },
};
const drawn = new Map();
// Vega asks for the width of a figure's place when the window's changes; it may also change when figures are added.
const widths = new ResizeObserver((entries) => {
  const changed = entries.filter(({ target, contentRect }) => target.dataset.width !== String(contentRect.width));
  for (const { target, contentRect } of changed) target.dataset.width = contentRect.width;
  if (changed.length) window.dispatchEvent(new Event("resize"));
});

/** Draw every figure in its section; what is there already is drawn again in place. */
async function drawCharts() {
  // All places first: how wide each of them is depends on how many there are.
  for (const chart of data.charts) if (!byId(`figure-${chart.id}`)) addFigure(chart);
  for (const chart of data.charts) {
    const key = JSON.stringify([chart.spec, chart.caption]);
    const known = drawn.get(chart.id);
    if (known && known.key === key) continue;
    const figure = byId(`figure-${chart.id}`);
    figure.querySelector("figcaption").textContent = chart.caption;
    const place = figure.querySelector(".chart");
    place.style.minHeight = `${place.offsetHeight}px`;
    if (known) known.result.finalize();
    const spec = { ...chart.spec, description: `${chart.title}. ${chart.caption}` };
    drawn.set(chart.id, { key, result: await window.vegaEmbed(place, spec, EMBED) });
    place.style.minHeight = "";
  }
}

function addFigure(chart) {
  const figure = make("figure", { id: `figure-${chart.id}` },
    make("h3", {}, chart.title), make("div", { class: "chart" }), make("figcaption"));
  document.querySelector(`[data-section="${chart.section}"]`).append(figure);
  widths.observe(figure);
  byId(chart.section).hidden = false;
  document.querySelector(`[data-nav="${chart.section}"]`).hidden = false;
}

/** Key numbers, after news from a live server. */
function showTiles() {
  for (const tile of data.tiles) {
    const place = [...document.querySelectorAll("[data-tile]")].find((node) => node.dataset.tile === tile.name);
    if (!place) continue;
    const [, value, detail] = place.children;
    value.textContent = tile.value;
    value.className = `tile-value ${tile.mood.replace(" ", "-")}`;
    detail.textContent = tile.detail;
  }
}

const charted = drawCharts().then(() => document.documentElement.setAttribute("data-ready", ""));
