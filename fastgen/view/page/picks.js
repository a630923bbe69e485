// The rows that somebody picked. They are kept in the browser, by run, and saved as a file of rows.
"use strict";

const KEY = "fastgen-picks:";

function stored(run) {
  try {
    return JSON.parse(localStorage.getItem(KEY + run.about.path)) ?? [];
  } catch {
    return [];
  }
}

fastgen.picks = {
  of(run) {
    return (run.picked ??= new Set(stored(run)));
  },
  has(row) {
    return this.of(row.run).has(row.id);
  },
  toggle(row) {
    const picked = this.of(row.run);
    if (!picked.delete(row.id)) picked.add(row.id);
    try {
      localStorage.setItem(KEY + row.run.about.path, JSON.stringify([...picked]));
    } catch {
      // without storage they last as long as the page
    }
  },
  /** The picked rows of some runs, in the order of the rows. */
  rows(runs) {
    return runs.flatMap((run) => (this.of(run).size ? run.rows.filter((row) => this.has(row)) : []));
  },
  /** Download the picked rows. */
  async save(runs) {
    const blob = new Blob([await fastgen.lines(this.rows(runs))], { type: "application/x-ndjson" });
    const link = fastgen.el("a", { href: URL.createObjectURL(blob), download: "picks.jsonl" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  },
};
