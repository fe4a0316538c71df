// Files before they are sent: whether they can be read, and whether the service takes so much.

import { getLimits } from "./api.js";

const MEBIBYTE = 2 ** 20;
const ROOM_FOR_FIELDS = 4096;

let limits = null;

/** Why a file cannot be sent, or "". */
export async function fileFault(file) {
  const most = await mostBytes();
  if (file.size > most) return `The file has ${mebibytes(file.size)}; at most ${mebibytes(most)} can be sent.`;
  const isReadable = await file.slice(0, 1).arrayBuffer().then(({ byteLength }) => byteLength > 0, () => false);
  return isReadable ? "" : "The file cannot be read: it is empty or a folder, has changed, or is gone. Choose it again.";
}

/** Why files cannot be sent together, or "". */
export async function sumFault(files) {
  const most = await mostBytes();
  const sum = files.reduce((bytes, file) => bytes + file.size, 0);
  if (sum <= most) return "";
  return `Portrait and speech have ${mebibytes(sum)} together; at most ${mebibytes(most)} can be sent.`;
}

async function mostBytes() {
  try {
    limits ??= await getLimits();
  } catch {
    return Infinity; // the service says it when the file comes
  }
  return limits.max_upload_bytes - ROOM_FOR_FIELDS;
}

/** Rounded up, so that what is too much looks like it. */
function mebibytes(bytes) {
  return `${Math.ceil((10 * bytes) / MEBIBYTE) / 10} MiB`;
}
