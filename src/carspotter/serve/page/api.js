/** Talks to the server: addresses, the key, problem documents, and waiting where it is busy. */

/** Something that the server refused, or could not do. */
export class Problem extends Error {
  /**
   * @param {{status?: number, code?: string, title?: string, detail?: string, instance?: string,
   *   errors?: object[]}} given as a problem document has it; a status of 0: there was no answer
   */
  constructor({ status = 0, code = "", title = "", detail = "", instance = "", errors = null }) {
    super(detail || title || code);
    Object.assign(this, { status, code, title, detail, instance, errors });
  }
}

const PATIENCE = 12; // tries, before a busy server is given up
const LONGEST_WAIT = 60; // seconds, whatever Retry-After says

export class Api {
  #key = null;
  #asking = null;
  #refused = false;
  #pausedUntil = 0;
  #askKey;

  /** @param {(wrong: boolean) => Promise<string|null>} askKey asks the reader; null: they won't */
  constructor(askKey) {
    this.#askKey = askKey;
  }

  /** What the server knows and allows. */
  async model(options) {
    return (await this.#call("v1/model", options)).json();
  }

  /** The RESULT of one photo. */
  async identify(file, name, options) {
    const answer = await this.#call("v1/identify?top=5&crop=auto", {
      ...options, method: "POST", body: parts([["photo", file, name]]),
    });
    const { results: [result] } = await answer.json();
    if (result.error) throw new Problem({ ...result.error, detail: result.error.message });
    return result;
  }

  /** One photo with its heat map, as a picture. */
  async explain(file, name, options) {
    const answer = await this.#call("v1/explain", {
      ...options, method: "POST", body: parts([["photo", file, name]]),
    });
    return answer.blob();
  }

  /** The cars that were taught. */
  async cars() {
    return (await (await this.#call("v1/cars")).json()).cars;
  }

  /**
   * Teach a car.
   * @param {{name: string, make: string, body: string, year: string, add: boolean}} car
   * @param {File[]} photos
   */
  async teach(car, photos) {
    const fields = ["name", "make", "body", "year"]
      .filter((key) => car[key])
      .map((key) => [key, car[key]]);
    const body = parts([
      ...fields, ["add", String(car.add)], ...photos.map((photo) => ["photo", photo, photo.name]),
    ]);
    return (await this.#call("v1/cars", { method: "POST", body, onWait: () => {} })).json();
  }

  /** Forget a car that was taught. */
  async forget(label) {
    await this.#call(`v1/cars/${encodeURIComponent(label)}`, { method: "DELETE" });
  }

  /** Ask for the key anew where the reader did not give it before. */
  resume() {
    this.#refused = false;
  }

  /**
   * Send a request, again where the server asks for a key or for patience.
   * @param {string} path below the page's own address
   * @param {{method?: string, body?: BodyInit, signal?: AbortSignal,
   *   onWait?: (seconds: number) => void}} options `onWait` is told how long each wait is, and 0
   *   when it is over; without it a busy server is a problem at once
   */
  async #call(path, { onWait, signal, ...request } = {}) {
    for (let tries = 1; ; tries += 1) {
      await this.#unpaused(signal, onWait);
      const key = this.#key;
      const answer = await reached(path, { ...request, ...sealed(key), signal });
      if (answer.ok) return answer;
      if (answer.status === 401) {
        await answer.body?.cancel();
        await this.#newKey(key);
        continue;
      }
      const said = await problem(answer);
      const busy = answer.status === 503 || answer.status === 429;
      // What took too long once takes as long again, and may have been done all the same.
      if (!busy || !onWait || said.code === "deadline") throw said;
      if (tries >= PATIENCE) throw new Problem({ status: answer.status, code: "busy" });
      const seconds = patience(answer.headers.get("Retry-After"), tries);
      // All wait, not this one alone: the others would be turned away as well.
      this.#pausedUntil = Math.max(this.#pausedUntil, Date.now() + 1000 * seconds);
    }
  }

  async #unpaused(signal, onWait) {
    if (this.#pausedUntil <= Date.now()) return;
    while (this.#pausedUntil > Date.now()) {
      const left = this.#pausedUntil - Date.now();
      onWait?.(left / 1000);
      await sleep(left, signal);
    }
    onWait?.(0);
  }

  async #newKey(used) {
    if (this.#key !== used) return; // another request brought one in the meantime
    if (this.#refused) throw new Problem({ status: 401, code: "no_key" });
    this.#asking ??= this.#askKey(used !== null).finally(() => { this.#asking = null; });
    const key = await this.#asking;
    this.#refused = key === null;
    if (key === null) throw new Problem({ status: 401, code: "no_key" });
    this.#key = key;
  }
}

function sealed(key) {
  return key === null ? {} : { headers: { Authorization: `Bearer ${key}` } };
}

function parts(fields) {
  const form = new FormData();
  for (const field of fields) form.append(...field);
  return form;
}

async function reached(path, request) {
  try {
    return await fetch(path, { ...request, cache: "no-store", credentials: "omit", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ code: "unreachable" });
  }
}

/** The problem that an answer tells of, whether it is a problem document or anything else. */
async function problem(answer) {
  let said = {};
  try {
    said = await answer.json();
  } catch {
    // A proxy in between answers with a page of its own.
  }
  return new Problem({ title: answer.statusText, ...said, status: answer.status });
}

/** Seconds to wait: what Retry-After says (seconds or a date), or longer from try to try. */
function patience(said, tries) {
  const asked = /^\d+$/.test(said ?? "") ? Number(said) : (Date.parse(said) - Date.now()) / 1000;
  const seconds = Number.isFinite(asked) ? asked : 2 ** (tries - 1);
  return Math.ceil(Math.min(Math.max(seconds, 1), LONGEST_WAIT));
}

function sleep(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => { clearTimeout(timer); reject(signal.reason); };
    const timer = setTimeout(() => { signal?.removeEventListener("abort", stop); resolve(); }, milliseconds);
    if (signal?.aborted) stop();
    signal?.addEventListener("abort", stop, { once: true });
  });
}
