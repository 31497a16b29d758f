/**
 * One picture to look at: window and level, zoom, pan, invert, and a map laid over it.
 *
 * Knows nothing of where pictures come from and of what a model says. Nothing that is done here changes the file.
 */

const LONGEST_SIDE = 2048;
const [LEAST_ZOOM, MOST_ZOOM] = [0.5, 16];
const STEP = 40;

/** How a picture is looked at; scale 1 fits it into the viewport, x and y move it from the middle in screen pixels. */
export const plainLook = () => ({ window: 256, level: 128, invert: false, scale: 1, x: 0, y: 0 });

/** The shown grey value of each stored one: the linear function of DICOM PS3.3 C.11.2.1.2.1, for 8 bits. */
export function windowTable(window, level, invert) {
  return Uint8ClampedArray.from({ length: 256 }, (_, stored) => {
    const centre = level - 0.5;
    const width = Math.max(window - 1, 1e-6);
    const share = Math.min(Math.max((stored - centre) / width + 0.5, 0), 1);
    return 255 * (invert ? 1 - share : share);
  });
}

export class Viewer {
  look = plainLook();
  tool = "pan";
  #viewport;
  #film;
  #canvas;
  #overlay;
  #grey = null;
  #shown = null;
  #fileWidth = 1;
  #pointers = new Map();
  #due = false;
  #changed;

  /** viewport: the frame; film: what moves in it, with a canvas and an img; changed(): the look is another. */
  constructor(viewport, film, changed) {
    [this.#viewport, this.#film, this.#changed] = [viewport, film, changed];
    this.#canvas = film.querySelector("canvas");
    this.#overlay = film.querySelector("img");
    this.#listen();
    new ResizeObserver(() => {
      this.#place();
      this.#changed();
    }).observe(viewport);
  }

  /** Show a picture, or nothing; look: a `plainLook` that is kept up to date; fileWidth: pixels of its file across. */
  show(picture, look, fileWidth) {
    this.look = look;
    this.#grey = picture === null ? null : this.#read(picture);
    this.#fileWidth = fileWidth;
    this.#film.hidden = picture === null;
    this.cover(null);
    this.#soon();
  }

  /** Lay a map of the same picture over it; null takes it away. */
  cover(address) {
    this.#overlay.hidden = address === null;
    if (address === null) this.#overlay.removeAttribute("src");
    else this.#overlay.src = address;
  }

  /** How much of the map is seen, from 0 to 1. */
  set opacity(share) {
    this.#overlay.style.opacity = share;
  }

  /** Change parts of the look. */
  set(parts) {
    Object.assign(this.look, parts);
    this.look.window = clamp(Math.round(this.look.window), 1, 512);
    this.look.level = clamp(Math.round(this.look.level), 0, 255);
    this.#soon();
  }

  reset() {
    this.set(plainLook());
  }

  fit() {
    this.set({ scale: 1, x: 0, y: 0 });
  }

  /** One pixel of the file on one of the screen. */
  actual() {
    this.zoom(1 / this.percent);
  }

  /** Make it larger by a factor; what is at (x, y) of the viewport, by default its middle, stays there. */
  zoom(factor, x = this.#viewport.clientWidth / 2, y = this.#viewport.clientHeight / 2) {
    const scale = clamp(this.look.scale * factor, LEAST_ZOOM, MOST_ZOOM);
    const grown = scale / this.look.scale;
    const [fromX, fromY] = [x - this.#viewport.clientWidth / 2, y - this.#viewport.clientHeight / 2];
    this.set({ scale, x: fromX - grown * (fromX - this.look.x), y: fromY - grown * (fromY - this.look.y) });
  }

  move(x, y) {
    this.set({ x: this.look.x + x, y: this.look.y + y });
  }

  /** Right is wider, up is brighter. */
  adjust(right, up) {
    this.set({ window: this.look.window + right, level: this.look.level - up });
  }

  /** Screen pixels per pixel of the file. */
  get percent() {
    return (this.#fitScale() * this.look.scale * this.#canvas.width) / this.#fileWidth;
  }

  /** Do what a key means here; false where it means nothing. */
  press(event) {
    const side = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return false;
    if (side) event.shiftKey ? this.adjust(8 * side[0], 4 * side[1]) : this.move(STEP * side[0], -STEP * side[1]);
    else if (event.key === "+" || event.key === "=") this.zoom(1.25);
    else if (event.key === "-" || event.key === "_") this.zoom(0.8);
    else if (event.key === "0") this.fit();
    else if (event.key === "1") this.actual();
    else if (event.key.toLowerCase() === "i") this.set({ invert: !this.look.invert });
    else if (event.key.toLowerCase() === "r") this.reset();
    else return false;
    return true;
  }

  #read(picture) {
    const shrink = Math.min(1, LONGEST_SIDE / Math.max(picture.width, picture.height));
    this.#canvas.width = Math.max(1, Math.round(picture.width * shrink));
    this.#canvas.height = Math.max(1, Math.round(picture.height * shrink));
    const context = this.#canvas.getContext("2d", { willReadFrequently: true });
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, 0, 0, this.#canvas.width, this.#canvas.height);
    this.#shown = context.getImageData(0, 0, this.#canvas.width, this.#canvas.height);
    return toGrey(this.#shown.data);
  }

  #soon() {
    if (this.#due) return;
    this.#due = true;
    requestAnimationFrame(() => {
      this.#due = false;
      this.#paint();
      this.#place();
      this.#changed();
    });
  }

  #paint() {
    if (this.#grey === null) return;
    const table = windowTable(this.look.window, this.look.level, this.look.invert);
    const pixels = new Uint32Array(this.#shown.data.buffer);
    const packed = Uint32Array.from(table, (grey) => 0xff000000 + grey * 0x10101);
    for (let place = 0; place < pixels.length; place++) pixels[place] = packed[this.#grey[place]];
    this.#canvas.getContext("2d").putImageData(this.#shown, 0, 0);
  }

  #fitScale() {
    const { clientWidth, clientHeight } = this.#viewport;
    return Math.min(clientWidth / this.#canvas.width, clientHeight / this.#canvas.height);
  }

  #place() {
    const { scale, x, y } = this.look;
    this.#film.style.width = `${this.#canvas.width}px`;
    this.#film.style.height = `${this.#canvas.height}px`;
    this.#film.style.transform = `translate(-50%, -50%) translate(${x}px, ${y}px) scale(${this.#fitScale() * scale})`;
    this.#viewport.classList.toggle("whole", scale <= 1 && this.tool === "pan");
  }

  #listen() {
    const on = (name, act) => this.#viewport.addEventListener(name, act.bind(this));
    on("pointerdown", this.#down);
    on("pointermove", this.#drag);
    for (const name of ["pointerup", "pointercancel"]) on(name, (event) => this.#pointers.delete(event.pointerId));
    on("wheel", this.#wheel);
    on("dblclick", () => (this.look.scale === 1 ? this.zoom(2) : this.fit()));
  }

  #down(event) {
    if (this.#grey === null) return;
    this.#viewport.setPointerCapture(event.pointerId);
    this.#pointers.set(event.pointerId, [event.clientX, event.clientY]);
  }

  #drag(event) {
    const before = this.#pointers.get(event.pointerId);
    if (before === undefined) return;
    const now = [event.clientX, event.clientY];
    const others = [...this.#pointers].filter(([id]) => id !== event.pointerId).map(([, point]) => point);
    const [right, down] = [now[0] - before[0], now[1] - before[1]];
    this.#pointers.set(event.pointerId, now);
    if (others.length > 0) this.#pinch(others[0], before, now);
    else if (this.tool === "pan") this.move(right, down);
    else this.adjust(right, -down / 2);
  }

  #pinch(still, before, now) {
    const frame = this.#viewport.getBoundingClientRect();
    const apart = ([x, y]) => Math.max(1, Math.hypot(x - still[0], y - still[1]));
    this.zoom(apart(now) / apart(before), (now[0] + still[0]) / 2 - frame.left, (now[1] + still[1]) / 2 - frame.top);
    this.move((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
  }

  #wheel(event) {
    if (this.#grey === null) return;
    event.preventDefault();
    const frame = this.#viewport.getBoundingClientRect();
    this.zoom(Math.exp(-event.deltaY / 400), event.clientX - frame.left, event.clientY - frame.top);
  }
}

const clamp = (value, least, most) => Math.min(Math.max(value, least), most);

/** Luminance of RGBA bytes (ITU-R BT.601), as the server reads colour. */
function toGrey(data) {
  const grey = new Uint8Array(data.length / 4);
  for (let place = 0; place < grey.length; place++) {
    const [red, green, blue] = [data[4 * place], data[4 * place + 1], data[4 * place + 2]];
    grey[place] = Math.round(0.299 * red + 0.587 * green + 0.114 * blue);
  }
  return grey;
}
