// What one row looks like in the list: a card with its image, or a line with the reason why it failed.
"use strict";

{
  const { el, money, seconds } = fastgen;

  /** Small images of a card, loaded by `load()` when scrolling has settled. */
  fastgen.well = (row) => {
    const urls = row.status === "failed" || row.status === "pending" ? [] : row.run.thumbs(row);
    const image = urls.length ? el("img", { alt: "", decoding: "async", draggable: false }) : null;
    const said = row.status === "pending" ? "pending" : row.status === "failed" ? row.kind : "";
    const well = el("div", { className: `well ${row.status}` }, image ?? el("span", { className: "said" }, said));
    if (urls.length > 1) well.append(el("span", { className: "many" }, `${urls.length}`));
    well.load = () => {
      if (!image || image.hasAttribute("src")) return;
      image.onload = () => image.classList.add("here");
      image.onerror = () => image.replaceWith(el("span", { className: "said" }, "no image"));
      image.src = urls[0];
    };
    return well;
  };

  fastgen.pickButton = (row) => {
    const button = el("button", { className: "pick", title: "Pick (p)" }, "");
    button.draw = () => {
      const picked = fastgen.picks.has(row);
      button.classList.toggle("on", picked);
      button.setAttribute("aria-label", picked ? "Picked" : "Pick");
      button.setAttribute("aria-pressed", picked);
      button.textContent = picked ? "★" : "☆";
    };
    button.onclick = (event) => (event.stopPropagation(), fastgen.onPick(row), button.draw());
    button.draw();
    return button;
  };

  /** Size, time, cost: what is known of them. */
  fastgen.facts = (row) => [row.size.replace("x", " × "), seconds(row.seconds), money(row.cost)].filter(Boolean).join("  ·  ");

  fastgen.card = (row) => {
    const well = fastgen.well(row);
    const isCaption = row.run.about.task === "caption" && row.answer;
    const text = row.status === "failed" ? row.answer : isCaption ? row.answer : row.prompt || row.id;
    const card = el(
      "article",
      { className: `card ${row.status} ${row.run.about.task}`, tabIndex: -1 },
      well,
      el("p", { className: "text" }, text),
      el("p", { className: "meta" }, row.status === "failed" ? row.id : fastgen.facts(row)),
      fastgen.pickButton(row),
    );
    card.load = well.load;
    return card;
  };

  fastgen.failure = (row) => {
    const card = el(
      "article",
      { className: "line", tabIndex: -1 },
      el("span", { className: "badge" }, row.kind),
      el(
        "div",
        {},
        el("p", { className: "text" }, row.answer),
        el("p", { className: "meta" }, `row ${row.position + 1}  ·  ${row.id}${row.prompt ? "  ·  " + row.prompt : ""}`),
      ),
      fastgen.pickButton(row),
    );
    return card;
  };

  // How the list is laid out: `width` 0 for one item per line, `height` from the width of a card, in pixels.
  fastgen.layouts = {
    cards: (scale, task) => ({
      card: fastgen.card,
      width: scale,
      height: (wide) => Math.round(wide) + (task === "caption" ? 92 : 70),
      gap: 16,
    }),
    failures: () => ({ card: fastgen.failure, width: 0, height: () => 68, gap: 8 }),
  };
}
