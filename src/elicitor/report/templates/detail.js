// One example in full: label, group, prompt, history. live.js adds marks through `marksOf`.
let marksOf = () => [];

function open() {
  const i = order[active];
  if (i === undefined) return;
  split.classList.add("open");
  const place = byId("detail");
  place.replaceChildren(
    make("button", { type: "button", class: "close", "aria-label": "Close", onclick: close }, "×"),
    make("h3", {}, nameOf(i)),
    make("div", { class: "chips" }, ...chips(i)),
    ...marksOf(i),
    make("h4", {}, run.batch === null ? "Prompt, after the other labelled examples" : `Prompt, after up to ${sizeOf(i) - 1} others`),
    promptOf(i),
    ...groupOf(i),
    make("h4", {}, "History"), historyOf(i));
  place.scrollTop = 0;
}

function close() {
  split.classList.remove("open");
  byId("detail").replaceChildren();
  grid.focus({ preventScroll: true });
  paint(true);
}

function chips(i) {
  const found = [make("span", {}, dot(run.label[i]), labelName(run.label[i]))];
  if (run.confidence[i] !== null) found.push(make("span", {}, `confidence ${number(run.confidence[i], 3)}`));
  if (run.odds[i] !== null) found.push(make("span", {}, `log-odds ${number(run.odds[i], 2)}`));
  if (run.gold && run.gold[i] >= 0) found.push(make("span", {}, "gold: ", ...goldOf(i)));
  if (run.filled.includes(i)) found.push(make("span", {}, "filled at the end"));
  return found;
}

/** Examples that were searched together with this one, itself among them. */
const sizeOf = (i) => run.sizes[run.batch[i]];

/** The template with the example's texts in it. */
function render(i) {
  return run.template.map(([text, field]) => text + (field === null ? "" : run.texts[i][run.fields.indexOf(field)])).join("");
}

function promptOf(i) {
  if (!run.texts[i].length) return make("p", { class: "note" }, "The text is not in this page; the notes at the top say why.");
  const shown = make("pre", {});
  const other = run.ids.findIndex((_, k) => k !== i && run.label[k] >= 0 && run.texts[k].length && (!run.batch || run.batch[k] === run.batch[i]));
  if (run.preamble) shown.append(make("span", { class: "before" }, run.preamble));
  if (other >= 0) {
    const before = render(other) + run.verbalizers[run.label[other]] + run.separator;
    shown.append(make("span", { class: "before" }, `${before}[and so on, the others]${run.separator}`));
  }
  shown.append(render(i));
  if (run.label[i] >= 0) shown.append(make("mark", {}, run.verbalizers[run.label[i]]));
  return shown;
}

function groupOf(i) {
  const name = run.groups[run.group[i]];
  const members = run.ids.map((_, k) => k).filter((k) => run.group[k] === run.group[i]);
  if (members.length < 2) return [];
  const items = members.slice(0, 30).map((k) => make("li", {}, make("button", {
    type: "button", "aria-current": k === i ? "true" : null, onclick: () => choose(k),
  }, dot(run.label[k]), `${labelName(run.label[k])} · ${oneLine(k)}`)));
  return [
    make("h4", {}, `Group, ${members.length} examples `,
      make("button", { type: "button", class: "link", onclick: () => onlyGroup(name) }, "show them alone")),
    make("ul", { class: "members" }, ...items),
  ];
}

/** Open an example wherever it stands; filters that hide it are cleared. */
function choose(i) {
  if (!order.includes(i)) { clear(); filter(); }
  move(order.indexOf(i));
  open();
}

function onlyGroup(name) {
  clear();
  byId("by-group").value = name;
  filter();
}

function historyOf(i) {
  if (!run.history[i].length) return make("p", { class: "note" }, "No event names it.");
  return make("ol", { class: "history" }, ...run.history[i].map(([iteration, kind, before, proposed, accepted, utility, heat]) => {
    const same = before === proposed;
    const words = `${run.kinds[kind]}: ${same ? "stays" : before < 0 ? "" : `${labelName(before)} →`} ${labelName(proposed)}`;
    const judged = utility === null ? "" : `U ${number(utility, 2)}${heat === null ? "" : `, T ${number(heat, 2)}`}`;
    return make("li", {}, make("span", {}, String(iteration)),
      make("span", { class: accepted ? null : "refused" }, words, accepted ? "" : " (refused)"), make("span", {}, judged));
  }));
}

if (grid && data.runs.length) showRun(0);
