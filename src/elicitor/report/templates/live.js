// A page of a running server: its state, news of the search, and marks of a person. All addresses are beside the page's own.
const REFRESH_MS = 2000;
let state = null;
let asking = false;
let askedAt = 0;
let later = null;
let review = { marks: [], proposed: [], estimate: null };

const send = async (name, values) => {
  const options = values ? { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(values) } : {};
  const answer = await fetch(name, options);
  if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
  return answer.json();
};
const say = (text) => { byId("state").textContent = text; };
const failed = (error) => say(`the server does not answer (${error.message}); is elicitor watch still running?`);

function showState(news) {
  const before = state;
  state = news.state;
  const done = news.n ? `${news.labelled.toLocaleString("en")} of ${news.n.toLocaleString("en")} labelled, iteration ${news.iteration}` : "";
  const training = news.steps ? `step ${news.step} of ${news.steps}, loss ${number(news.loss, 3)}` : "";
  const asked = news.asked ? `asked to ${news.asked}` : "";
  const cost = news.tokens === undefined ? "" : `${news.tokens.toLocaleString("en")} tokens, ${Math.round(news.seconds)} s`;
  const utility = news.utility === null || news.utility === undefined ? "" : `U ${number(news.utility, 2)}`;
  say([state, asked, done, training, utility, cost].filter(Boolean).join(" · "));
  const share = news.n ? news.labelled / news.n : news.steps ? news.step / news.steps : null;
  byId("progress").hidden = share === null;
  if (share !== null) byId("progress").value = share;
  showButtons();
  // Tables are made by the server: the end of a search is worth a whole new page.
  if (state === "finished" && before !== null && before !== "finished") location.reload();
  else if (before !== null || state === "running") refresh();
}

function showButtons() {
  const allowed = { running: ["pause", "stop"], paused: ["resume", "stop"] }[state] || [];
  for (const button of document.querySelectorAll("[data-action]")) button.disabled = !allowed.includes(button.dataset.action);
}

/** Ask for the page's data, at most once in two seconds. */
async function refresh() {
  if (asking || later) return;
  const wait = askedAt + REFRESH_MS - Date.now();
  if (wait > 0) { later = setTimeout(() => { later = null; refresh(); }, wait); return; }
  asking = true;
  askedAt = Date.now();
  try {
    data = await send("data.json");
    showTiles();
    if (grid && data.runs.length) showRun(Number(byId("by-run").value) || 0);
    await drawCharts();
  } catch (error) { failed(error); } finally { asking = false; }
}

for (const button of document.querySelectorAll("[data-action]")) {
  button.addEventListener("click", async () => {
    button.disabled = true;
    try { state = (await send("control", { action: button.dataset.action })).state; say(state); showButtons(); } catch (error) { failed(error); }
  });
}

const source = new EventSource("events");
source.addEventListener("progress", (event) => showState(JSON.parse(event.data)));
source.addEventListener("error", () => say("the connection is gone; trying again"));

function showReview(answer) {
  review = answer;
  const estimate = review.estimate;
  const marked = `${review.marks.length} marked`;
  byId("estimate").textContent = estimate === null
    ? `Estimated label accuracy: none yet (${marked}). Open an example and mark it right (r) or wrong (w); n opens the next proposed one.`
    : `Estimated label accuracy ${(100 * estimate.value).toFixed(1)}%, 95% interval ${(100 * estimate.lower).toFixed(1)} to ` +
      `${(100 * estimate.upper).toFixed(1)}%, n = ${estimate.n} (${marked}).`;
}

async function mark(verdict) {
  if (!split.classList.contains("open") || active < 0) return;
  try { showReview(await send("review", { id: run.ids[order[active]], verdict })); open(); } catch (error) { failed(error); }
}

function nextProposed() {
  const marked = new Set(review.marks.map((one) => one.id));
  const here = active >= 0 ? run.ids[order[active]] : null;
  const next = review.proposed.find((id) => !marked.has(id) && id !== here);
  if (next === undefined) { byId("estimate").textContent += " Nothing more is proposed."; return; }
  const position = run.ids.indexOf(next);
  if (position >= 0) choose(position);
  else byId("estimate").textContent += ` ${next} is not among the examples of this page.`;
}

if (grid) {
  marksOf = (i) => {
    const given = review.marks.findLast((one) => one.id === run.ids[i]);
    const button = (verdict, key) => make("button", {
      type: "button", "data-verdict": verdict, "aria-pressed": given && given.verdict === verdict ? "true" : "false",
      onclick: () => mark(verdict),
    }, `${verdict} (${key})`);
    return [make("h4", {}, "Is this label right?"), make("div", { class: "buttons" }, button("right", "r"), button("wrong", "w"),
      make("button", { type: "button", onclick: nextProposed }, "next (n)"))];
  };
  document.addEventListener("keydown", (event) => {
    if (["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = { r: () => mark("right"), w: () => mark("wrong"), n: nextProposed }[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  send("review").then(showReview, () => { byId("estimate").hidden = true; });
}
