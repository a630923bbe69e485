// The page as a whole: which run, which filters, keys, light and dark.
"use strict";

{
  const { el, count } = fastgen;
  const $ = (id) => document.getElementById(id);
  const grid = new fastgen.Grid($("list"), $("canvas"));
  let active = 0; // a run, or "compare"
  let wanted = fastgen.anything();
  let scale = Number(remembered("scale")) || 220;
  let theme = remembered("theme");

  function remembered(name, value) {
    try {
      return value === undefined ? localStorage.getItem(`fastgen-${name}`) : localStorage.setItem(`fastgen-${name}`, value);
    } catch {
      return null;
    }
  }

  const isComparing = () => active === "compare";
  const current = () => (isComparing() ? fastgen.runs : [fastgen.runs[active]]);
  const rowsOf = (runs) => runs.flatMap((run) => run.rows);

  // What is shown

  function items() {
    const isWanted = fastgen.matcher(wanted, (row) => fastgen.picks.has(row));
    if (isComparing()) return fastgen.groups(fastgen.runs, isWanted);
    return fastgen.sorted(current()[0].rows.filter(isWanted), wanted.sort);
  }

  function layout() {
    const task = current()[0].about.task;
    if (isComparing()) return fastgen.layouts.compare(scale, task);
    if (wanted.status === "failed") return fastgen.layouts.failures();
    return fastgen.layouts.cards(scale, task);
  }

  /** Show the rows again. `keep`: stay where the list is, as when a run goes on. */
  function refresh(keep) {
    if (!fastgen.runs.length) return;
    const shown = items();
    grid.show(shown, layout(), keep);
    drawTabs();
    drawState();
    drawFilters();
    drawHeading(shown);
    drawSave();
    const all = rowsOf(current()).length;
    $("empty").hidden = shown.length > 0;
    if (!shown.length) $("empty").textContent = emptyWords(all);
  }

  function emptyWords(all) {
    const about = current()[0].about;
    if (about.problem) return about.problem;
    if (!all) return about.is_read ? "This run has no rows yet." : "Reading the rows…";
    return "No row is like that. Esc clears the filters.";
  }

  function drawTabs() {
    const names = fastgen.runs.map((run, k) => [k, run.about.name]);
    if (names.length > 1) names.push(["compare", "Compare"]);
    $("runs").replaceChildren(
      ...names.map(([key, name]) =>
        el("button", { className: key === active ? "on" : "", onclick: () => choose(key), title: key === "compare" ? "The same row in each run (c)" : fastgen.runs[key].about.path }, name),
      ),
    );
    document.title = `${current().map((run) => run.about.name).join(" / ")} – fastgen`;
  }

  function drawState() {
    const about = current()[0].about;
    const made = (about.counts.done ?? 0) + (about.counts.failed ?? 0) + (about.counts.kept ?? 0);
    const share = about.rows ? ` ${Math.floor((100 * made) / about.rows)} %` : "";
    const words = [about.task, about.state === "running" ? `running${share}` : about.state];
    if (about.rate) words.push(`${about.rate.toFixed(2)} ${about.made}/s`);
    if (about.cost_usd) words.push(`$${about.cost_usd.toFixed(2)}`);
    if (fastgen.isLost) words.push("fastgen view has ended");
    if (!isComparing()) $("state").textContent = words.join("  ·  ");
    else $("state").textContent = "";
    $("progress").hidden = isComparing() || about.state !== "running" || !about.rows;
    $("progress").firstElementChild.style.width = `${(100 * made) / Math.max(1, about.rows)}%`;
  }

  function drawFilters() {
    const rows = rowsOf(current());
    const tally = isComparing() ? fastgen.tallyGroups(fastgen.runs) : new Map(fastgen.tally(rows, "status"));
    const picked = fastgen.picks.rows(current()).length;
    const statuses = [["", "All", isComparing() ? tally.get("") : rows.length], ["done", "Done", tally.get("done")], ["failed", "Failed", tally.get("failed")]];
    statuses.push(["kept", "Kept", tally.get("kept")], ["pending", "Pending", tally.get("pending")], ["picked", "Picked", picked]);
    $("statuses").replaceChildren(
      ...statuses
        .filter(([key, , number]) => key === "" || number || key === wanted.status)
        .map(([key, word, number]) =>
          el("button", { className: key === wanted.status ? "on" : "", onclick: () => want({ status: key, kind: "" }), "data-status": key }, word, el("small", {}, count(number ?? 0))),
        ),
    );
    options("kind", rows, "kind", "All reasons");
    options("size", rows, "size", "All sizes");
    options("model", rows, "model", "All models");
    $("cost").hidden = !rows.some((row) => row.cost) && wanted.from === null && wanted.to === null;
    $("sort").querySelector("[value=cost]").hidden = $("cost").hidden;
    $("sort").hidden = $("scale").hidden = false;
    $("sort").hidden = isComparing();
  }

  /** The values of a field, to choose from. Hidden if there is nothing to choose. */
  function options(id, rows, field, all) {
    const found = fastgen.tally(rows, field);
    const select = $(id);
    const isReason = field === "kind";
    select.hidden = found.length < (isReason ? 1 : 2) && !wanted[field];
    if (isReason && wanted.status && wanted.status !== "failed") select.hidden = true;
    select.replaceChildren(
      el("option", { value: "" }, all),
      ...found.slice(0, 100).map(([value, number]) => el("option", { value }, `${value.replace(/^(\d+)x(\d+)$/, "$1 × $2")}  (${count(number)})`)),
    );
    select.value = wanted[field];
  }

  function drawHeading(shown) {
    const heading = $("heading");
    heading.hidden = !isComparing();
    heading.className = "compared";
    if (isComparing()) heading.replaceChildren(...fastgen.comparedHeading(fastgen.runs));
    document.body.style.setProperty("--columns", fastgen.runs.length);
    document.body.style.setProperty("--scale", `${scale}px`);
    $("list").setAttribute("aria-label", `${count(shown.length)} rows`);
    $("list").dataset.shown = shown.length;
  }

  function drawSave() {
    const picked = fastgen.picks.rows(current()).length;
    $("save").hidden = !picked;
    $("save").textContent = `Save ${count(picked)} ${picked === 1 ? "pick" : "picks"}`;
    $("save").title = "Save the picked rows as picks.jsonl (s)";
  }

  // What somebody does

  function choose(key) {
    active = key;
    grid.focus = -1;
    refresh();
  }

  function want(more) {
    wanted = { ...wanted, ...more };
    grid.focus = -1;
    refresh();
  }

  fastgen.onPick = (row) => {
    fastgen.picks.toggle(row);
    drawSave();
    drawFilters();
    grid.shown.forEach((element) => element.querySelectorAll(".pick").forEach((button) => button.draw()));
  };

  function open(index, run) {
    const item = grid.items[index];
    if (!item) return;
    grid.focusOn(index);
    const group = item.rows ? item : { rows: [item] };
    fastgen.viewer.open(group, run ?? 0, (by) => {
      const next = grid.focus + by;
      if (next >= 0 && next < grid.items.length) open(next, run);
    });
  }

  function pick() {
    const item = grid.items[grid.focus];
    const row = item?.rows ? item.rows.find(Boolean) : item;
    if (row) fastgen.onPick(row);
  }

  const save = () => fastgen.picks.save(current()).catch(() => ($("save").textContent = "Could not be saved"));

  function turnTheme() {
    const isDark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    theme = isDark ? "light" : "dark";
    remembered("theme", theme);
    document.documentElement.dataset.theme = theme;
  }

  const KEYS = [
    ["← → ↑ ↓", "move"],
    ["Enter", "open the row"],
    ["Esc", "close, or clear the filters"],
    ["/", "search"],
    ["p", "pick the row"],
    ["s", "save the picked rows"],
    ["a  d  f  k", "all, done, failed, picked rows"],
    ["c", "compare runs"],
    ["1 2 3", "a run"],
    ["+ −", "larger or smaller images"],
    ["b", "in a row: before/after, image, input"],
    ["Shift ← →", "in a row: move the slider"],
    ["z", "in a row: full size"],
    ["i", "in a row: its next image"],
    ["t", "light or dark"],
  ];

  function help(isShown) {
    $("keys").hidden = !isShown;
    $("keys").replaceChildren(
      el("div", { className: "sheet" }, el("h2", {}, "Keys"), el("dl", {}, KEYS.flatMap(([key, what]) => [el("dt", {}, key), el("dd", {}, what)]))),
    );
  }

  function zoom(by) {
    scale = Math.max(110, Math.min(420, scale + by));
    $("scale").value = scale;
    remembered("scale", scale);
    refresh();
  }

  const keys = {
    ArrowLeft: () => grid.move(-1, 0),
    ArrowRight: () => grid.move(1, 0),
    ArrowUp: () => grid.move(0, -1),
    ArrowDown: () => grid.move(0, 1),
    PageUp: () => grid.move(0, -grid.page),
    PageDown: () => grid.move(0, grid.page),
    Home: () => grid.focusOn(0),
    End: () => grid.focusOn(grid.items.length - 1),
    Enter: () => open(grid.focus < 0 ? 0 : grid.focus),
    Escape: () => clear(),
    "/": () => $("search").focus(),
    p: pick,
    s: () => !$("save").hidden && save(),
    a: () => want({ status: "", kind: "" }),
    d: () => want({ status: "done", kind: "" }),
    f: () => want({ status: "failed", kind: "" }),
    k: () => want({ status: "picked", kind: "" }),
    c: () => fastgen.runs.length > 1 && choose(isComparing() ? 0 : "compare"),
    t: turnTheme,
    "+": () => zoom(30),
    "-": () => zoom(-30),
    "?": () => help(true),
  };

  function clear() {
    ["search", "cost-from", "cost-to"].forEach((id) => ($(id).value = ""));
    $("sort").value = "";
    wanted = fastgen.anything();
    refresh();
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (!$("keys").hidden) return void help(false);
    if (fastgen.viewer.isOpen) {
      if (fastgen.viewer.key(event)) event.preventDefault();
      return;
    }
    const field = event.target.closest("input, select");
    if (field && field.type !== "range") {
      if (event.key === "Escape" || event.key === "Enter") field.blur();
      if (event.key !== "ArrowDown" || field.tagName === "SELECT") return;
      field.blur();
    }
    const run = Number(event.key) - 1;
    if (fastgen.runs[run]) choose(run);
    else if (keys[event.key]) keys[event.key]();
    else return;
    event.preventDefault();
  });

  $("canvas").addEventListener("click", (event) => {
    const card = event.target.closest("article");
    if (card && !getSelection().toString()) open(Number(card.dataset.index), Number(event.target.closest("[data-run]")?.dataset.run ?? 0));
  });
  $("keys").addEventListener("click", () => help(false));
  $("help").addEventListener("click", () => help(true));
  $("theme").addEventListener("click", turnTheme);
  $("save").addEventListener("click", save);
  $("search").addEventListener("input", () => want({ text: $("search").value }));
  for (const id of ["kind", "size", "model", "sort"]) $(id).addEventListener("change", () => want({ [id]: $(id).value }));
  for (const [id, side] of [["cost-from", "from"], ["cost-to", "to"]])
    $(id).addEventListener("input", () => want({ [side]: $(id).value === "" ? null : Number($(id).value) }));
  $("scale").value = scale;
  $("scale").addEventListener("input", () => zoom(Number($("scale").value) - scale));
  if (theme) document.documentElement.dataset.theme = theme;

  let timer = 0;
  fastgen.onChange = () => {
    timer ||= setTimeout(() => ((timer = 0), refresh(true)), grid.items.length ? 300 : 0); // many changes are drawn at once
  };
  fastgen.load();
}
