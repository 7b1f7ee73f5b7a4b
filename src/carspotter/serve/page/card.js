/** The card of one photo: what it shows, how far it is, what was answered, what can be done. */

import { CROSS, element, icon } from "./dom.js";
import { Picture } from "./picture.js";
import { percent, pieces, sentence, sureness, trouble } from "./words.js";

let cards = 0;

export class Card {
  #heat = null;
  #heatWanted = false;
  #clock = 0;

  /**
   * @param {import("./album.js").Shot} shot
   * @param {{facts: () => object, remove: Function, again: Function, teach: Function,
   *   enlarge: Function, heat: (shot) => Promise<Blob>}} page what the buttons do; each is given
   *   the shot, `enlarge` also the address of the heat map where that is shown
   */
  constructor(shot, page) {
    this.shot = shot;
    this.page = page;
    cards += 1;
    this.titleId = `card-${cards}`;
    this.picture = new Picture(shot);
    this.body = element("div", { class: "body" });
    this.enlarge = element("button", {
      type: "button", class: "enlarge", "aria-label": `Enlarge ${shot.name}`,
      onclick: () => page.enlarge(shot, this.#heatWanted ? this.#heat : null),
    }, this.picture.element);
    this.removal = element("button", {
      type: "button", class: "close", "aria-label": `Remove ${shot.name}`,
      onclick: () => page.remove(shot),
    }, icon(CROSS));
    this.article = element("article", { "aria-labelledby": this.titleId, "aria-busy": "true" },
      this.enlarge, this.body, this.removal);
    this.element = element("li", { class: "card" }, this.article);
    this.update();
  }

  /** Show what the shot has become. */
  update() {
    clearInterval(this.#clock);
    const { state, result } = this.shot;
    this.element.dataset.state = state;
    this.element.dataset.level = result?.answer.level ?? "";
    this.article.setAttribute("aria-busy", String(!this.shot.over));
    if (state !== "done") this.#dropHeat();
    this.picture.update();
    const focused = this.body.contains(document.activeElement);
    this.body.replaceChildren(element("p", { class: "file", title: this.shot.name }, this.shot.name),
      ...this.#content().filter(Boolean));
    // What had the focus is gone: without this, the keyboard would start over at the page's top.
    if (focused) this.body.querySelector("h3").focus();
  }

  /** Free what the card holds. */
  close() {
    clearInterval(this.#clock);
    this.#dropHeat();
  }

  #content() {
    switch (this.shot.state) {
      case "done": return this.#answer();
      case "failed": return this.#failure();
      case "pausing": return this.#pause();
      case "looking": return [this.#title("Looking…"), element("div", { class: "wait", "aria-hidden": "true" })];
      default: return [this.#title("Waiting")];
    }
  }

  #title(...children) {
    return element("h3", { id: this.titleId, tabindex: "-1" }, ...children);
  }

  #pause() {
    const left = () => Math.max(1, Math.ceil((this.shot.until - Date.now()) / 1000));
    const seconds = element("span", {}, String(left()));
    this.#clock = setInterval(() => { seconds.textContent = String(left()); }, 1000);
    return [
      this.#title("The server is busy"),
      element("p", { class: "rest" }, "Trying again in ", seconds, " s"),
    ];
  }

  #failure() {
    const { title, advice, again } = this.shot.trouble;
    return [
      this.#title(title),
      element("p", { class: "rest" }, advice),
      again && this.#actions(this.#button("Try again", () => this.page.again(this.shot))),
    ];
  }

  #answer() {
    const { answer, candidates, others, box } = this.shot.result;
    const { explains, teaching, detector } = this.page.facts();
    const { lead, name, rest } = pieces(this.shot.result, detector);
    const nothing = detector && box === null;
    return [
      this.#title(lead && element("span", { class: "lead" }, `${lead} `), name),
      rest && element("p", { class: "rest" }, `${rest[0].toUpperCase()}${rest.slice(1)}.`),
      answer.level !== "unknown" && sure(answer.confidence),
      ...(nothing ? [] : bars(answer, candidates)),
      others.length > 0 && further(others),
      this.heatNote = element("p", { class: "help", role: "status" }),
      (explains || teaching) && this.#actions(
        explains && this.#heatButton(),
        teaching && this.#button("Teach this car", () => this.page.teach(this.shot)),
      ),
    ];
  }

  #actions(...buttons) {
    return element("div", { class: "actions" }, ...buttons);
  }

  #button(label, onclick) {
    return element("button", { type: "button", class: "quiet", onclick }, label);
  }

  #heatButton() {
    const button = this.#button("Heat map", () => this.#toggleHeat(button));
    button.setAttribute("aria-pressed", String(this.#heatWanted));
    return button;
  }

  async #toggleHeat(button) {
    const note = this.heatNote;
    this.#heatWanted = !this.#heatWanted;
    button.setAttribute("aria-pressed", String(this.#heatWanted));
    note.textContent = "";
    if (this.#heatWanted && this.#heat === null) {
      note.textContent = "Drawing the heat map…";
      try {
        const { shot } = this;
        const drawing = await this.page.heat(shot);
        if (!note.isConnected) return;
        this.#heat = URL.createObjectURL(drawing);
      } catch (error) {
        if (!note.isConnected) return;
        const { title, advice } = trouble(error);
        note.textContent = `No heat map. ${title}: ${advice}`;
        this.#heatWanted = false;
        button.setAttribute("aria-pressed", "false");
        return;
      }
    }
    const shown = this.#heatWanted && this.#heat !== null;
    this.picture.showHeat(shown ? this.#heat : null);
    note.textContent = shown ? "Yellow is what spoke most for the name, violet what did not." : "";
  }

  #dropHeat() {
    if (this.#heat !== null) URL.revokeObjectURL(this.#heat);
    this.#heat = null;
    this.#heatWanted = false;
    this.picture.showHeat(null);
  }
}

function sure(confidence) {
  return element("p", { class: "sure" }, `${sureness(confidence)}, `,
    element("span", { class: "figure" }, percent(confidence)));
}

/** The candidates that are worth a bar. */
function bars(answer, candidates) {
  const shown = candidates.filter((one) => one.confidence >= 0.01);
  if (answer.level === "exact" && shown.length <= 1) {
    return [element("p", { class: "help" }, "Nothing else comes near.")];
  }
  return [
    element("p", { class: "label" }, answer.level === "unknown" ? "The nearest that I know" : "What it could be"),
    barList(shown.length > 0 ? shown : candidates.slice(0, 1)),
  ];
}

function barList(candidates) {
  return element("ol", { class: "bars" }, ...candidates.map((one) => {
    const bar = element("span", { class: "track", "aria-hidden": "true" }, element("span", { class: "share" }));
    // Through the object model: a style attribute would be against the page's own policy.
    bar.firstChild.style.inlineSize = `${(100 * one.confidence).toFixed(1)}%`;
    return element("li", {}, element("span", { class: "name" }, one.label),
      element("span", { class: "figure" }, percent(one.confidence)), bar);
  }));
}

/** The further cars of a photo; the main car is number 1. */
function further(others) {
  return element("div", { class: "further" },
    element("p", { class: "label" }, "Also on this photo"),
    element("ol", { start: "2" }, ...others.map((car) => element("li", {},
      element("details", {},
        element("summary", {}, sentence(car, true), " ",
          car.answer.level !== "unknown"
            && element("span", { class: "figure" }, percent(car.answer.confidence))),
        barList(car.candidates.filter((one, index) => index === 0 || one.confidence >= 0.01)),
      )))));
}
