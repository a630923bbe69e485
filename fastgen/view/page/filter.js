// Which rows are shown, and in which order. Pure: knows no elements of the page.
"use strict";

/** What is wanted; "" and null mean anything. */
fastgen.anything = () => ({ text: "", status: "", kind: "", size: "", model: "", from: null, to: null, sort: "" });

/** A function that says whether a row is wanted. `isPicked` says it of a row. */
fastgen.matcher = (wanted, isPicked) => {
  const words = wanted.text.toLowerCase().split(/\s+/).filter(Boolean);
  return (row) => {
    if (wanted.status === "picked" ? !isPicked(row) : wanted.status && row.status !== wanted.status) return false;
    if (wanted.kind && row.kind !== wanted.kind) return false;
    if (wanted.size && row.size !== wanted.size) return false;
    if (wanted.model && row.model !== wanted.model) return false;
    if (wanted.from !== null && row.cost < wanted.from) return false;
    if (wanted.to !== null && row.cost > wanted.to) return false;
    return words.every((word) => row.text.includes(word));
  };
};

/** The rows in the order that is wanted. */
fastgen.sorted = (rows, sort) => {
  if (!sort) return rows;
  return [...rows].sort((a, b) => b[sort] - a[sort] || a.position - b.position);
};

/** How often each value of a field occurs: [[value, count], ...], the most frequent first. */
fastgen.tally = (rows, field) => {
  const counts = new Map();
  for (const row of rows) if (row[field]) counts.set(row[field], (counts.get(row[field]) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]);
};
