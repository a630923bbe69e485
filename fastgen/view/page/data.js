// The rows of the runs: from the server, or from the scripts of an exported folder. Knows no elements of the page.
"use strict";

const fastgen = {};

// In the order of fastgen/view/listed.py.
fastgen.FIELDS = ["id", "status", "kind", "prompt", "answer", "model", "size", "cost", "seconds", "seed", "outputs", "inputs"];

fastgen.runs = [];
/** Called when rows came or changed. */
fastgen.onChange = () => {};

fastgen.Run = class {
  constructor(number, about) {
    this.number = number;
    this.about = about;
    this.rows = [];
    this.byId = new Map();
    this.since = 0;
    this.arrivals = 0;
    this.generation = about.generation;
  }

  /** Take in rows as [position, fields]. */
  take(rows) {
    for (const [position, values] of rows) {
      const row = { run: this, position, version: (this.rows[position]?.version ?? 0) + 1, arrived: ++this.arrivals };
      fastgen.FIELDS.forEach((name, k) => (row[name] = values[k]));
      row.text = `${row.id}\n${row.prompt}\n${row.answer}`.toLowerCase();
      this.rows[position] = row;
      this.byId.set(row.id, row);
    }
  }

  /** The row's small image of a side ("out" or "in"). */
  thumb(row, side, k) {
    if (fastgen.isExported)
      return `thumbs/${this.number}/${Math.floor(row.position / 1000)}/${row.position}-${side}-${k}.webp`;
    return `thumb/${this.number}/${row.position}/${side}/${k}?v=${this.generation}.${row.version}`;
  }

  /** What a row's small images are: those that were made, else those that it is about. */
  thumbs(row) {
    const side = row.outputs ? "out" : "in";
    return Array.from({ length: row.outputs || row.inputs }, (_, k) => this.thumb(row, side, k));
  }
};

// An exported folder: its scripts call these.

fastgen.isExported = false;
const waiting = new Map();

fastgen.exported = {
  runs(abouts) {
    fastgen.isExported = true;
    fastgen.exportedRuns = abouts;
  },
  rows(number, rows) {
    fastgen.runs[number].take(rows);
  },
  details(number, part, details) {
    waiting.set(`${number}/${part}`, details);
  },
};

function script(src) {
  return new Promise((resolve, reject) => {
    const element = document.createElement("script");
    element.src = src;
    element.onload = () => (element.remove(), resolve());
    element.onerror = () => (element.remove(), reject(new Error(src)));
    document.head.append(element);
  });
}

async function loadExported() {
  fastgen.runs = fastgen.exportedRuns.map((about, number) => new fastgen.Run(number, about));
  fastgen.onChange();
  for (const run of fastgen.runs) {
    for (let part = 0; part * 5000 < run.about.rows; part++) {
      await script(`data/${run.number}/rows-${part}.js`);
      fastgen.onChange();
    }
  }
}

// A server.

async function get(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${answer.status}`);
  return answer.json();
}

/** Ask for what is new in a run. Returns whether there is more at once. */
async function update(run) {
  const answer = await get(`runs/${run.number}/rows?generation=${run.generation}&since=${run.since}`);
  if (answer.generation !== run.generation) {
    run.rows = [];
    run.byId.clear();
    run.generation = answer.generation;
  }
  run.take(answer.rows);
  const isNew = answer.rows.length > 0 || JSON.stringify(answer.about) !== JSON.stringify(run.about);
  run.since = answer.since;
  run.about = answer.about;
  if (isNew) fastgen.onChange();
  return answer.more && answer.rows.length > 0;
}

async function follow(run) {
  for (;;) {
    let wait = run.about.state === "running" || !run.about.is_read ? 1000 : 5000;
    try {
      if (await update(run)) wait = 0;
      if (fastgen.isLost) fastgen.onChange((fastgen.isLost = false));
    } catch {
      if (!fastgen.isLost) fastgen.onChange((fastgen.isLost = true)); // the server has ended
    }
    if (wait) await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

fastgen.load = async () => {
  if (fastgen.isExported) return loadExported();
  fastgen.runs = (await get("runs")).map((about, number) => new fastgen.Run(number, about));
  fastgen.onChange();
  fastgen.runs.forEach(follow);
};

/** The details of a row: {line, prompts, out, in}, the last two with the addresses of its images. */
fastgen.details = async (row) => {
  const number = row.run.number;
  if (!fastgen.isExported) return get(`runs/${number}/rows/${row.position}`);
  const part = Math.floor(row.position / 200);
  const key = `${number}/${part}`;
  if (!waiting.has(key)) await script(`data/${number}/details-${part}.js`);
  return waiting.get(key)[row.position % 200];
};

/** The lines of rows, as a file of rows. */
fastgen.lines = async (rows) => {
  if (!fastgen.isExported) {
    const body = JSON.stringify(rows.map((row) => [row.run.number, row.position]));
    const answer = await fetch("picks", { method: "POST", body, headers: { "content-type": "application/json" } });
    if (!answer.ok) throw new Error(`${answer.status}`);
    return answer.text();
  }
  let text = "";
  for (const row of rows) text += (await fastgen.details(row)).line.trimEnd() + "\n";
  return text;
};

/** An element. Texts of rows only ever become text, never markup. */
fastgen.el = (tag, properties = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element && name !== "style") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
};

fastgen.money = (usd) => (usd ? `$${usd < 0.01 ? usd.toPrecision(2) : usd.toFixed(usd < 1 ? 3 : 2)}` : "");
fastgen.count = (number) => number.toLocaleString("en-US");
fastgen.seconds = (s) => (s ? (s < 10 ? `${s.toFixed(1)} s` : `${Math.round(s)} s`) : "");
