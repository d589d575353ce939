"use strict";
// The data: {images: [uri, ...], questions: [{left, right, reference}, ...], secret}. Numbers are those of images.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const answers = []; // {choice: 1 | 2 | 0, seconds}
let since = performance.now();

function show() {
  const total = data.questions.length, done = answers.length === total;
  $("test").hidden = done;
  $("result").hidden = !done;
  $("progress").max = total;
  $("progress").value = answers.length;
  $("where").textContent = `${Math.min(answers.length + 1, total)} of ${total}`;
  $("undo").disabled = answers.length === 0;
  if (done) return result();
  const question = data.questions[answers.length];
  $("image-1").src = data.images[question.left];
  $("image-2").src = data.images[question.right];
  $("reference").hidden = question.reference === null;
  if (question.reference !== null) $("image-reference").src = data.images[question.reference];
  since = performance.now();
}
function answer(choice) {
  if (answers.length === data.questions.length) return;
  answers.push({ choice, seconds: Math.round((performance.now() - since) / 100) / 10 });
  show();
}
function undo() {
  if (answers.pop()) show();
}

function unscramble(text) {
  const key = "no peeking";
  const bytes = Uint8Array.from(atob(text), (c, n) => c.charCodeAt(0) ^ key.charCodeAt(n % key.length));
  return JSON.parse(new TextDecoder().decode(bytes));
}
// Wilson's interval for the share of `hits` among `all`, at 95 %.
function wilson(hits, all) {
  if (!all) return [0, 1];
  const z = 1.959964, p = hits / all, scale = 1 + z * z / all;
  const middle = (p + z * z / (2 * all)) / scale;
  const half = z / scale * Math.sqrt(p * (1 - p) / all + z * z / (4 * all * all));
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}
// For every two inputs: how often each was chosen, and how often neither.
function counts() {
  const secret = unscramble(data.secret), found = new Map();
  secret.questions.forEach((question, n) => {
    const first = Math.min(question.left, question.right), second = Math.max(question.left, question.right);
    const key = `${first} ${second}`;
    if (!found.has(key)) found.set(key, { first, second, wins: [0, 0], same: 0 });
    const pair = found.get(key), choice = answers[n].choice;
    if (choice === 0) pair.same += 1;
    else pair.wins[(choice === 1 ? question.left : question.right) === first ? 0 : 1] += 1;
  });
  return [...found.values()].map(({ first, second, wins, same }) => {
    const chosen = wins[0] + wins[1];
    return {
      first: secret.names[first], second: secret.names[second], first_better: wins[0], second_better: wins[1], same,
      share: chosen ? wins[0] / chosen : null, interval: wilson(wins[0], chosen),
    };
  });
}
function saved() {
  const secret = unscramble(data.secret);
  const given = secret.questions.map((question, n) => ({
    left: secret.names[question.left], right: secret.names[question.right],
    frame: question.frame, box: question.box, ...answers[n],
  }));
  return { title: document.title, seed: secret.seed, counts: counts(), answers: given };
}
function element(name, className, ...content) {
  const box = document.createElement(name);
  box.className = className;
  box.append(...content);
  return box;
}
function result() {
  $("counts").replaceChildren();
  const percent = (value) => `${Math.round(100 * value)} %`;
  for (const pair of counts()) {
    const [low, high] = pair.interval, band = element("i", ""), bar = element("div", "bar", band);
    band.style.left = `${100 * low}%`;
    band.style.right = `${100 * (1 - high)}%`;
    if (pair.share !== null) {
      const mark = element("b", "");
      mark.style.left = `${100 * pair.share}%`;
      bar.append(mark);
    }
    $("counts").append(element("figure", "",
      element("p", "who", element("b", "", pair.first), ` ${pair.first_better} better, ${pair.same} the same`),
      element("p", "who", element("b", "", pair.second), ` ${pair.second_better} better`), bar,
      element("p", "who", pair.share === null ? "Nothing was chosen." :
        `${pair.first} was chosen in ${percent(pair.share)} (95 %: ${percent(low)} to ${percent(high)})`)));
  }
}
function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(saved(), null, 1)], { type: "application/json" }));
  link.download = "blind-test.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (["0", "1", "2"].includes(event.key)) answer(Number(event.key));
  else if (event.key === "Backspace") undo();
  else if ((event.key === "Enter" || event.key === " ") && event.target.id?.startsWith("pick-"))
    answer(Number(event.target.id.slice(-1)));
  else return;
  event.preventDefault();
});
for (const button of document.querySelectorAll("[data-answer]"))
  button.addEventListener("click", () => { button.blur(); answer(Number(button.dataset.answer)); });
for (const side of [1, 2]) $(`pick-${side}`).addEventListener("click", () => answer(side));
$("undo").addEventListener("click", undo);
$("again").addEventListener("click", undo);
$("save").addEventListener("click", save);
show();
