// One row, opened: its image large, before and after with a slider, and everything that is known about it.
"use strict";

{
  const { el, money, seconds } = fastgen;
  const root = document.getElementById("viewer");
  let opened = null; // {group, active, step, details, views, view, image, zoomed}

  fastgen.viewer = {
    get isOpen() {
      return opened !== null;
    },
    /** Args: group: {rows: one or undefined per run}; active: the index of the run in front; step(by): another row. */
    open(group, active, step) {
      if (!group.rows[active]) active = group.rows.findIndex(Boolean);
      opened = { group, active, step, image: 0, zoomed: false, view: opened?.view ?? null };
      show();
    },
    close() {
      opened = null;
      root.hidden = true;
      root.replaceChildren();
    },
    get row() {
      return opened.group.rows[opened.active];
    },
    /** Keys while it is open. Returns whether the key was one. */
    key(event) {
      const keys = {
        Escape: () => this.close(),
        ArrowLeft: () => opened.step(-1),
        ArrowRight: () => opened.step(1),
        ArrowUp: () => opened.step(-1),
        ArrowDown: () => opened.step(1),
        " ": () => opened.step(1),
        b: nextView,
        z: zoom,
        i: () => image(1),
        p: () => (fastgen.onPick(this.row), draw()),
      };
      const run = Number(event.key) - 1;
      if (opened.group.rows[run]) keys[event.key] = () => ((opened.active = run), show());
      if (!keys[event.key]) return false;
      keys[event.key]();
      return true;
    },
  };

  async function show() {
    const mine = opened;
    try {
      mine.details = await Promise.all(mine.group.rows.map((row) => row && fastgen.details(row)));
    } catch {
      mine.details = mine.group.rows.map(() => ({ line: "{}", prompts: [], out: [], in: [] }));
    }
    if (opened === mine) draw();
  }

  /** The ways to look at it: [{name, left, right}] with one image, or two under a slider. */
  function views() {
    const { details, active, group, image } = opened;
    const own = details[active];
    const row = group.rows[active];
    const made = own.out.length ? own.out : own.in;
    const url = made[Math.min(image, made.length - 1)];
    const found = [];
    const sides = (name, left, right, words) => left && right && found.push({ name, left, right, words });
    if (own.out.length && own.in.length) sides("Before / after", own.in[0], url, ["before", "after"]);
    const others = group.rows.map((row, k) => (row && k !== active && row.outputs ? k : -1)).filter((k) => k >= 0);
    for (const k of row.outputs ? others : []) {
      const pair = [k, active].sort();
      const names = pair.map((one) => group.rows[one].run.about.name);
      const urls = pair.map((one) => details[one].out[Math.min(image, details[one].out.length - 1)]);
      sides(names.join(" / "), urls[0], urls[1], names);
    }
    if (url) found.push({ name: own.out.length ? "Image" : "Input", right: url });
    if (own.out.length && own.in.length) found.push({ name: "Input", right: own.in[0] });
    return found;
  }

  function draw() {
    const { group, active, details } = opened;
    const row = group.rows[active];
    opened.views = views();
    const view = opened.views.find((one) => one.name === opened.view) ?? opened.views[0];
    root.hidden = false;
    root.replaceChildren(
      el("section", { className: "stage" }, bar(view), view ? stage(view) : nothing(row), strip(details[active])),
      el("aside", {}, side(row, details[active])),
    );
    root.querySelector(".slider")?.focus({ preventScroll: true });
  }

  function bar(view) {
    const { group, active } = opened;
    const names = opened.views.map((one) =>
      el("button", { className: one === view ? "on" : "", onclick: () => ((opened.view = one.name), draw()) }, one.name),
    );
    const runs =
      group.rows.length > 1
        ? group.rows.map((row, k) =>
            row
              ? el("button", { className: k === active ? "on" : "", onclick: () => ((opened.active = k), draw()) }, row.run.about.name)
              : null,
          )
        : [];
    return el(
      "div",
      { className: "bar" },
      el("button", { onclick: () => opened.step(-1), title: "Previous (←)", "aria-label": "Previous" }, "←"),
      el("button", { onclick: () => opened.step(1), title: "Next (→)", "aria-label": "Next" }, "→"),
      runs.length ? el("div", { className: "segments" }, runs) : null,
      names.length > 1 ? el("div", { className: "segments views" }, names) : null,
      el("span", { className: "space" }),
      view ? el("button", { onclick: zoom, title: "Fit or full size (z)" }, opened.zoomed ? "Fit" : "1:1") : null,
      el("button", { onclick: () => fastgen.viewer.close(), title: "Close (Esc)", "aria-label": "Close" }, "✕"),
    );
  }

  function nothing(row) {
    return el("div", { className: "frame" }, el("p", { className: "said" }, row.status === "failed" ? row.answer : "Nothing yet"));
  }

  function stage(view) {
    const frame = el("div", { className: `frame ${opened.zoomed ? "zoomed" : ""}` });
    const box = el("div", { className: "box" });
    const right = el("img", { alt: "", draggable: false, src: view.right });
    const fit = () => {
      if (!right.naturalWidth) return;
      const room = [frame.clientWidth - 32, frame.clientHeight - 32];
      const scale = opened?.zoomed
        ? 1 / (window.devicePixelRatio || 1)
        : Math.min(room[0] / right.naturalWidth, room[1] / right.naturalHeight, Math.max(1, 512 / right.naturalWidth));
      box.style.width = `${right.naturalWidth * scale}px`;
      box.style.height = `${right.naturalHeight * scale}px`;
      box.classList.add("here");
      box.classList.toggle("pixels", right.naturalWidth * scale > 1.5 * right.naturalWidth);
    };
    right.onload = fit;
    right.onerror = () => frame.replaceChildren(el("p", { className: "said" }, "This image is no longer there"));
    new ResizeObserver(fit).observe(frame);
    box.append(right);
    if (view.left) slider(box, view);
    else box.onclick = zoom;
    frame.append(box);
    return frame;
  }

  function slider(box, view) {
    const place = (percent) => box.style.setProperty("--x", `${percent}%`);
    const handle = el("input", {
      type: "range", className: "slider", min: 0, max: 100, step: 0.5, value: 50, "aria-label": `${view.words[0]} or ${view.words[1]}`,
    });
    handle.oninput = () => place(handle.value);
    handle.onkeydown = (event) => {
      if (!event.shiftKey || !event.key.startsWith("Arrow")) return;
      event.stopPropagation(); // with Shift the arrows move the slider
      handle.value = Number(handle.value) + (event.key === "ArrowLeft" ? -5 : event.key === "ArrowRight" ? 5 : 0);
      place(handle.value);
      event.preventDefault();
    };
    place(50);
    box.append(
      el("img", { alt: "", draggable: false, src: view.left, className: "left" }),
      el("i", { className: "edge" }),
      el("span", { className: "word first" }, view.words[0]),
      el("span", { className: "word last" }, view.words[1]),
      handle,
    );
  }

  /** The other images of the row. */
  function strip(details) {
    const made = details.out.length ? details.out : details.in;
    if (made.length < 2) return null;
    return el(
      "div",
      { className: "strip" },
      made.map((url, k) => {
        const row = fastgen.viewer.row;
        const small = row.run.thumb(row, details.out.length ? "out" : "in", k);
        const button = el("button", { className: k === opened.image ? "on" : "", onclick: () => ((opened.image = k), draw()) });
        button.append(el("img", { alt: `image ${k + 1}`, src: small }));
        return button;
      }),
    );
  }

  /** Everything that is known of the row. */
  function side(row, details) {
    let fields = {};
    try {
      fields = JSON.parse(details.line);
    } catch {
      // a line that is no JSON is shown as it is, below
    }
    const about = fields.fastgen ?? {};
    const error = about.error;
    const own = Object.entries(fields).filter(([name]) => name !== "fastgen");
    const parts = [
      el("div", { className: "title" }, el("h2", {}, row.id), fastgen.pickButton(row)),
      el("p", { className: "meta" }, `row ${row.position + 1} of ${fastgen.count(row.run.rows.length)}  ·  ${row.status}  ·  ${row.run.about.name}`),
    ];
    if (error) parts.push(part(`Failed: ${error.kind}`, el("p", { className: "error" }, error.message), error.field && el("p", { className: "meta" }, `field ${error.field}`)));
    if (error?.answer) parts.push(part("What came instead", el("pre", {}, String(error.answer))));
    if (row.run.about.task === "caption" && row.status !== "failed" && row.answer) {
      const value = fields[Object.keys(fields).find((name) => fields[name] === row.answer)] ?? fields.caption;
      parts.push(part("Caption", el("p", { className: "prose" }, typeof value === "string" ? value : JSON.stringify(value, null, 2) ?? row.answer)));
    }
    if (details.prompts.length) parts.push(part(details.prompts.length > 1 ? "Turns" : "Prompt", details.prompts.map((text) => el("p", { className: "prose" }, text))));
    for (const warning of about.warnings ?? []) parts.push(part("Warning", el("p", { className: "prose" }, String(warning))));
    if (about.reasoning) parts.push(part("Reasoning", el("pre", {}, String(about.reasoning))));
    parts.push(part("Settings", list(settings(row, about))));
    parts.push(part("The row", el("pre", {}, own.length ? JSON.stringify(Object.fromEntries(own), null, 1) : details.line)));
    return parts;
  }

  function settings(row, about) {
    const names = { model: "Model", backend: "Backend", seed: "Seed", steps: "Steps", guidance: "Guidance", attempts: "Attempts" };
    const pairs = row.size ? [["Size", row.size.replace("x", " × ")]] : [];
    for (const [name, word] of Object.entries(names)) if (about[name] !== undefined && about[name] !== "") pairs.push([word, String(about[name])]);
    if (row.seconds) pairs.push(["Time", seconds(row.seconds)]);
    if (row.cost) pairs.push(["Cost", money(row.cost)]);
    const known = new Set([...Object.keys(names), "id", "status", "width", "height", "seconds", "cost_usd", "error", "warnings", "reasoning", "prompt"]);
    for (const [name, value] of Object.entries(about)) {
      if (!known.has(name)) pairs.push([name, typeof value === "object" ? JSON.stringify(value) : String(value)]);
    }
    return pairs;
  }

  const part = (title, ...children) => el("section", {}, el("h3", {}, title), children);
  const list = (pairs) => el("dl", {}, pairs.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));

  function nextView() {
    const names = opened.views.map((view) => view.name);
    opened.view = names[(Math.max(0, names.indexOf(opened.view)) + 1) % names.length];
    draw();
  }

  function zoom() {
    opened.zoomed = !opened.zoomed;
    draw();
  }

  function image(by) {
    const own = opened.details[opened.active];
    const count = (own.out.length ? own.out : own.in).length;
    if (count) opened.image = (opened.image + by + count) % count;
    draw();
  }
}
