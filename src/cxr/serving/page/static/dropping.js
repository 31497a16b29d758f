/** Files, and folders of files, that are dropped onto the page. Knows nothing of what becomes of them. */

const NO_IMAGE = /^(\..*|DICOMDIR|Thumbs\.db)$/i;

/** Call add(files) with what is dropped anywhere, and show(whether) while something is held over the page. */
export function listenToDrops(add, show) {
  let depth = 0;
  const hover = (by) => (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    depth = Math.max(0, depth + by);
    show(depth > 0);
  };
  addEventListener("dragenter", hover(1));
  addEventListener("dragleave", hover(-1));
  addEventListener("dragover", hover(0));
  addEventListener("drop", async (event) => {
    event.preventDefault();
    depth = 0;
    show(false);
    add(await filesOf(event.dataTransfer));
  });
}

/** The files in what was dropped, in the order of their paths; what systems put into folders for themselves is left out. */
async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  const found = (await Promise.all(entries.map(readEntry))).flat();
  const order = new Intl.Collator(undefined, { numeric: true });
  return found.sort((one, other) => order.compare(one.path, other.path)).map(({ file }) => file);
}

async function readEntry(entry) {
  if (NO_IMAGE.test(entry.name)) return [];
  if (entry.isDirectory) return (await Promise.all((await readFolder(entry)).map(readEntry))).flat();
  const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
  return [{ path: entry.fullPath, file }];
}

/** A browser gives the entries of a folder in parts, the last of which is empty. */
async function readFolder(entry) {
  const reader = entry.createReader();
  const all = [];
  for (;;) {
    const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (part.length === 0) return all;
    all.push(...part);
  }
}
