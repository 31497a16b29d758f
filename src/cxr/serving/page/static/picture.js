/**
 * A file to a picture that a browser can draw.
 *
 * What the browser shows just as the server reads it (JPEG, PNG with 8 bits) is drawn from the file at once; all else,
 * DICOM first of all, is asked for as the server decoded it. Knows nothing of how a picture is looked at.
 */

const PNG = [0x89, 0x50, 0x4e, 0x47];
const JPEG = [0xff, 0xd8, 0xff];
const PNG_BIT_DEPTH = 24;

/** The picture of an item; the server is asked only where the browser cannot know, or is known to be wrong. */
export async function readPicture(item, server) {
  return (item.misread ? null : await readHere(item.file)) ?? (await readThere(item, server));
}

/** Whether a picture has the proportions that the server found; if not, the file was read in another way. */
export function fits(picture, [height, width]) {
  return Math.abs(picture.width / picture.height - width / height) < 0.01;
}

async function readHere(file) {
  try {
    const head = new Uint8Array(await file.slice(0, 32).arrayBuffer());
    const starts = (magic) => magic.every((byte, place) => head[place] === byte);
    const plain = starts(JPEG) || (starts(PNG) && head[PNG_BIT_DEPTH] <= 8);
    return plain ? await createImageBitmap(file) : null;
  } catch {
    return null; // whether it is damaged is for the server to say
  }
}

/** The picture as the server decoded it; where the file is just being sent to be predicted, that goes first. */
async function readThere(item, server) {
  await item.sent;
  const { image } = await server.post("/v1/image", item.file, { signal: item.abort.signal });
  return decode(image);
}

/** A `data:` address to an image that is ready to be drawn. */
export async function decode(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  return image;
}
