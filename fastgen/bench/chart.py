"""The ratios as bars with their spread, and next to them what each arm costs in image quality."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OURS, SET, THEIRS, FAINT = "#2f6fb0", "#1a7f37", "#888888", "#bbbbbb"


def draw(found: dict, path: Path) -> None:
    """Write a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    arms = [arm for arm in found["arms"] if "ratio" in arm][::-1]
    is_pictures = found["about"]["task"] != "caption"
    colors = [THEIRS if arm is arms[-1] else SET if arm["name"].startswith("quality") else OURS for arm in arms]
    figure = Figure(figsize=(11, 1.9 + 0.42 * len(arms)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    speed, loss = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    _draw_speed(speed, arms, colors, "pictures" if is_pictures else "captions")
    _draw_loss(loss, arms, colors, is_pictures)
    for axes in (speed, loss):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color=FAINT, lw=0.4)
        axes.set_axisbelow(True)
    about = found["about"]
    title = f"fastgen bench {about['task']}: {about['model']}, {about['hardware']}, {about['date'][:10]}"
    figure.suptitle(f"{title}\nweights {about['weights']}", fontsize=10, x=0.01, ha="left")
    figure.savefig(path)


def _draw_speed(axes: Axes, arms: list[dict], colors: list[str], of: str) -> None:
    """Bars of the ratios with their spread, and the rates next to them."""
    places, ratios = range(len(arms)), [arm["ratio"] for arm in arms]
    spread = [
        [r - arm["ratio_least"] for r, arm in zip(ratios, arms, strict=True)],
        [arm["ratio_most"] - r for r, arm in zip(ratios, arms, strict=True)],
    ]
    axes.barh(places, ratios, color=colors, xerr=spread, error_kw={"ecolor": "#333333", "capsize": 2, "lw": 1})
    axes.axvline(1, color=THEIRS, lw=1, ls=":")
    for place, arm in zip(places, arms, strict=True):
        axes.text(
            arm["ratio_most"] + 0.02 * max(ratios),
            place,
            f"{arm['ratio']:.2f}x  ({arm['images_per_second']:.3g}/s)",
            va="center",
            fontsize=9,
        )
    axes.set_xlim(0, 1.35 * max(arm["ratio_most"] for arm in arms))
    axes.set_yticks(list(places), [arm["name"] for arm in arms])
    axes.set_xlabel(f"{of} per second, times {arms[-1]['name']}")


def _draw_loss(axes: Axes, arms: list[dict], colors: list[str], is_pictures: bool) -> None:
    """Points: what each arm costs, by the available measure."""
    values, least, most, form, title = _losses(arms, is_pictures)
    there = [(place, value) for place, value in enumerate(values) if value is not None]
    axes.set_xlabel(title)
    axes.hlines([place for place, _ in there], least, [value for _, value in there], color=FAINT, lw=1)
    axes.set_xlim(least, most + 0.15 * (most - least))
    for place, value in there:
        axes.plot(value, place, "o", color=colors[place])
        axes.text(value, place, f"  {form.format(value)}", va="center", fontsize=9)


def _losses(arms: list[dict], is_pictures: bool) -> tuple[Sequence[float | None], float, float, str, str]:
    """A value or None per arm, the ends of the axis, the format of a value, and the label of the axis."""
    if all(arm["score"] for arm in arms):
        shares = [100 * arm["score"]["share"] for arm in arms]
        of = arms[-1]["score"]["of"]
        title = f"% of images right, of {of}" if is_pictures else f"% of captions exact, of {of}"
        return shares, min(90.0, min(shares) - 2), 100.0, "{:.1f}", title
    if not is_pictures:
        same = [None if arm["same_text"] is None else 100 * arm["same_text"] for arm in arms]
        return same, 0.0, 100.0, "{:.0f}", f"% of captions that say the same as {arms[-1]['name']}"
    # There is nothing to show for the baseline, with which the others are compared.
    near = [None if arm["psnr_db"] is None else min(60.0, arm["psnr_db"]) for arm in arms]
    return near, 0.0, 60.0, "{:.0f}", f"PSNR to {arms[-1]['name']}, dB (60: as good as equal)"
