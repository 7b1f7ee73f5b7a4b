/** Tells screen readers what happened: one answer as it is, many at once as their number. */

import { count } from "./words.js";

const PAUSE = 600; // milliseconds in which answers are gathered
const FEW = 3;

export class Announcer {
  #answers = [];
  #timer = 0;

  /** @param {HTMLElement} region a live region */
  constructor(region) {
    this.region = region;
  }

  /** Say this, now. */
  say(text) {
    this.region.textContent = text;
  }

  /** Say what became of a photo, soon. */
  answer(name, text) {
    this.#answers.push(`${name}: ${text}`);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const many = this.#answers.length > FEW;
      this.say(many ? `${count(this.#answers.length, "photo")} looked at.` : this.#answers.join(". "));
      this.#answers = [];
    }, PAUSE);
  }
}
