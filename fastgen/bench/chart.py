"""The ratios as bars, with their spread, and beside them what each costs in pictures."""

from __future__ import annotations

from pathlib import Path

OURS, SET, THEIRS, FAINT = "#2f6fb0", "#1a7f37", "#888888", "#bbbbbb"


def draw(found: dict, path: Path) -> None:
    """Write a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    arms = [arm for arm in found["arms"] if "ratio" in arm][::-1]
    is_pictures = found["about"]["task"] != "caption"
    names = [arm["name"] for arm in arms]
    places = range(len(arms))
    colors = [THEIRS if arm is arms[-1] else SET if arm["name"].startswith("quality") else OURS for arm in arms]
    figure = Figure(figsize=(11, 1.9 + 0.42 * len(arms)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    speed, loss = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))

    ratios = [arm["ratio"] for arm in arms]
    spread = [
        [r - arm["ratio_least"] for r, arm in zip(ratios, arms, strict=True)],
        [arm["ratio_most"] - r for r, arm in zip(ratios, arms, strict=True)],
    ]
    speed.barh(places, ratios, color=colors, xerr=spread, error_kw={"ecolor": "#333333", "capsize": 2, "lw": 1})
    speed.axvline(1, color=THEIRS, lw=1, ls=":")
    for place, arm in zip(places, arms, strict=True):
        speed.text(
            arm["ratio_most"] + 0.02 * max(ratios),
            place,
            f"{arm['ratio']:.2f}x  ({arm['images_per_second']:.3g}/s)",
            va="center",
            fontsize=9,
        )
    speed.set_xlim(0, 1.35 * max(arm["ratio_most"] for arm in arms))
    speed.set_yticks(list(places), names)
    speed.set_xlabel(f"{'pictures' if is_pictures else 'captions'} a second, times {names[-1]}")

    if all(arm["score"] for arm in arms):
        values = [100 * arm["score"]["share"] for arm in arms]
        least, most, form = min(90.0, min(values) - 2), 100.0, "{:.1f}"
        loss.set_xlabel(
            f"% of pictures right, of {arms[-1]['score']['of']}"
            if is_pictures
            else f"% of captions exact, of {arms[-1]['score']['of']}"
        )
    elif not is_pictures:
        values = [None if arm["same_text"] is None else 100 * arm["same_text"] for arm in arms]
        least, most, form = 0.0, 100.0, "{:.0f}"
        loss.set_xlabel(f"% of captions that say the same as {names[-1]}")
    else:  # of the opponent there is nothing to say, it is what the others are held against
        values = [None if arm["psnr_db"] is None else min(60.0, arm["psnr_db"]) for arm in arms]
        least, most, form = 0.0, 60.0, "{:.0f}"
        loss.set_xlabel(f"PSNR to {names[-1]}, dB (60: as good as equal)")
    loss.hlines(
        [p for p, v in zip(places, values, strict=True) if v is not None],
        least,
        [v for v in values if v is not None],
        color=FAINT,
        lw=1,
    )
    loss.set_xlim(least, most + 0.15 * (most - least))
    for place, value, color in zip(places, values, colors, strict=True):
        if value is not None:
            loss.plot(value, place, "o", color=color)
            loss.text(value, place, f"  {form.format(value)}", va="center", fontsize=9)
    for axes in (speed, loss):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color=FAINT, lw=0.4)
        axes.set_axisbelow(True)
    about = found["about"]
    title = f"fastgen bench {about['task']}: {about['model']}, {about['hardware']}, {about['date'][:10]}"
    figure.suptitle(f"{title}\nweights {about['weights']}", fontsize=10, x=0.01, ha="left")
    figure.savefig(path)
