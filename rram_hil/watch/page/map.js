// The map of a run: what cells conduct now, their targets and the error, with one view and one
// chosen cell for all three.

import { Chart } from "./chart.js";
import { DIVERGING, VIRIDIS, painter, shades } from "./colours.js";
import { count, counted, duration, el, quantity, refill, say } from "./words.js";

const TALLEST = 460;
const REST_MS = 40;
const EVENTS_LISTED = 8;

/** One of the three pictures. */
class Picture {
  constructor(title, colours) {
    this.colours = colours;
    this.canvas = el("canvas", { tabindex: 0, role: "img", "aria-label": title });
    this.low = el("small");
    this.high = el("small");
    this.bar = el("canvas", { width: 256, height: 1, "aria-hidden": "true" });
    const bar = new ImageData(256, 1);
    new Uint32Array(bar.data.buffer).set(shades(colours));
    this.bar.getContext("2d").putImageData(bar, 0, 0);
    this.figure = el(
      "figure", {},
      el("figcaption", {}, el("span", {}, title)),
      this.canvas,
      el("div", { className: "scale" }, this.low, this.bar, this.high),
    );
    this.image = null;
    this.cells = document.createElement("canvas");
    this.scale = [0, 0];
  }

  /** Paint all of `values`, or those alone whose places are in `at`. */
  paint(values, rows, columns, low, high, at) {
    const same = this.scale[0] === low && this.scale[1] === high;
    const fits = this.image && this.image.width === columns && this.image.height === rows;
    if (!fits) {
      this.image = new ImageData(columns, rows);
      this.cells.width = columns;
      this.cells.height = rows;
    }
    const pixels = new Uint32Array(this.image.data.buffer);
    const pixelOf = painter(this.colours, low, high);
    if (at && fits && same) for (const k of at) pixels[k] = pixelOf(values[k]);
    else for (let k = 0; k < values.length; k++) pixels[k] = pixelOf(values[k]);
    this.cells.getContext("2d").putImageData(this.image, 0, 0);
    this.scale = [low, high];
    say(this.low, quantity(low, "S"));
    say(this.high, quantity(high, "S"));
  }

  /** Draw the part of the cells that is in view. */
  draw(view, part, cell) {
    const { canvas } = this;
    const width = canvas.clientWidth;
    if (!width || !this.image) return;
    const height = Math.max(60, Math.min(TALLEST, (width * view.rows) / view.columns));
    const ratio = window.devicePixelRatio || 1;
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const context = canvas.getContext("2d");
    const [x, y] = [canvas.width / view.columns, canvas.height / view.rows];
    context.imageSmoothingEnabled = x * part.block < 1;
    context.drawImage(
      this.cells,
      (part.column0 - view.column0) * x,
      (part.row0 - view.row0) * y,
      this.cells.width * part.block * x,
      this.cells.height * part.block * y,
    );
    if (cell) {
      const side = [Math.max(x, 5 * ratio), Math.max(y, 5 * ratio)];
      const at = [(cell.column + 0.5 - view.column0) * x - side[0] / 2, (cell.row + 0.5 - view.row0) * y - side[1] / 2];
      context.lineWidth = 3 * ratio;
      context.strokeStyle = "#ffffff";
      context.strokeRect(at[0], at[1], side[0], side[1]);
      context.lineWidth = 1.5 * ratio;
      context.strokeStyle = "#000000";
      context.strokeRect(at[0], at[1], side[0], side[1]);
    }
  }
}

export class MapView {
  constructor(key) {
    this.key = key;
    this.info = null;
    this.tile = 0;
    this.view = null;
    this.cell = null;
    this.parts = { now: null, target: null };
    this.isAsking = false;
    this.isDue = false;
    this.asked = 0;
    this.now = new Picture("Now", VIRIDIS);
    this.target = new Picture("Target", VIRIDIS);
    this.error = new Picture("Error: now \u2212 target", DIVERGING);
    this.pictures = [this.target, this.now, this.error];
    this.tiles = el("select", { "aria-label": "Tile" });
    this.tiles.addEventListener("change", () => this.choose(Number(this.tiles.value)));
    const tool = (text, title, act) => {
      const button = el("button", { type: "button", title }, text);
      button.addEventListener("click", act);
      return button;
    };
    this.known = el("small");
    this.readout = el("div", { className: "readout" }, el("small", {}, "Point at a cell, or move with the arrow keys, for its value and history."));
    this.line = el("p");
    this.facts = el("p", { className: "soft" });
    this.list = el("ol");
    this.plot = el("div", { className: "chart" });
    this.history = el("div", { className: "history" }, this.plot, this.list);
    this.chart = new Chart(this.plot, "S", ["blue"], true);
    const mark = (name, text) => el("small", {}, el("span", { className: `swatch ${name}` }), text);
    this.element = el(
      "section", {},
      el(
        "div", { className: "tools" },
        el("h3", {}, "Conductance"), this.known, this.tiles,
        tool("+", "Zoom in", () => this.zoom(0.5)),
        tool("\u2212", "Zoom out", () => this.zoom(2)),
        tool("whole", "Show the whole tile", () => this.whole()),
      ),
      (this.grid = el("div", { className: "maps" }, ...this.pictures.map((p) => p.figure), this.readout)),
      el("div", { className: "marks" }, mark("unknown", "not read, no target"), mark("unreadable", "could not be read"), mark("over", "over range")),
    );
    for (const picture of this.pictures) this.listen(picture.canvas);
    new ResizeObserver(() => this.draw()).observe(this.grid);
  }

  listen(canvas) {
    canvas.addEventListener("pointermove", (event) => this.point(canvas, event));
    canvas.addEventListener("pointerdown", (event) => {
      this.point(canvas, event);
      this.drag = event.pointerType === "mouse" ? { x: event.clientX, y: event.clientY, ...this.view } : null;
    });
    window.addEventListener("pointerup", () => (this.drag = null));
    canvas.addEventListener("dblclick", () => this.zoom(0.5));
    canvas.addEventListener(
      "wheel",
      (event) => {
        // Else a page that is scrolled would stop at every map.
        if (!event.ctrlKey && document.activeElement !== canvas) return;
        event.preventDefault();
        this.zoom(event.deltaY > 0 ? 1.25 : 0.8);
      },
      { passive: false },
    );
    canvas.addEventListener("keydown", (event) => {
      const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
      const zooms = { "+": 0.5, "-": 2 };
      if (moves[event.key]) this.step(...moves[event.key]);
      else if (zooms[event.key]) this.zoom(zooms[event.key]);
      else if (event.key === "0") this.whole();
      else return;
      event.preventDefault();
    });
  }

  /** What the server says of the map; asks for what changed. */
  update(info) {
    const before = this.info;
    this.info = info;
    this.element.hidden = !info;
    if (!info) return;
    if (!before || before.tiles !== info.tiles || before.rows !== info.rows || before.columns !== info.columns) {
      this.tiles.replaceChildren(...Array.from({ length: info.tiles }, (_, k) => el("option", { value: k }, `tile ${k}`)));
      this.tiles.hidden = info.tiles < 2;
      this.parts = { now: null, target: null };
      this.tile = 0;
      this.view = this.all();
      this.cell = null;
    }
    const total = info.tiles * info.rows * info.columns;
    say(this.known, `${count(info.known)} of ${counted(total, "cell")} read`);
    const aims = info.target_version !== null;
    this.target.figure.hidden = this.error.figure.hidden = !aims;
    if (!before || before.version !== info.version) this.ask();
    else if (before.top_s !== info.top_s || before.error_s !== info.error_s) this.paint();
  }

  all() {
    return { row0: 0, column0: 0, rows: this.info.rows, columns: this.info.columns };
  }

  choose(tile) {
    this.tile = tile;
    this.cell = null;
    this.parts = { now: null, target: null };
    this.ask();
  }

  whole() {
    if (this.info) this.look(this.all());
  }

  /** Show `factor` times as many cells, about the chosen one or the middle. */
  zoom(factor) {
    if (!this.info) return;
    const { view, info } = this;
    const rows = Math.min(Math.max(view.rows * factor, Math.min(8, info.rows)), info.rows);
    const columns = Math.min(Math.max(view.columns * factor, Math.min(8, info.columns)), info.columns);
    const middle = this.cell ?? { row: view.row0 + view.rows / 2, column: view.column0 + view.columns / 2 };
    this.look({ row0: middle.row + 0.5 - rows / 2, column0: middle.column + 0.5 - columns / 2, rows, columns });
  }

  look(view) {
    view.row0 = Math.min(Math.max(view.row0, 0), this.info.rows - view.rows);
    view.column0 = Math.min(Math.max(view.column0, 0), this.info.columns - view.columns);
    this.view = view;
    this.draw();
    if ((this.parts.now?.block ?? 1) > 1) {
      clearTimeout(this.later);
      this.later = setTimeout(() => this.ask(), 150);
    }
  }

  /** The rectangle to ask for: what is in view where the whole tile comes as means, else all. */
  wanted() {
    const { info, view } = this;
    if (Math.max(info.rows, info.columns) <= 1024) return { row0: 0, column0: 0, row1: info.rows, column1: info.columns };
    return {
      row0: Math.floor(view.row0),
      column0: Math.floor(view.column0),
      row1: Math.min(Math.ceil(view.row0 + view.rows), info.rows),
      column1: Math.min(Math.ceil(view.column0 + view.columns), info.columns),
    };
  }

  /** Fetch what changed; one request at a time, and once more where something changed meanwhile. */
  async ask() {
    this.isDue = true;
    if (this.isAsking) return;
    this.isAsking = true;
    try {
      while (this.isDue) {
        this.isDue = false;
        const { info, tile } = this;
        const changed = await this.fetch("now", tile);
        const aims = info.target_version !== null;
        if (aims && !(this.parts.target?.version >= info.target_version && this.same(this.parts.target))) {
          await this.fetch("target", tile);
        }
        this.paint(changed);
      }
    } catch {
      // The connection is lost; the next event asks again.
    } finally {
      this.isAsking = false;
    }
  }

  same(part) {
    const wanted = this.wanted();
    return part && part.tile === this.tile && part.row0 === wanted.row0 && part.column0 === wanted.column0 &&
      part.rows === wanted.row1 - wanted.row0 && part.columns === wanted.column1 - wanted.column0;
  }

  /** One map; returns the places that changed, where those alone came. */
  async fetch(what, tile) {
    const held = this.parts[what];
    const since = what === "now" && this.same(held) ? held.version : -1;
    const answer = await fetch(`map/${this.key}?${new URLSearchParams({ what, tile, since, ...this.wanted() })}`);
    if (!answer.ok) throw new Error(answer.statusText);
    const about = JSON.parse(answer.headers.get("X-Map"));
    const body = await answer.arrayBuffer();
    if (about.changed === null) {
      this.parts[what] = { ...about, values: new Float32Array(body) };
      return null;
    }
    const at = new Uint32Array(body, 0, about.changed);
    const values = new Float32Array(body, 4 * about.changed);
    at.forEach((place, k) => (held.values[place] = values[k]));
    held.version = about.version;
    return at;
  }

  paint(at = null) {
    const { now, target } = this.parts;
    if (!now || !this.info) return;
    const [rows, columns] = [Math.ceil(now.rows / now.block), Math.ceil(now.columns / now.block)];
    const { top_s: top, error_s: most } = this.info;
    this.now.paint(now.values, rows, columns, 0, top, at);
    if (target && target.values.length === now.values.length) {
      const fresh = target !== this.painted;
      if (fresh || !this.errors || this.errors.length !== now.values.length) this.errors = new Float32Array(now.values.length);
      const { errors } = this;
      const put = (k) => (errors[k] = Number.isNaN(target.values[k]) ? NaN : Number.isFinite(now.values[k]) ? now.values[k] - target.values[k] : now.values[k]);
      if (at && !fresh) at.forEach(put);
      else for (let k = 0; k < errors.length; k++) put(k);
      if (fresh || this.target.scale[1] !== top) this.target.paint(target.values, rows, columns, 0, top);
      this.error.paint(errors, rows, columns, -most, most, fresh ? null : at);
      this.painted = target;
    }
    this.draw();
    if (this.cell) this.tell();
  }

  draw() {
    if (!this.parts.now || !this.view) return;
    for (const picture of this.pictures) if (!picture.figure.hidden) picture.draw(this.view, this.parts.now, this.cell);
    this.element.dataset.drawn = this.parts.now.version;
  }

  point(canvas, event) {
    if (!this.view) return;
    const box = canvas.getBoundingClientRect();
    const { drag, view } = this;
    if (drag && event.buttons === 1 && (view.rows < this.info.rows || view.columns < this.info.columns)) {
      const row0 = drag.row0 - ((event.clientY - drag.y) / box.height) * view.rows;
      const column0 = drag.column0 - ((event.clientX - drag.x) / box.width) * view.columns;
      this.look({ ...view, row0, column0 });
      return;
    }
    const row = Math.floor(view.row0 + ((event.clientY - box.top) / box.height) * view.rows);
    const column = Math.floor(view.column0 + ((event.clientX - box.left) / box.width) * view.columns);
    if (row >= 0 && column >= 0 && row < this.info.rows && column < this.info.columns) this.select(row, column);
  }

  step(rows, columns) {
    if (!this.info) return;
    const { row, column } = this.cell ?? { row: Math.floor(this.view.row0), column: Math.floor(this.view.column0) };
    this.select(
      Math.min(Math.max(row + rows, 0), this.info.rows - 1),
      Math.min(Math.max(column + columns, 0), this.info.columns - 1),
    );
  }

  select(row, column) {
    if (this.cell?.row === row && this.cell?.column === column) return;
    this.cell = { row, column };
    this.tell();
    this.draw();
    clearTimeout(this.rest);
    this.rest = setTimeout(() => this.remember(), REST_MS);
  }

  /** The value of a part at the chosen cell; undefined where the part has means of several. */
  value(part) {
    if (!part || part.block > 1) return undefined;
    const [row, column] = [this.cell.row - part.row0, this.cell.column - part.column0];
    if (row < 0 || column < 0 || row >= part.rows || column >= part.columns) return undefined;
    return part.values[row * part.columns + column];
  }

  tell() {
    const { row, column } = this.cell;
    const where = `${this.info.tiles > 1 ? `tile ${this.tile}, ` : ""}row ${row}, column ${column}`;
    // Of a map that came as means over several cells, the history knows the cell's own value.
    const own = this.told?.row === row && this.told.column === column ? this.told : {};
    const now = this.value(this.parts.now) ?? own.now;
    const target = this.value(this.parts.target) ?? own.target;
    const words = [where];
    if (now !== undefined) words.push(`now ${Number.isNaN(now) ? "not read" : quantity(now, "S", 4)}`);
    if (target !== undefined && !Number.isNaN(target)) {
      words.push(`target ${quantity(target, "S", 4)}`);
      if (Number.isFinite(now)) words.push(`error ${quantity(now - target, "S")}`);
    }
    if (this.line.parentNode !== this.readout) this.readout.replaceChildren(this.line, this.facts, this.history);
    refill(this.line, el("strong", {}, words.join(" \u00b7 ")));
    for (const picture of this.pictures) picture.canvas.title = words.join(", ");
  }

  /** Fetch and show the history of the chosen cell. */
  async remember() {
    const { row, column } = this.cell;
    const asked = ++this.asked;
    let told;
    try {
      const answer = await fetch(`cell/${this.key}?${new URLSearchParams({ tile: this.tile, row, column })}`);
      told = answer.ok ? await answer.json() : null;
    } catch {
      told = null;
    }
    if (!told || asked !== this.asked) return;
    const special = { "over range": Infinity, "could not be read": -Infinity };
    this.told = { row, column, now: special[told.now_s] ?? told.now_s ?? NaN, target: told.target_s ?? NaN };
    this.tell();
    const more = told.dropped ? "; earlier ones are in the run file alone" : "";
    say(this.facts, `${counted(told.pulses, "pulse")} in this run, ${counted(told.operations, "operation")}${more}`);
    const shown = told.labels.map((label, k) => k).slice(-EVENTS_LISTED).reverse();
    refill(
      this.list,
      ...shown.map((k) => {
        const value = told.conductance_s[k] === null ? "" : quantity(told.conductance_s[k], "S", 4);
        const pulses = told.event_pulses[k] ? ` \u00b7 ${counted(told.event_pulses[k], "pulse")}` : "";
        return el("li", {}, el("span", {}, `${told.labels[k]}${pulses}`), el("span", {}, `${value} at ${duration(told.time_s[k])}`));
      }),
    );
    const known = told.conductance_s.map((g, k) => k).filter((k) => told.conductance_s[k] !== null && told.time_s[k] !== null);
    this.plot.hidden = known.length < 2;
    if (known.length > 1) this.chart.show([known.map((k) => told.time_s[k]), known.map((k) => told.conductance_s[k])]);
    this.readout.dataset.cell = `${row},${column}`;
  }
}
