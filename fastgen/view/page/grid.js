// A list of any length: only what is in sight has elements. Knows no rows; `card` makes the element of an item.
"use strict";

const MOST_PX = 12_000_000; // browsers place nothing reliably beyond some more
const MARGIN = 20;
const AHEAD = 1; // lines above and below what is in sight
const SETTLED_MS = 70; // images are loaded once scrolling is this slow

/** Whether two items look alike: the same row, or groups of the same rows. A row that changed is another object. */
function isSame(a, b) {
  return a === b || Boolean(a?.rows && b?.rows && a.rows.every((row, k) => row === b.rows[k]));
}

fastgen.Grid = class {
  /** Args: list: the element that scrolls; canvas: the one inside it. */
  constructor(list, canvas) {
    this.list = list;
    this.canvas = canvas;
    this.items = [];
    this.focus = -1;
    this.shown = new Map();
    list.addEventListener("scroll", () => this.later());
    new ResizeObserver(() => this.layout()).observe(list);
  }

  /** Show other items. `card(item, index)`: its element, with `load()` for its images. `keep`: stay where it is. */
  show(items, { card, width, height, gap }, keep) {
    const scrolled = keep ? this.list.scrollTop : 0;
    const stays = (index) => keep && card === this.card && isSame(items[index], this.items[index]);
    for (const [index, element] of this.shown) {
      if (stays(index)) continue;
      element.remove();
      this.shown.delete(index);
    }
    Object.assign(this, { items, card, width, height, gap });
    this.focus = Math.min(this.focus, items.length - 1);
    this.layout();
    this.list.scrollTop = scrolled;
    this.later();
  }

  layout() {
    if (!this.card) return;
    const room = this.list.clientWidth - 2 * MARGIN;
    const columns = this.width ? Math.max(1, Math.floor((room + this.gap) / (this.width + this.gap))) : 1;
    // Cards of a grid grow a little, so that lines end at the margin.
    const wide = (room - (columns - 1) * this.gap) / columns;
    const line = this.height(wide) + this.gap;
    const changed = columns !== this.columns || wide !== this.wide || line !== this.line;
    const first = this.columns ? this.at(this.list.scrollTop) * this.columns : 0;
    Object.assign(this, { columns, wide, line });
    this.lines = Math.ceil(this.items.length / columns);
    this.real = this.lines * line - this.gap + 2 * MARGIN;
    this.canvas.style.height = `${Math.min(this.real, MOST_PX)}px`;
    if (changed) {
      for (const element of this.shown.values()) element.remove();
      this.shown.clear();
      if (first) this.list.scrollTop = this.scroll(Math.floor(first / columns));
    }
    this.later();
  }

  /** How much further a pixel of the scroll bar goes than a pixel of the list. */
  get ratio() {
    const sight = this.list.clientHeight;
    return this.real > MOST_PX ? (this.real - sight) / (MOST_PX - sight) : 1;
  }

  /** The line at a scroll position, and the other way round. */
  at(scrollTop) {
    return Math.floor((scrollTop * this.ratio) / this.line);
  }
  scroll(line) {
    return (line * this.line) / this.ratio;
  }

  later() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  draw() {
    const { list, columns, line } = this;
    const top = list.scrollTop * this.ratio;
    const from = Math.max(0, Math.floor((top - MARGIN) / line) - AHEAD) * columns;
    const to = Math.min(this.items.length, (Math.ceil((top + list.clientHeight) / line) + AHEAD) * columns);
    for (const [index, element] of this.shown) {
      if (index >= from && index < to) continue;
      element.querySelectorAll("img").forEach((image) => image.removeAttribute("src")); // stops loading it
      element.remove();
      this.shown.delete(index);
    }
    const fresh = document.createDocumentFragment();
    for (let index = from; index < to; index++) {
      let element = this.shown.get(index);
      if (!element) {
        element = this.card(this.items[index], index);
        element.dataset.index = index;
        element.classList.toggle("focus", index === this.focus);
        element.style.width = `${this.wide}px`;
        element.style.height = `${line - this.gap}px`;
        this.shown.set(index, element);
        fresh.append(element);
      }
      const x = MARGIN + (index % columns) * (this.wide + this.gap);
      const y = MARGIN + Math.floor(index / columns) * line - top + list.scrollTop;
      element.style.transform = `translate(${x}px, ${y}px)`;
    }
    this.canvas.append(fresh);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.shown.forEach((element) => element.load?.()), SETTLED_MS);
  }

  /** Move the focus to an item and bring it into sight. */
  focusOn(index) {
    if (!this.items.length) return;
    index = Math.max(0, Math.min(this.items.length - 1, index));
    this.shown.get(this.focus)?.classList.remove("focus");
    this.focus = index;
    this.shown.get(index)?.classList.add("focus");
    const line = Math.floor(index / this.columns);
    const top = line * this.line;
    const sight = this.list.scrollTop * this.ratio;
    if (top < sight) this.list.scrollTop = this.scroll(line);
    else if (top + this.line + 2 * MARGIN > sight + this.list.clientHeight)
      this.list.scrollTop = (top + this.line + 2 * MARGIN - this.list.clientHeight) / this.ratio;
    this.later();
  }

  /** Move the focus by items (x) and lines (y). */
  move(x, y) {
    if (this.focus < 0) return this.focusOn(this.at(this.list.scrollTop) * this.columns);
    this.focusOn(this.focus + x + y * this.columns);
  }

  /** Lines that are in sight at once. */
  get page() {
    return Math.max(1, Math.floor(this.list.clientHeight / this.line) - 1);
  }
};
