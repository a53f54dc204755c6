// The table of examples: filters over columns, and only the rows that can be seen in the page.
const ROW = 36;
const SPARE = 8;
const NEAR_TIE = 0.5;
let run = null; // columns of the run that is shown
let texts = []; // lower-case text of each example, for the search
let order = []; // positions that pass the filters, in the order shown
let active = -1; // place in `order`
let sorted = { by: "order", down: false };

const grid = byId("grid");
const rows = byId("rows");
const split = grid && grid.parentElement;

const nameOf = (i) => (run.names || run.ids)[i];
const labelName = (label) => (label < 0 ? "none" : run.labels[label]);
const oneLine = (i) => (run.texts[i].length ? run.texts[i].join(" · ") : nameOf(i));
const number = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const dot = (label) => make("span", { class: `dot l${label % 8}`, "aria-hidden": "true" });

function showRun(k) {
  run = data.runs[k];
  texts = run.ids.map((id, i) => `${run.texts[i].join("\n")}\n${nameOf(i)}\n${run.groups[run.group[i]]}`.toLowerCase());
  const some = run.label.includes(-1) ? [make("option", { value: "-1" }, "none")] : [];
  const before = byId("by-label").value;
  byId("by-label").replaceChildren(make("option", { value: "" }, "all"),
    ...run.labels.map((name, label) => make("option", { value: label }, name)), ...some);
  byId("by-label").value = before;
  if (byId("by-label").selectedIndex < 0) byId("by-label").value = "";
  byId("gold-label").hidden = run.gold === null;
  split.classList.toggle("no-gold", run.gold === null);
  filter();
}

/** Tests of the filters that are set; the cheapest first. */
function tests() {
  const found = [];
  const { label, margin, gold, group, search } = Object.fromEntries(
    ["label", "margin", "gold", "group", "search"].map((name) => [name, byId(`by-${name}`).value]));
  if (label !== "") found.push((i) => run.label[i] === Number(label));
  if (margin) {
    const inside = {
      against: (x) => x < 0, tie: (x) => Math.abs(x) < NEAR_TIE,
      weak: (x) => x >= NEAR_TIE && x <= 2, strong: (x) => x > 2,
    }[margin];
    found.push((i) => run.odds[i] !== null && inside(run.odds[i]));
  }
  if (gold && run.gold) {
    if (gold === "none") found.push((i) => run.gold[i] < 0);
    else found.push((i) => run.gold[i] >= 0 && (run.gold[i] === run.label[i]) === (gold === "same"));
  }
  if (group) {
    const exact = run.groups.indexOf(group);
    const matching = run.groups.map((name, k) => (exact < 0 ? name.toLowerCase().includes(group.toLowerCase()) : k === exact));
    found.push((i) => matching[run.group[i]]);
  }
  const words = search.toLowerCase().trim();
  if (words) found.push((i) => texts[i].includes(words));
  return found;
}

/** Take all filters away, but not the run. */
function clear() {
  for (const name of ["label", "margin", "gold", "group", "search"]) byId(`by-${name}`).value = "";
}

function filter() {
  const chosen = active >= 0 ? order[active] : -1;
  const passes = tests();
  order = [];
  for (let i = 0; i < run.ids.length; i++) if (passes.every((test) => test(i))) order.push(i);
  const value = {
    order: null, label: (i) => run.label[i], odds: (i) => run.odds[i] ?? -Infinity, group: (i) => run.group[i],
    gold: (i) => (run.gold[i] < 0 ? 2 : Number(run.gold[i] === run.label[i])),
  }[sorted.by];
  if (value) order.sort((a, b) => value(a) - value(b) || a - b);
  if (sorted.down) order.reverse();
  active = chosen < 0 ? -1 : order.indexOf(chosen);
  const total = run.ids.length.toLocaleString("en");
  byId("count").textContent = order.length === run.ids.length
    ? `${total} examples` : `${order.length.toLocaleString("en")} of ${total} examples`;
  grid.setAttribute("aria-rowcount", order.length + 1);
  rows.style.height = `${order.length * ROW}px`;
  paint(true);
}

let painted = [0, 0];
/** Put the rows that can be seen, and a few more, into the page. */
function paint(anew = false) {
  const first = Math.max(0, Math.floor(grid.scrollTop / ROW) - SPARE);
  const last = Math.min(order.length, Math.ceil((grid.scrollTop + grid.clientHeight) / ROW) + SPARE);
  if (!anew && first === painted[0] && last === painted[1]) return;
  painted = [first, last];
  const shown = [];
  for (let place = first; place < last; place++) shown.push(rowOf(place));
  rows.replaceChildren(...shown);
  if (order.length === 0) rows.replaceChildren(make("p", { class: "empty" }, "No example passes these filters."));
  if (active >= 0) grid.setAttribute("aria-activedescendant", `row-${order[active]}`);
  else grid.removeAttribute("aria-activedescendant");
}

function rowOf(place) {
  const i = order[place];
  const row = make("div", {
    class: place === active ? "row active" : "row", role: "row", id: `row-${i}`, "aria-rowindex": place + 2,
    "aria-selected": place === active ? "true" : "false", onclick: () => { move(place); open(); },
  },
  make("span", { role: "gridcell", title: nameOf(i) }, oneLine(i)),
  make("span", { role: "gridcell" }, dot(run.label[i]), labelName(run.label[i])),
  marginOf(i),
  make("span", { role: "gridcell", class: "gold" }, ...goldOf(i)),
  make("span", { role: "gridcell", class: "wide" }, run.groups[run.group[i]]));
  row.style.top = `${place * ROW}px`;
  return row;
}

function marginOf(i) {
  const odds = run.odds[i];
  const bar = make("u");
  const end = Math.max(-1, Math.min(1, (odds ?? 0) / 4)) * 50;
  bar.style.left = `${50 + Math.min(0, end)}%`;
  bar.style.width = `${Math.abs(end)}%`;
  return make("span", { role: "gridcell", class: odds < 0 ? "margin against" : "margin" },
    make("b", {}, number(odds, 2)), make("i", { "aria-hidden": "true" }, bar));
}

function goldOf(i) {
  if (!run.gold || run.gold[i] < 0) return ["–"];
  const same = run.gold[i] === run.label[i];
  return [make("span", { class: same ? "agrees" : "differs" }, same ? "✓ agrees" : `✗ ${labelName(run.gold[i])}`)];
}

/** Make a row the active one and bring it into sight. */
function move(place) {
  if (!order.length) return;
  active = Math.max(0, Math.min(order.length - 1, place));
  const head = grid.firstElementChild.offsetHeight;
  const top = active * ROW;
  if (top < grid.scrollTop) grid.scrollTop = top;
  if (top + ROW + head > grid.scrollTop + grid.clientHeight) grid.scrollTop = top + ROW + head - grid.clientHeight;
  paint(true);
}

const steps = () => Math.floor(grid.clientHeight / ROW) - 2;
const KEYS = {
  ArrowDown: () => move(active + 1), ArrowUp: () => move(active - 1),
  PageDown: () => move(active + steps()), PageUp: () => move(active - steps()),
  Home: () => move(0), End: () => move(order.length - 1),
  Enter: () => { if (active < 0) move(0); open(); byId("detail").focus(); },
};

if (grid) {
  grid.addEventListener("scroll", () => paint(), { passive: true });
  grid.addEventListener("keydown", (event) => {
    if (event.target !== grid || !KEYS[event.key] || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    KEYS[event.key]();
    if (split.classList.contains("open") && event.key !== "Enter") open();
  });
  for (const head of grid.querySelectorAll("[data-sort]")) {
    head.addEventListener("click", () => {
      sorted = { by: head.dataset.sort, down: sorted.by === head.dataset.sort && !sorted.down };
      for (const other of grid.querySelectorAll("[data-sort]")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
      filter();
    });
  }
  const form = byId("filters");
  form.addEventListener("input", (event) => { if (event.target.id !== "by-run") filter(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  byId("clear").addEventListener("click", () => { clear(); filter(); });
  document.addEventListener("keydown", (event) => {
    const typing = ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName);
    if (event.key === "/" && !typing) { event.preventDefault(); byId("by-search").focus(); }
    if (event.key === "Escape" && split.classList.contains("open")) { close(); }
  });
  byId("by-run").append(...data.runs.map((one, k) => make("option", { value: k }, one.name)));
  byId("run-label").hidden = data.runs.length < 2;
  byId("by-run").addEventListener("change", () => { close(); active = -1; showRun(Number(byId("by-run").value)); });
  new ResizeObserver(() => paint(true)).observe(grid);
}
