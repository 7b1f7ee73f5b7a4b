/** How photos come in: chosen, photographed, dropped anywhere, pasted. */

import { byId } from "./dom.js";

const ENDINGS = /\.(jpe?g|jpe|jfif|png|webp|bmp|gif|tiff?|avif|heic|heif|hif|jp[2fx]|j2[kc]|jpc|p[bgpn]m)$/i;

const ONLY_FILES = "That was an address, not a file. This page fetches nothing from elsewhere: save the "
  + "picture and drop the file, or copy the picture itself and paste it.";

/**
 * Watch the page for photos.
 * @param {(files: File[], how: {pasted?: boolean}) => void} take
 * @param {(text: string) => void} say what to tell where something else than a photo came
 */
export function intake(take, say) {
  const given = (files, how = {}) => {
    say("");
    if (files.length > 0) take(files, how);
  };
  chooser(byId("choose"), byId("files"), given);
  chooser(byId("photograph"), byId("camera"), given);
  dropping(given, say);
  if (/^(Mac|iP)/.test(navigator.platform)) byId("control").textContent = "⌘";
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    const typing = event.target.closest?.("input, textarea");
    if (typing && files.length === 0) return;
    event.preventDefault();
    if (files.length > 0) given(files, { pasted: true });
    else say("There is no picture on the clipboard. Copy the picture itself, then paste it.");
  });
}

/** A button that opens a file input, whose files are taken once. */
export function chooser(button, input, take) {
  button.addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = ""; // so that the same file can be chosen again
    take(files);
  });
}

function dropping(given, say) {
  let depth = 0; // of elements entered: a drag leaves one when it enters the next
  const show = (inside) => {
    depth = inside;
    byId("curtain").hidden = depth === 0;
    document.body.toggleAttribute("data-dragging", depth > 0);
  };
  document.addEventListener("dragenter", (event) => {
    if (event.dataTransfer.types.includes("Files")) show(depth + 1);
  });
  document.addEventListener("dragleave", () => show(Math.max(0, depth - 1)));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", async (event) => {
    event.preventDefault(); // else the browser leaves the page for what was dropped
    show(0);
    const files = await dropped(event.dataTransfer);
    if (files.length > 0) given(files);
    else say(event.dataTransfer.types.includes("Files") ? "There was no photo in it." : ONLY_FILES);
  });
}

/** The files of a drop, with those in folders that look like photos. */
async function dropped(transfer) {
  // Both lists before the first wait: the browser empties the transfer after this turn.
  const files = [...transfer.files];
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const folders = entries.filter((entry) => entry.isDirectory);
  if (folders.length === 0) return files;
  const loose = await Promise.all(entries.filter((entry) => entry.isFile).map(fileOf));
  const inside = await Promise.all(folders.map(inFolder));
  return [...loose, ...inside].flat();
}

async function inFolder(folder) {
  const reader = folder.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve) => { reader.readEntries(resolve, () => resolve([])); });
    if (some.length === 0) break; // it gives them in portions
    found.push(...some);
  }
  const shown = found
    .filter((entry) => !entry.name.startsWith(".") && (entry.isDirectory || ENDINGS.test(entry.name)))
    .sort((one, other) => one.name.localeCompare(other.name));
  const files = await Promise.all(shown.map((entry) => (entry.isDirectory ? inFolder(entry) : fileOf(entry))));
  return files.flat();
}

function fileOf(entry) {
  return new Promise((resolve) => { entry.file(resolve, () => resolve([])); });
}
