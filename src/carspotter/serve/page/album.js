/** The photos on the page, and their way through the server. */

import { Problem } from "./api.js";
import { overweight, trouble } from "./words.js";

const AT_ONCE = 3; // photos on their way: uploads overlap with recognition, and nobody is crowded out

/** One photo and what is known of it. */
export class Shot {
  /** "waiting", "looking", "pausing" (the server is busy), "done" or "failed". */
  state = "waiting";
  /** RESULT of the server, once done. */
  result = null;
  /** Once failed: what went wrong and what to do, as `trouble` gives it. */
  trouble = null;
  /** While pausing: when it is tried again, in milliseconds since 1970. */
  until = 0;

  constructor(file, name) {
    this.file = file;
    this.name = name;
    this.url = URL.createObjectURL(file);
    this.stop = new AbortController();
  }

  get over() {
    return this.state === "done" || this.state === "failed";
  }
}

/**
 * All photos, in the order in which they came.
 *
 * Tells of `added`, `changed` and `removed`, each with the shot as `detail`.
 */
export class Album extends EventTarget {
  shots = [];
  #queue = [];
  #running = 0;
  #pasted = 0;

  /**
   * @param {import("./api.js").Api} api
   * @param {() => Promise<object>} facts what `v1/model` says; the first photo waits for it
   */
  constructor(api, facts) {
    super();
    this.api = api;
    this.facts = facts;
  }

  /** Take photos in; `pasted` ones have no name of their own. */
  add(files, { pasted = false } = {}) {
    this.api.resume();
    const added = files.map((file) => new Shot(file, pasted ? this.#pastedName(file) : file.name));
    this.shots.push(...added);
    for (const shot of added) this.#tell("added", shot);
    this.#enqueue(added);
    return added;
  }

  /** Look at a photo once more. */
  again(shot) {
    this.api.resume();
    Object.assign(shot, { state: "waiting", result: null, trouble: null });
    this.#tell("changed", shot);
    this.#enqueue([shot]);
  }

  /** Take a photo off the page, wherever it is on its way. */
  remove(shot) {
    this.shots = this.shots.filter((one) => one !== shot);
    this.#queue = this.#queue.filter((one) => one !== shot);
    shot.stop.abort();
    URL.revokeObjectURL(shot.url);
    this.#tell("removed", shot);
  }

  clear() {
    for (const shot of [...this.shots]) this.remove(shot);
    this.#pasted = 0;
  }

  #pastedName(file) {
    this.#pasted += 1;
    return `pasted-${this.#pasted}.${file.type.split("/")[1]?.split("+")[0] || "png"}`;
  }

  #enqueue(shots) {
    this.#queue.push(...shots);
    while (this.#running < AT_ONCE && this.#queue.length > 0) this.#work();
  }

  async #work() {
    this.#running += 1;
    for (let shot = this.#queue.shift(); shot; shot = this.#queue.shift()) await this.#look(shot);
    this.#running -= 1;
  }

  async #look(shot) {
    try {
      this.#set(shot, { state: "looking" });
      const { limits } = await this.facts();
      const limit = limits?.max_bytes ?? Infinity;
      if (shot.file.size > limit) {
        this.#set(shot, { state: "failed", trouble: overweight(shot.file.size, limit) });
        return;
      }
      const result = await this.api.identify(shot.file, shot.name, {
        signal: shot.stop.signal,
        onWait: (seconds) => this.#set(shot, {
          state: seconds > 0 ? "pausing" : "looking", until: Date.now() + 1000 * seconds,
        }),
      });
      this.#set(shot, { state: "done", result });
    } catch (error) {
      if (shot.stop.signal.aborted) return;
      const said = error instanceof Problem ? error : new Problem({ title: "The answer cannot be read" });
      this.#set(shot, { state: "failed", trouble: trouble(said) });
    }
  }

  #set(shot, changes) {
    if (shot.stop.signal.aborted) return;
    Object.assign(shot, changes);
    this.#tell("changed", shot);
  }

  #tell(what, shot) {
    this.dispatchEvent(new CustomEvent(what, { detail: shot }));
  }
}
