/** Puts the page together. */

import { Album } from "./album.js";
import { Announcer } from "./announce.js";
import { Api } from "./api.js";
import { Card } from "./card.js";
import { byId } from "./dom.js";
import { showFacts, showNoFacts } from "./facts.js";
import { intake } from "./intake.js";
import { askKey } from "./key.js";
import { download, rows, table } from "./table.js";
import { Teacher } from "./teach.js";
import { enlarge } from "./viewer.js";
import { count, sentence, percent, trouble } from "./words.js";

const api = new Api(askKey);
const announcer = new Announcer(byId("live"));
const cards = new Map();
let model = {}; // what the server said of itself last
let asked = null;
let heatUnknown = false; // the server said that its model has no heat maps

const facts = () => ({ ...model, explains: Boolean(model.explains) && !heatUnknown });

/** What the server says of itself; asked once, and again after it did not answer. */
function known() {
  const onWait = () => showNoFacts("It is busy, or just starting. It is asked again.");
  asked ??= api.model({ onWait }).then((said) => {
    model = said;
    showFacts(model);
    byId("open-teach").hidden = !model.teaching;
    return said;
  }).catch((error) => {
    asked = null;
    const { title, advice } = trouble(error);
    showNoFacts(`${title}. ${advice}`);
    throw error;
  });
  return asked;
}

const album = new Album(api, known);
const teacher = new Teacher(api, facts, () => {
  asked = null;
  known().catch(() => {}); // it has said so on the page
  byId("again").hidden = album.shots.length === 0;
});

const page = {
  facts,
  remove: (shot) => {
    const neighbours = [...cards.keys()];
    const place = neighbours.indexOf(shot);
    const next = neighbours[place + 1] ?? neighbours[place - 1];
    album.remove(shot);
    (next ? cards.get(next).removal : byId("choose")).focus();
    announcer.say(`${shot.name} removed.`);
  },
  again: (shot) => album.again(shot),
  teach: (shot) => teacher.show([shot.file]),
  enlarge,
  heat: async (shot) => {
    try {
      return await api.explain(shot.file, shot.name, { signal: shot.stop.signal, onWait: () => {} });
    } catch (error) {
      heatUnknown ||= error.status === 501;
      throw error;
    }
  },
};

album.addEventListener("added", ({ detail: shot }) => {
  const card = new Card(shot, page);
  cards.set(shot, card);
  byId("cards").append(card.element);
  refresh();
});
album.addEventListener("changed", ({ detail: shot }) => {
  cards.get(shot).update();
  if (shot.state === "done") {
    const { answer } = shot.result;
    const sure = answer.level === "unknown" ? "" : `, ${percent(answer.confidence)}`;
    announcer.answer(shot.name, sentence(shot.result, model.detector) + sure);
  } else if (shot.state === "failed") {
    announcer.answer(shot.name, `${shot.trouble.title}. ${shot.trouble.advice}`);
  }
  refresh();
});
album.addEventListener("removed", ({ detail: shot }) => {
  const card = cards.get(shot);
  card.close();
  card.element.remove();
  cards.delete(shot);
  refresh();
});

let due = false;

/** Bring all that sums up the cards up to date, once for all changes of a moment. */
function refresh() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    const { shots } = album;
    const over = shots.filter((shot) => shot.over);
    document.body.toggleAttribute("data-results", shots.length > 0);
    byId("results").hidden = shots.length === 0;
    byId("summary").textContent = summary(shots, over);
    byId("download").disabled = over.length === 0;
    const progress = byId("progress");
    progress.hidden = over.length === shots.length || shots.length < 2;
    progress.max = Math.max(1, shots.length);
    progress.value = over.length;
    if (byId("sheet").open) byId("table").replaceChildren(table(rows(shots)));
  });
}

function summary(shots, over) {
  const named = over.filter((shot) => shot.result && shot.result.answer.level !== "unknown").length;
  const failed = over.filter((shot) => shot.state === "failed").length;
  const unknown = over.length - named - failed;
  return [
    count(shots.length, "photo"), `${named} named`, unknown && `${unknown} not known`,
    failed && `${failed} failed`, over.length < shots.length && `${shots.length - over.length} to go`,
  ].filter(Boolean).join(" · ");
}

function take(files, how) {
  if (teacher.open) {
    teacher.take(files);
    return;
  }
  const [first] = album.add(files, how);
  announcer.say(`${count(files.length, "photo")} taken in.`);
  // After the frame in which the section is shown; "nearest" leaves alone what is in view.
  requestAnimationFrame(() => requestAnimationFrame(() => {
    cards.get(first)?.element.scrollIntoView({ block: "nearest" });
  }));
}

intake(take, (text) => {
  byId("note").textContent = text;
  byId("note").hidden = text === "";
  if (text) announcer.say(text);
});
byId("download").addEventListener("click", () => download(album.shots));
byId("clear").addEventListener("click", () => {
  album.clear();
  byId("again").hidden = true;
  byId("choose").focus();
  announcer.say("All photos removed.");
});
byId("again").addEventListener("click", () => {
  byId("again").hidden = true;
  byId("results").focus();
  for (const shot of album.shots.filter((one) => one.over)) album.again(shot);
});
byId("sheet").addEventListener("toggle", refresh);
byId("open-teach").addEventListener("click", () => teacher.show());
known().catch(() => {}); // it has said so on the page
