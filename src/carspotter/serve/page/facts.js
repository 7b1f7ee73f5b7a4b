/** What the model knows, how good it is, and where photos go: from what the server says of itself. */

import { byId, element } from "./dom.js";
import { count } from "./words.js";

const LOCAL = /^(localhost|127(\.\d+){3}|\[::1\])$/;

/** Write the three facts and the line at the foot. */
export function showFacts(model) {
  byId("facts").replaceChildren(...[knows(model), accuracy(model.accuracy), privacy()].map(
    ([title, text]) => element("li", {}, element("strong", {}, title), element("span", {}, text))));
  byId("about").textContent = `carspotter with the model ${model.name} ${model.version}. `
    + "A confidence is calibrated: of answers with 80 %, about eight in ten are right on photos like "
    + "those it was measured on.";
}

/** Say why the server told nothing so far. */
export function showNoFacts(text) {
  byId("facts").replaceChildren(element("li", {}, element("strong", {}, "No word from the server"),
    element("span", {}, text)));
}

function knows({ classes, newest_year: newest, garage }) {
  const year = newest ? `Up to model year ${newest}; a newer car may be taken for an older one.` : "";
  const taught = garage?.cars ? ` And ${count(garage.cars, "car")} taught here.` : "";
  return [`Knows ${count(classes.length, "car")}`, year + taught];
}

function accuracy(said) {
  const measured = said?.measured;
  if (!measured?.exact) return ["Accuracy not measured", "The model file does not say how often it is right."];
  const make = measured.make ? `; for the make alone ${share(measured.make.top1)}` : "";
  return [
    `Right on ${share(measured.exact.top1)}`,
    `of ${count(measured.pictures, `${measured.split} photo`)} that it was not trained on, year included${make}.`,
  ];
}

function privacy() {
  const { hostname } = window.location;
  const title = LOCAL.test(hostname) ? "Photos stay on this machine" : "Photos go to this server alone";
  return [title, "They are sent to no one else, and nothing of a photo is kept after its answer."];
}

function share(part) {
  return `${(100 * part).toFixed(1)} %`;
}
