// The same row in several runs, side by side.
"use strict";

{
  const { el } = fastgen;

  /** Groups of rows with the same id: {id, rows: one or undefined per run}. A group is wanted if any of its rows is. */
  fastgen.groups = (runs, isWanted) => {
    const groups = [];
    runs.forEach((run, number) => {
      for (const row of run.rows) {
        if (!row || runs.slice(0, number).some((other) => other.byId.has(row.id))) continue;
        const rows = runs.map((other) => other.byId.get(row.id));
        if (rows.some((one) => one && isWanted(one))) groups.push({ id: row.id, rows });
      }
    });
    return groups;
  };

  /** How many groups have a row of each status; "": all of them. */
  fastgen.tallyGroups = (runs) => {
    const counts = new Map();
    for (const group of fastgen.groups(runs, () => true))
      for (const status of new Set(["", ...group.rows.map((row) => row?.status)])) counts.set(status, (counts.get(status) ?? 0) + 1);
    return counts;
  };

  /** Settings in which runs differ: [[name, value per run], ...]. */
  fastgen.differences = (runs) => {
    const names = new Set(runs.flatMap((run) => Object.keys(run.about.settings)));
    return [...names]
      .map((name) => [name, runs.map((run) => run.about.settings[name])])
      .filter(([, values]) => values.some((value) => value !== values[0]));
  };

  fastgen.compared = (group) => {
    const first = group.rows.find(Boolean);
    const wells = [];
    const cells = group.rows.map((row, number) => {
      if (!row) return el("div", { className: "cell absent" }, el("div", { className: "well" }, el("span", { className: "said" }, "not in this run")));
      const well = fastgen.well(row);
      wells.push(well);
      const text = row.status === "failed" || row.run.about.task === "caption" ? row.answer : "";
      const about = el("p", { className: "meta" }, row.status === "failed" ? row.kind : fastgen.facts(row));
      const cell = el("div", { className: "cell" }, well, text && el("p", { className: "text" }, text), about, fastgen.pickButton(row));
      cell.dataset.run = number;
      return cell;
    });
    const words = el("div", { className: "words" }, el("p", { className: "text" }, first.prompt || first.id), el("p", { className: "meta" }, first.id));
    const card = el("article", { className: "compared", tabIndex: -1 }, words, cells);
    card.load = () => wells.forEach((well) => well.load());
    return card;
  };

  /** The names of the runs above their columns, with what differs. */
  fastgen.comparedHeading = (runs) => {
    const differences = fastgen.differences(runs);
    const columns = runs.map((run, k) =>
      el(
        "div",
        { className: "cell" },
        el("b", {}, run.about.name),
        el("p", { className: "meta" }, differences.slice(0, 4).map(([name, values]) => `${name} ${values[k] ?? "–"}`).join("  ·  ")),
      ),
    );
    return [el("div", { className: "words" }, el("p", { className: "meta" }, "Same row, one run per column")), ...columns];
  };

  fastgen.layouts.compare = (scale, task) => ({
    card: fastgen.compared,
    width: 0,
    height: () => scale + (task === "caption" ? 96 : 46),
    gap: 16,
  });
}
