"use strict";
// Everything a run says becomes text (textContent, attributes of our own choosing), never markup.
const $ = (id) => document.getElementById(id);
const LONGEST = 400; // decisions on the page

function make(tag, text, kind) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (kind) node.className = kind;
  return node;
}
const count = (n) => (n === null || n === undefined ? "unknown" : Math.round(n).toLocaleString("en"));
const signed = (x) => (x === null || x === undefined ? "unknown" : (x < 0 ? "\u2212" : "+") + Math.abs(x).toFixed(3));
const dollars = (x) => (x === null || x === undefined ? "unknown" : x === 0 ? "no price" : "$" + x.toFixed(4));
const when = (s) => (s ? new Date(s * 1000).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" }) : "");
const interval = (g) => (g.low === null || g.high === null ? "" : `[${signed(g.low)}, ${signed(g.high)}]`);
const put = (id, text) => { if ($(id).textContent !== text) $(id).textContent = text; };

function cell(text, label, kind) {
  const node = make("td", text, kind);
  if (label) node.dataset.label = label;
  return node;
}

function rows(table, lines) {
  const body = $(table).tBodies[0];
  body.replaceChildren(...lines);
}

function gainText(g) {
  if (!g || g.mean === null) return g && g.ruling ? g.ruling : "nothing measured yet";
  return `${signed(g.mean)} ${interval(g)}`.trim();
}

// -- the list ---------------------------------------------------------------------------------------------------------

function showRuns(runs) {
  $("none").hidden = runs.length > 0;
  rows("runs", runs.map((run) => {
    const line = make("tr");
    const name = make("th");
    name.scope = "row";
    const link = make("a", run.name);
    link.href = "/runs/" + encodeURIComponent(run.name);
    name.append(link);
    const status = cell(undefined, "Status", "free");
    const said = make("span");
    said.append(make("span", run.status, "chip " + run.status), make("span", run.reason ? " " + run.reason : "", "small"));
    status.append(said);
    const where = run.gain ? (run.gain.split === "test" ? " held-out test" + (run.gain.ruling ? ", " + run.gain.ruling : "") : " search split, so far") : "";
    const gain = cell(undefined, "Gain", "free");
    const figure = make("span", run.status === "damaged" ? "unknown" : gainText(run.gain));
    figure.append(make("span", where, "small"));
    gain.append(figure);
    const limit = run.limits && run.limits.rollouts ? " of " + count(run.limits.rollouts) : "";
    line.append(name, status, gain, cell(run.rollouts === null ? "unknown" : count(run.rollouts) + limit, "Rollouts", "n"),
      cell(count(run.tokens), "Tokens", "n"), cell(dollars(run.dollars), "Dollars", "n"), cell(when(run.started), "Started"));
    return line;
  }));
}

// -- one run ----------------------------------------------------------------------------------------------------------

let decisions = [];

function spark(course) {
  const svg = $("spark"), space = "http://www.w3.org/2000/svg";
  if (course.length === 0) return svg.replaceChildren();
  const last = course[course.length - 1];
  const low = Math.min(0, ...course.map((p) => p[1])), high = Math.max(0.05, ...course.map((p) => p[1]));
  const x = (n) => (300 * n) / Math.max(1, last[0]), y = (v) => 56 - (52 * (v - low)) / (high - low);
  const points = course.map((p, i) => (i ? `${x(p[0])},${y(course[i - 1][1])} ` : "") + `${x(p[0])},${y(p[1])}`);
  const line = document.createElementNS(space, "polyline"), zero = document.createElementNS(space, "line");
  line.setAttribute("points", points.join(" "));
  for (const [name, value] of Object.entries({ x1: 0, x2: 300, y1: y(0), y2: y(0) })) zero.setAttribute(name, value);
  svg.replaceChildren(zero, line);
  svg.setAttribute("aria-label", `gain of the best candidate over ${last[0]} rollouts: from ${signed(course[0][1])} to ${signed(last[1])}`);
}

function sentence(state) {
  const g = state.gain;
  if (g && g.split === "test") {
    const words = { ship: "Ship the evolved prompt", "do not ship": "Do not ship: the seed is returned", inconclusive: "Inconclusive: the seed is returned" };
    return (words[g.ruling] || g.ruling) + (g.mean === null ? "." : `, gain ${gainText(g)} on ${g.pairs} held-out examples.`);
  }
  if (state.status === "running") return g ? "Searching." : "Measuring the seed prompt.";
  return "Not finished: the same gepa-atlas optimize command goes on with it.";
}

function showState(state) {
  const g = state.gain, test = g && g.split === "test";
  document.title = `${state.name} ${state.status} - gepa_atlas`;
  put("name", state.name);
  put("status", state.status);
  put("sentence", sentence(state));
  put("reason", [state.reason, state.started ? "started " + when(state.started) : "", ...(test ? g.reasons : [])].filter(Boolean).join("; "));
  $("verdict").className = "verdict " + (test ? { ship: "good", "do not ship": "bad" }[g.ruling] || "" : state.status === "running" ? "going" : "");
  $("report").hidden = !state.has_report;
  $("report-link").href = location.pathname + "/report";
  put("h-best", test ? "Held-out test" : "Best so far");
  put("gain", gainText(g));
  put("gain-said", !g ? "" : test ? "paired with the seed, 95 % interval; below: the best of the search split over rollouts"
    : g.is_seed ? "Nothing is better than the seed yet."
    : `over the seed on ${g.pairs} examples of the search split, 95 % interval. It chooses the prompt; what the prompt is worth, the held-out test says.`);
  spark(state.course);
  const limit = state.limits.rollouts;
  put("rollouts", count(state.rollouts) + (limit ? ` of ${count(limit)} rollouts` : " rollouts"));
  $("used").value = limit ? Math.min(1, state.rollouts / limit) : 0;
  const names = { tokens: "tokens at most", dollars: "dollars at most", seconds: "seconds at most", concurrency: "calls at once", width: "proposals in flight" };
  $("limits").replaceChildren(...Object.entries(names).filter(([key]) => state.limits[key]).map(([key, said]) => make("li", `${state.limits[key]} ${said}`)),
    make("li", `${state.candidates} candidates, ${state.told} slots decided`));
  rows("spend", Object.entries(state.spend).map(([role, took]) => {
    const line = make("tr"), head = make("th", role);
    head.scope = "row";
    line.append(head, cell(count(took.calls), "", "n"), cell(count(took.tokens), "", "n"), cell(dollars(took.dollars), "", "n"));
    return line;
  }));
  const traffic = state.traffic, roles = [...new Set([...Object.keys(traffic.calls), ...Object.keys(traffic.per_minute)])].sort();
  rows("traffic", roles.map((role) => {
    const line = make("tr"), head = make("th", role);
    head.scope = "row";
    line.append(head, cell(count(traffic.calls[role] || 0), "", "n"), cell(count(traffic.per_minute[role] || 0), "", "n"));
    return line;
  }));
  put("slots", state.status !== "running" ? "Nothing is under way." : traffic.slots.length ? "Slots in flight: " + traffic.slots.map((n) => "#" + n).join(", ") : "No slot is waiting for an answer.");
}

function decisionLine(d) {
  const item = make("li", undefined, { improved: "improved", new: "new" }[d.status] || ""), head = make("div", undefined, "head");
  const marks = { improved: "new best", new: "kept", "not added": "not kept" };
  head.append(make("strong", `#${d.n} ${d.operator}`), make("span", { final: "held-out test", idle: "nothing to do" }[d.kind] || marks[d.status] || d.status, "chip"),
    make("span", `${d.rollouts} rollout${d.rollouts === 1 ? "" : "s"}, ${count(d.rollouts_told)} in all`, "small"));
  item.append(head, make("div", d.reason, "why"));
  return item;
}

function showDecisions() {
  const kept = $("filter").value === "kept";
  const shown = (kept ? decisions.filter((d) => d.status !== "not added") : decisions).slice(-LONGEST).reverse();
  $("decisions").replaceChildren(...shown.map(decisionLine));
  put("count", `${shown.length} of ${decisions.length}`);
}

function took(told) {
  const at = $("decisions").scrollTop;
  if (told.first < decisions.length) decisions = decisions.slice(0, told.first);
  decisions.push(...told.decisions);
  showState(told.state);
  if (told.decisions.length || decisions.length === 0) showDecisions();
  $("decisions").scrollTop = at;
  document.body.dataset.ready = "";
}

// -- both -------------------------------------------------------------------------------------------------------------

function listen(address, events) {
  const source = new EventSource(address);
  source.onopen = () => put("link", "live");
  source.onerror = () => put("link", source.readyState === EventSource.CLOSED ? "the server refused: open the address that gepa-atlas ui printed" : "connection lost, trying again");
  for (const [kind, take] of Object.entries(events)) source.addEventListener(kind, (event) => take(JSON.parse(event.data)));
}

$("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
});
const chosen = localStorage.getItem("theme");
if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;

if (document.body.dataset.page === "list") {
  listen("/api/events", { runs: (runs) => { showRuns(runs); document.body.dataset.ready = ""; } });
} else {
  $("filter").addEventListener("change", showDecisions);
  listen("/api" + location.pathname + "/events", { run: took, problem: (p) => { put("status", "unreadable"); put("reason", p.reason); document.body.dataset.ready = ""; } });
}
