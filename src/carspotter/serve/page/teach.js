/** Teaching from the page: a car's name and photos; the list of what was taught; forgetting. */

import { byId, CROSS, element, icon } from "./dom.js";
import { chooser } from "./intake.js";
import { count, listed, trouble } from "./words.js";

export class Teacher {
  #photos = [];
  #more = null; // the taught car that is given more photos

  /**
   * @param {import("./api.js").Api} api
   * @param {() => object} facts what `v1/model` says
   * @param {() => void} changed told whenever the garage has changed
   */
  constructor(api, facts, changed) {
    Object.assign(this, { api, facts, changed, dialog: byId("teach-dialog") });
    byId("teach-close").addEventListener("click", () => this.dialog.close());
    byId("teach-other").addEventListener("click", () => this.#start());
    byId("teach-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    chooser(byId("teach-choose"), byId("teach-files"), (files) => this.take(files));
  }

  get open() {
    return this.dialog.open;
  }

  /** Open the dialog, with photos already in it. */
  show(photos = []) {
    this.#start();
    this.take(photos);
    this.dialog.showModal();
    byId("teach-name").focus();
    this.#list();
  }

  /** Take photos of the car in. */
  take(files) {
    this.#photos.push(...files);
    this.#showPhotos();
  }

  /** An empty form: for a new car, or for more photos of a taught one. */
  #start(car = null) {
    this.#more = car;
    this.#photos = [];
    byId("teach-form").reset();
    byId("teach-title").textContent = car ? "More photos of a car" : "Teach a car";
    byId("teach-name").readOnly = car !== null;
    byId("teach-name").value = car?.label ?? "";
    byId("teach-parts").hidden = car !== null;
    byId("teach-parts").open = false;
    byId("teach-other").hidden = car === null;
    byId("teach-outcome").replaceChildren();
    this.#showPhotos();
  }

  #showPhotos() {
    const list = byId("teach-photos");
    for (const image of list.querySelectorAll("img")) URL.revokeObjectURL(image.src);
    list.replaceChildren(...this.#photos.map((file) => {
      const image = element("img", { src: URL.createObjectURL(file), alt: "" });
      image.addEventListener("error", () => image.remove());
      return element("li", {}, image, element("span", { class: "name" }, file.name),
        element("button", {
          type: "button", class: "close", "aria-label": `Take ${file.name} out`,
          onclick: () => {
            this.#photos = this.#photos.filter((one) => one !== file);
            this.#showPhotos();
            byId("teach-choose").focus();
          },
        }, icon(CROSS)));
    }));
    byId("teach-choose").textContent = this.#photos.length > 0 ? "Add photos" : "Choose its photos";
  }

  async #send() {
    const outcome = byId("teach-outcome");
    if (this.#photos.length === 0) {
      outcome.replaceChildren(bad("There is no photo yet. Choose some, or drop them here."));
      byId("teach-choose").focus();
      return;
    }
    const send = byId("teach-send");
    // Not `disabled`, which would throw the keyboard out of the button.
    if (send.getAttribute("aria-disabled") === "true") return;
    send.setAttribute("aria-disabled", "true");
    outcome.replaceChildren(element("p", {}, "Looking at the photos…"));
    try {
      const lessons = await this.#taught();
      this.#start();
      outcome.replaceChildren(...told(lessons));
      this.changed();
      await this.#list();
    } catch (error) {
      const { title, advice } = trouble(error);
      outcome.replaceChildren(bad(error.detail || `${title}. ${advice}`));
    } finally {
      send.removeAttribute("aria-disabled");
    }
  }

  /** Send the photos, in as many loads as the server's limits ask for. */
  async #taught() {
    const [name, make, body, year] = ["name", "make", "body", "year"]
      .map((part) => byId(`teach-${part}`).value.trim());
    const lessons = [];
    let add = this.#more !== null;
    for (const photos of loads(this.#photos, this.facts().limits)) {
      try {
        lessons.push(await this.api.teach({ name, make, body, year, add }, photos));
        add = true;
      } catch (error) {
        // No photo of this load can be used; those of the next may.
        if (!error.errors) throw error;
        const failed = error.errors.map((one) => ({ error: one }));
        lessons.push({ label: name, photos: 0, added: [], skipped: [], failed, taken_for: [] });
      }
    }
    return lessons;
  }

  async #list() {
    const list = byId("taught");
    try {
      const cars = await this.api.cars();
      list.replaceChildren(...cars.map((car) => this.#entry(car)));
      if (cars.length === 0) list.replaceChildren(element("li", { class: "help" }, "No car yet."));
    } catch (error) {
      list.replaceChildren(element("li", { class: "bad" }, trouble(error).title));
    }
  }

  #entry(car) {
    const more = element("button", {
      type: "button", class: "quiet", "aria-label": `Add photos of ${car.label}`,
      onclick: () => {
        this.#start(car);
        byId("teach-choose").focus();
      },
    }, "Add photos");
    const forget = element("button", {
      type: "button", class: "quiet", "aria-label": `Forget ${car.label}`,
      onclick: () => {
        if (!forget.classList.contains("sure")) {
          forget.classList.add("sure");
          forget.textContent = "Really forget?";
          forget.setAttribute("aria-label", `Really forget ${car.label}?`);
          return;
        }
        this.#forget(car);
      },
      // A second thought is offered only while the button is at hand.
      onblur: () => {
        forget.classList.remove("sure");
        forget.textContent = "Forget";
        forget.setAttribute("aria-label", `Forget ${car.label}`);
      },
    }, "Forget");
    return element("li", {},
      element("span", { class: "name" }, car.label),
      element("span", { class: "help" }, count(car.photos, "photo")),
      element("span", { class: "actions" }, more, forget));
  }

  async #forget(car) {
    const outcome = byId("teach-outcome");
    try {
      await this.api.forget(car.label);
      outcome.replaceChildren(element("p", {}, `${car.label} is forgotten.`));
      this.changed();
    } catch (error) {
      outcome.replaceChildren(bad(error.detail || trouble(error).title));
    }
    if (this.#more?.label === car.label) this.#start();
    await this.#list();
    byId("teach-name").focus();
  }
}

function bad(text) {
  return element("p", { class: "bad" }, text);
}

/** Photos in groups, none of more photos or bytes than a server takes at once. */
function loads(photos, { max_photos: most = Infinity, max_bytes: bytes = Infinity } = {}) {
  const groups = [];
  let room = 0;
  for (const photo of photos) {
    const last = groups.at(-1);
    if (!last || last.length >= most || photo.size > room) {
      groups.push([photo]);
      room = bytes - photo.size;
    } else {
      last.push(photo);
      room -= photo.size;
    }
  }
  return groups;
}

/** What came of teaching, in words. */
function told(lessons) {
  const { label, photos } = lessons.reduce((one, other) => (other.photos >= one.photos ? other : one));
  const [added, skipped, failed, taken] = ["added", "skipped", "failed", "taken_for"]
    .map((kind) => lessons.flatMap((lesson) => lesson[kind]));
  const lines = [photos > 0
    ? element("p", { class: "good" },
      `${label} is known from ${count(photos, "photo")} now, ${added.length} of them new.`)
    : bad(`${label} was not taught.`)];
  if (skipped.length > 0) lines.push(element("p", {}, `Known already: ${listed(skipped)}.`));
  lines.push(...failed.map(({ error }) => bad(error.message)));
  lines.push(...taken.map((one) => element("p", {},
    `${one.photo} looks like the ${one.label} to the model. Is it another car? It was taken all the same.`)));
  return lines;
}
