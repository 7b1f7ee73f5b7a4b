/** What the page says: answers, confidences, sizes and trouble, in words. */

const LIST = new Intl.ListFormat("en", { type: "conjunction" });
const NUMBER = new Intl.NumberFormat("en");

/** "a" or "an", as the first letter of a name asks for it. */
export function article(name) {
  return /^[aeiou]/i.test(name) ? "an" : "a";
}

/**
 * An answer in three pieces: what leads to the name, the name, and what is not clear.
 * @param {{answer: object, box: number[]|null}} found a result, or a further car of one
 * @param {boolean} looked whether cars were looked for on the photo, so that no box means no car
 * @returns {{lead: string, name: string, rest: string}} any of which may be empty
 */
export function pieces({ answer: { level, label }, box }, looked) {
  if (looked && !box) return { lead: "", name: "No car found", rest: "try a photo on which it is larger" };
  if (level === "exact") return { lead: `It is ${article(label)}`, name: label, rest: "" };
  const lead = article(label) === "an" ? "An" : "A";
  if (level === "model") return { lead, name: label, rest: "which body and year is not clear" };
  if (level === "make") return { lead, name: label, rest: "which model is not clear" };
  return { lead: "", name: "Not a car I know", rest: "" };
}

/** An answer as one sentence, for the ear. */
export function sentence(found, looked) {
  const { lead, name, rest } = pieces(found, looked);
  return (lead ? `${lead} ${name}` : name) + (rest ? `; ${rest}` : "");
}

/** A confidence, 0 to 1, in figures: none is certain, however it rounds. */
export function percent(confidence) {
  if (confidence > 0.99) return "over 99 %";
  if (confidence < 0.01) return "under 1 %";
  return `${(100 * confidence).toFixed(0)} %`;
}

/** A confidence, 0 to 1, in words. */
export function sureness(confidence) {
  if (confidence > 0.99) return "Almost certain";
  if (confidence >= 0.9) return "Very likely";
  if (confidence >= 0.7) return "Likely";
  if (confidence >= 0.5) return "More likely than not";
  return "Unsure";
}

/** A number of things: "1 photo", "2,000 photos". */
export function count(number, one, many = `${one}s`) {
  return `${NUMBER.format(number)} ${number === 1 ? one : many}`;
}

/** Several names in a row: "a, b, and c". */
export function listed(names) {
  return LIST.format(names);
}

/** A number of bytes, as people say it. */
export function size(bytes) {
  if (bytes < 1e6) return `${Math.max(1, Math.round(bytes / 1e3))} kB`;
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}

const TROUBLE = {
  empty: ["The file is empty", "Choose it again, or another copy of it."],
  not_an_image: [
    "This is no picture that can be read",
    "JPEG, PNG, WebP, HEIC, AVIF, GIF, BMP and TIFF can.",
  ],
  broken: ["The picture is damaged", "Take another copy of it, or save it anew where it came from."],
  unreadable: ["The picture cannot be read", "Take another copy of it."],
  too_large: ["The picture is too large", "Make it smaller, then give it again."],
  too_small: ["The picture is too small", "No car can be told on it. Is there a larger copy?"],
  unreachable: [
    "The server does not answer",
    "Check that it still runs and that you are connected, then try again.",
  ],
  no_key: ["The server asks for a key", "Try again, and enter the key that its operator has."],
  deadline: ["The server took too long", "Try again when it has less to do, or with a smaller picture."],
  busy: ["The server stays busy", "Wait a little, then try again."],
};

/** Codes of trouble that lies in the photo: to try the same again is of no use. */
const OF_THE_PHOTO = new Set(["empty", "not_an_image", "broken", "unreadable", "too_large", "too_small"]);

/**
 * What went wrong, and what to do.
 * @param {import("./api.js").Problem} problem
 * @returns {{title: string, advice: string, again: boolean}} `again`: it may help to try once more
 */
export function trouble(problem) {
  const { code, status = 0, title = "", detail = "", instance = "" } = problem;
  const again = !OF_THE_PHOTO.has(code) && ![400, 404, 413, 415, 422].includes(status);
  const known = TROUBLE[code];
  if (known) return { title: known[0], advice: known[1], again };
  if (status >= 500) {
    const number = instance && ` the number ${instance}`;
    return { title: "The server failed", advice: `Try again; if it stays so, tell its operator${number}.`, again };
  }
  return { title: title || "This did not work", advice: detail || "Try again.", again };
}

/** Why a file is not sent at all. */
export function overweight(bytes, limit) {
  return {
    title: "The file is too large",
    advice: `It has ${size(bytes)}, and this server takes up to ${size(limit)}. Make it smaller, then give it again.`,
    again: false,
  };
}
