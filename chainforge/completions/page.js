const PAGE = 50;
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const names = ["step", "kind", "text", "rewards", "iteration", "index", "prompt", "tokens", "finish", "total",
  "advantage", "kept", "right"];
const rows = data.rows.map((values) => Object.fromEntries(names.map((name, i) => [name, values[i]])));
for (const row of rows) {
  row.asked = Object.hasOwn(data.questions, row.prompt) ? data.questions[row.prompt] : null;
  row.verdict = row.right === null ? "ungraded" : row.right ? "right" : "wrong";
}
let found = rows, page = 0;

function element(tag, text, kind) {
  const made = document.createElement(tag);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function options(id, values) {
  for (const [value, text] of values) {
    const made = element("option", text);
    made.value = value;
    $(id).append(made);
  }
}

const short = (value) => value === null ? "–" : String(Number(value.toPrecision(4)));
const bound = (id, otherwise) => $(id).value === "" || !$(id).validity.valid ? otherwise : Number($(id).value);

function rewardOf(row) {
  const chosen = $("reward").value;
  return chosen === "" ? row.total : row.rewards[Number(chosen)];
}

function passes(row, wanted) {
  if (wanted.step !== "" && row.step !== Number(wanted.step)) return false;
  if (wanted.verdict && row.verdict !== wanted.verdict) return false;
  if (wanted.finish && row.finish !== wanted.finish) return false;
  if (wanted.numbered && (row.iteration === null || row.iteration < wanted.from || row.iteration > wanted.to)) return false;
  if (wanted.valued) {
    const value = rewardOf(row);
    if (value === null || value < wanted.low || value > wanted.high) return false;
  }
  return !wanted.text || row.text.toLowerCase().includes(wanted.text) || row.prompt.toLowerCase().includes(wanted.text)
    || (row.asked !== null && row.asked[0].toLowerCase().includes(wanted.text));
}

function search() {
  const wanted = {
    text: $("text").value.trim().toLowerCase(), step: $("step").value, verdict: $("verdict").value,
    finish: $("finish").value, from: bound("from", -Infinity), to: bound("to", Infinity),
    low: bound("low", -Infinity), high: bound("high", Infinity),
  };
  wanted.numbered = wanted.from > -Infinity || wanted.to < Infinity;
  wanted.valued = wanted.low > -Infinity || wanted.high < Infinity;
  found = rows.filter((row) => passes(row, wanted));
  const order = $("order").value, last = order === "up" ? Infinity : -Infinity;
  const key = (row) => order === "long" ? row.tokens : rewardOf(row) ?? last;
  if (order) found.sort((a, b) => key(a) === key(b) ? 0 : (key(a) < key(b) ? -1 : 1) * (order === "up" ? 1 : -1));
  page = 0;
  show();
}

function card(row) {
  const made = element("article", "", row.verdict), head = element("header", "");
  const add = (text, kind) => head.append(element("span", text, kind));
  add({ right: "✓ right", wrong: "✗ wrong", ungraded: "not graded" }[row.verdict], "verdict");
  add(data.steps[row.step] + (row.iteration === null ? "" : `, RL step ${row.iteration}`));
  add(row.kind === "greedy" ? "greedy" : `no. ${row.index + 1}`);
  head.append(element("code", row.prompt));
  if (row.total !== null) add(`total ${short(row.total)}`);
  data.rewards.forEach((name, i) => { if (row.rewards[i] !== null) add(`${name} ${short(row.rewards[i])}`); });
  if (row.advantage !== null) add(`advantage ${short(row.advantage)}`);
  if (row.kept !== null) add(row.kept ? "kept" : "not kept");
  add(`${row.tokens} tokens`);
  if (row.finish !== "stop") add(row.finish === "length" ? "cut off" : row.finish);
  made.append(head);
  if (row.asked) made.append(element("p", row.asked[0] + (row.asked[1] === null ? "" : `\n= ${row.asked[1]}`), "question"));
  made.append(element("pre", row.text === "" ? "(empty)" : row.text));
  return made;
}

function show() {
  const pages = Math.max(1, Math.ceil(found.length / PAGE));
  $("list").replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map(card));
  $("where").textContent = `${found.length.toLocaleString("en")} found, page ${page + 1} of ${pages.toLocaleString("en")}`;
  $("back").disabled = page === 0;
  $("next").disabled = page >= pages - 1;
}

function turn(by) {
  page += by;
  show();
  $("where").scrollIntoView({ block: "center" });
}

options("step", data.steps.map((name, i) => [i, name]));
options("finish", [...new Set(rows.map((row) => row.finish))].map((name) => [name, name === "length" ? "cut off" : name]));
options("reward", [["", "total"], ...data.rewards.map((name, i) => [i, name])]);
let timer = 0;
$("filters").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(search, 150); });
$("filters").addEventListener("reset", () => setTimeout(search));
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("back").addEventListener("click", () => turn(-1));
$("next").addEventListener("click", () => turn(1));
show();
