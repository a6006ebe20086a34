"use strict";

// Every text of a data set is set as text (textContent), never as markup.

const byId = (id) => document.getElementById(id);
const ordinal = (n) => n + (["th", "st", "nd", "rd"][n % 100 > 10 && n % 100 < 14 ? 0 : n % 10] || "th");

let person = null; // the annotator's name
let current = null; // the item on the page
let lastLabelled = null; // the key of the item labelled last
let ranks = []; // rank of each answer as shown; 0: none yet
let placed = []; // answers in the order in which they got their ranks
let tieNext = false;
let busy = false;
let watched = 0; // milliseconds that the item was on the page, with the page in sight
let since = null;

async function call(path, body) {
  const options = body === undefined ? {} : {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ annotator: person, ...body }),
  };
  const query = body === undefined && person !== null ? "?annotator=" + encodeURIComponent(person) : "";
  let response;
  try {
    response = await fetch(path + query, options);
  } catch {
    throw new Error("The server does not answer. Is `alignment annotate` still running? Nothing was saved.");
  }
  const text = await response.text();
  if (response.ok) return JSON.parse(text);
  let message = text;
  try {
    message = JSON.parse(text).error;
  } catch { /* a plain message */ }
  throw new Error(message);
}

// One request at a time: a second press while the first is under way is not a second label.
async function once(work) {
  if (busy) return;
  busy = true;
  document.body.setAttribute("aria-busy", "true");
  byId("problem").hidden = true;
  try {
    await work();
  } catch (error) {
    byId("problem").textContent = error.message;
    byId("problem").hidden = false;
  } finally {
    busy = false;
    document.body.removeAttribute("aria-busy");
  }
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function textBlock(text) {
  const block = element("div", text.trim() ? "text" : "text empty", text.trim() ? text : "(an empty answer)");
  block.dir = "auto";
  return block;
}

function showProgress(reply) {
  person = reply.annotator;
  byId("who").textContent = person;
  const total = reply.done + reply.left;
  byId("progress").max = Math.max(total, 1);
  byId("progress").value = reply.done;
  byId("count").textContent = `${reply.done} of ${total}`;
}

function show(reply, announcement) {
  showProgress(reply);
  current = reply.next;
  byId("welcome").hidden = true;
  byId("work").hidden = current === null;
  byId("done").hidden = current !== null;
  byId("said").textContent = announcement || "";
  lastLabelled = reply.last;
  since = null;
  if (current === null) {
    byId("done-text").textContent =
      `You have labelled ${reply.done} ${reply.done === 1 ? "item" : "items"}; all of it is saved. You can close this page.`;
    byId("done-undo").disabled = byId("done-back").disabled = reply.done === 0;
    byId("done-title").focus();
    return;
  }
  watched = 0;
  since = document.hidden ? null : performance.now();
  const one = current.answers.length === 1;
  const two = current.answers.length === 2;
  byId("task").textContent =
    one ? "Is this answer good?" : two ? "Which answer is better?" : "Rank the answers, the best first";
  byId("changed").hidden = current.label === null;
  byId("changed").textContent = current.label === null ? "" : `You said: ${words(current.label)}. A new choice replaces it.`;
  byId("pick").hidden = !two;
  byId("thumb").hidden = !one;
  byId("rank").hidden = one || two;
  byId("skip").disabled = current.label !== null;
  byId("undo").disabled = reply.done === 0;
  byId("back").disabled = current.earlier === null;
  byId("forward").hidden = current.label === null;
  ranks = current.label && current.label.ranks ? [...current.label.ranks] : current.answers.map(() => 0);
  placed = ranks.map((_, answer) => answer).filter((answer) => ranks[answer]).sort((a, b) => ranks[a] - ranks[b]);
  tieNext = false;
  byId("prompt").replaceChildren(...current.prompt.map(turn));
  byId("answers").replaceChildren(...current.answers.map((text, answer) => card(text, answer, one || two)));
  mark();
  window.scrollTo(0, 0);
  byId("task").focus({ preventScroll: true });
}

function words(label) {
  if (label.status === "abstain") return "cannot say";
  if (label.ranks.length === 1) return label.ranks[0] === 1 ? "good" : "bad";
  if (label.status === "tie") return "equally good";
  if (label.ranks.length === 2) return `answer ${label.ranks[0] < label.ranks[1] ? 1 : 2} is better`;
  return "the ranks below";
}

function turn(message) {
  const block = element("div", "turn");
  if (message.role) block.append(element("div", "role", message.role[0].toUpperCase() + message.role.slice(1)));
  block.append(textBlock(message.text));
  return block;
}

function card(text, answer, pressed) {
  const block = element("article", "answer");
  block.setAttribute("aria-labelledby", `answer-${answer}`);
  const heading = element("h3", "", current.answers.length === 1 ? "Answer" : `Answer ${answer + 1}`);
  heading.id = `answer-${answer}`;
  heading.append(element("span", "place"));
  block.append(heading, textBlock(text));
  if (pressed) return block; // labelled with buttons, not with ranks
  const choices = element("fieldset");
  choices.append(element("legend", "", `Rank of answer ${answer + 1}; equal ranks are a tie`));
  for (let rank = 1; rank <= current.answers.length; rank += 1) {
    const option = element("label", "option");
    const radio = element("input");
    radio.type = "radio";
    radio.name = `rank-${answer}`;
    radio.value = rank;
    radio.addEventListener("change", () => place(answer, rank));
    option.append(radio, ordinal(rank));
    choices.append(option);
  }
  block.append(choices);
  return block;
}

function place(answer, rank) {
  ranks[answer] = rank;
  placed = [...placed.filter((other) => other !== answer), answer];
  tieNext = false;
  mark();
}

// The next rank of competition ranking: after one best and two second answers comes the fourth.
function placeNext(answer) {
  if (answer >= ranks.length || ranks[answer]) return;
  const last = placed[placed.length - 1];
  place(answer, tieNext && last !== undefined ? ranks[last] : Math.min(placed.length + 1, ranks.length));
}

function clearLast() {
  const last = placed.pop();
  if (last !== undefined) ranks[last] = 0;
  tieNext = false;
  mark();
}

function mark() {
  const two = current.answers.length <= 2; // or one, labelled with buttons too
  [...byId("answers").children].forEach((block, answer) => {
    const chosen = two ? current.label !== null && ranks[answer] === 1 : ranks[answer] > 0;
    block.classList.toggle("marked", chosen);
    block.querySelector(".place").textContent = !two && ranks[answer] ? ordinal(ranks[answer]) : "";
    for (const radio of block.querySelectorAll("input")) radio.checked = Number(radio.value) === ranks[answer];
  });
  const missing = ranks.filter((rank) => !rank).length;
  byId("submit").disabled = missing > 0;
  byId("clear").disabled = placed.length === 0;
  byId("left").textContent = missing
    ? `${missing} to rank${tieNext ? "; the next ties with the last" : ""}`
    : "";
}

function seconds() {
  return (watched + (since === null ? 0 : performance.now() - since)) / 1000;
}

function send(verdict, announcement) {
  once(async () => {
    const body = { item: current.item, view: current.view, verdict, seconds: seconds() };
    show(await call("/api/label", body), announcement);
  });
}

const saved = (what) => `Saved: ${what}.`;
const pick = (first, second, what) => send({ ranks: [first, second] }, saved(what));
const submitRanks = () => { if (ranks.every((rank) => rank)) send({ ranks }, saved("ranking")); };
const undo = () => once(async () => show(await call("/api/undo", {}), "The last label was taken back."));
const look = (key) => once(async () => show(await call("/api/items/" + encodeURIComponent(key))));
const following = (announcement) => once(async () => show(await call("/api/next"), announcement));

const actions = {
  first: () => pick(1, 2, "answer 1 is better"),
  second: () => pick(2, 1, "answer 2 is better"),
  tie: () => pick(1, 1, "equally good"),
  good: () => send({ ranks: [1] }, saved("good")),
  bad: () => send({ ranks: [2] }, saved("bad")),
  submit: submitRanks,
  clear: clearLast,
  abstain: () => send("abstain", saved("cannot say")),
  skip: () => send("skipped", "Put off; it comes again at the end."),
  undo,
  "done-undo": undo,
  back: () => look(current.earlier),
  forward: () => following(),
  again: () => following(),
  "done-back": () => look(lastLabelled),
};

for (const [id, action] of Object.entries(actions)) {
  byId(id).addEventListener("click", (event) => {
    if (event.detail > 1) return; // the second half of a double click belongs to the item before
    action();
  });
}

const keys = {
  x: "abstain", s: "skip", u: "undo", p: "back", n: "forward",
  Enter: "submit", Backspace: "clear",
};

document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || !byId("use-keys").checked) return;
  if (byId("work").hidden || busy || document.querySelector("dialog[open]")) return;
  if (event.target.matches("input[type=text]")) return;
  if (event.key === "Enter" && event.target.matches("button, a")) return; // presses the button that has the focus
  const one = current.answers.length === 1;
  const two = current.answers.length === 2;
  const number = /^[1-9]$/.test(event.key) ? Number(event.key) : 0;
  if (number) {
    if (one && number <= 2) byId(number === 1 ? "good" : "bad").click();
    else if (!one && !two) placeNext(number - 1);
    else if (two && number <= 2) byId(number === 1 ? "first" : "second").click();
  } else if (event.key === "=") {
    if (two) byId("tie").click();
    else if (!one) { tieNext = placed.length > 0; mark(); }
  } else {
    const id = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    const button = id && byId(id);
    if (!button || button.disabled || button.closest("[hidden]")) return;
    button.click();
  }
  event.preventDefault();
});

document.addEventListener("visibilitychange", () => {
  if (current === null) return;
  if (document.hidden && since !== null) {
    watched += performance.now() - since;
    since = null;
  } else if (!document.hidden && since === null) since = performance.now();
});

byId("show-guidelines").addEventListener("click", () => byId("guidelines").showModal());
byId("show-keys").addEventListener("click", () => byId("keys").showModal());

byId("welcome").addEventListener("submit", (event) => {
  event.preventDefault();
  once(async () => {
    const known = person;
    person = person ?? byId("name").value;
    try {
      begin(await call("/api/next"));
    } catch (error) {
      person = known;
      throw error;
    }
  });
});

function begin(reply) {
  byId("bar").hidden = byId("progress-part").hidden = byId("show-keys").hidden = false;
  sessionStorage.setItem("annotator", reply.annotator);
  show(reply);
}

once(async () => {
  const state = await call("/api/state");
  byId("guidelines-text").textContent = byId("welcome-guidelines").textContent = state.guidelines;
  byId("show-guidelines").hidden = byId("welcome-guidelines").hidden = !state.guidelines;
  const before = sessionStorage.getItem("annotator");
  person = state.annotator ?? before;
  if (before !== null && before === person) {
    begin(await call("/api/next"));
    return;
  }
  byId("ask-name").hidden = person !== null;
  byId("welcome").hidden = false;
  byId(person === null ? "name" : "welcome-title").focus();
});
