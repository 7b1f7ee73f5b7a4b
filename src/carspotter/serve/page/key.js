/** Asks the reader for the server's key. */

import { byId } from "./dom.js";

/**
 * @param {boolean} wrong whether a key was given and refused
 * @returns {Promise<string|null>} the key; null: the reader has none
 */
export function askKey(wrong) {
  const [dialog, form, field] = [byId("key-dialog"), byId("key-form"), byId("key")];
  byId("key-wrong").hidden = !wrong;
  field.value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    let key = null;
    byId("key-cancel").onclick = () => dialog.close();
    form.onsubmit = (event) => {
      event.preventDefault();
      key = field.value;
      dialog.close();
    };
    dialog.onclose = () => {
      field.value = "";
      resolve(key);
    };
  });
}
