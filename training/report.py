"""What a run shows at its end: rollout.json, the same rollout as a picture and as a page, and
the words and tables that a terminal prints."""

import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from schemas.stages import stage_geometry
from training.run import write_atomic
from training.viewer import Scene, Take, Track, character_label, document, page

TRAIL = 60
"""Frames drawn in the picture: one second, enough to see a fighter move and still read its line."""
INKS = ("#d1495b", "#2b6ca3")
_CURVE_INKS = {"dream": "#2a7f62", "persistence": "#8a8f99", "constant velocity": "#c58b2a"}
_DEAD = range(11)


def write_rollout(folder: Path, scene: Scene) -> dict[str, Path]:
    """Write rollout.json, rollout.png and rollout.html into a folder; their paths by suffix."""
    contents = {
        "json": (json.dumps(document(scene), allow_nan=False) + "\n").encode(),
        "png": picture(scene),
        "html": page(scene).encode(),
    }
    paths = {suffix: folder / f"rollout.{suffix}" for suffix in contents}
    for suffix, content in contents.items():
        write_atomic(paths[suffix], content)
    return paths


def picture(scene: Scene) -> bytes:
    """A PNG: each take's first second on the stage, and the error curves below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    left, right, bottom, top = scene.view_box(TRAIL)
    width = 6.4 * len(scene.takes)
    stage_height = 6.1 * (top - bottom) / (right - left)
    figure = Figure(figsize=(width, stage_height + 3.1), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    rows, columns = 2, len(scene.takes)
    grid = figure.add_gridspec(rows, columns, height_ratios=[stage_height, 1.9])
    for n, take in enumerate(scene.takes):
        axes = figure.add_subplot(grid[0, n])
        axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", autoscale_on=False)
        _draw_take(axes, scene, take)
    _draw_curves(figure.add_subplot(grid[1, :]), scene)
    facts = "  ·  ".join(f"{name} {value}" for name, value in scene.facts.items())
    figure.suptitle(scene.title, fontsize=13, fontweight="bold")
    figure.supxlabel(facts, fontsize=9, color="#5c6370")
    content = BytesIO()
    figure.savefig(content, format="png", dpi=130, metadata={"Software": None})
    return content.getvalue()


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A plain table: the first column to the left, all others to the right."""
    lines = [list(map(str, header)), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


_METRICS = {
    "position_mae": "position MAE, units per axis",
    "velocity_mae": "velocity MAE",
    "damage_mae": "damage MAE, percent",
    "action_acc": "action accuracy",
    "change_acc": "change_acc: action right where it changes",
    "binary_acc": "binary accuracy",
}
_WHO = {
    "model": "model",
    "persistence": "persistence",
    "constant_velocity": "const. velocity",
    "state_table": "state table",
    "state_table_told": "table, told when",
}


def metrics_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """What `evaluate.validate` found: a table for each split, the baselines beside the model."""
    parts = []
    for split, scores in found.items():
        who = [name for name in _WHO if name in scores]
        rows = [
            [words, *(scores[name].get(metric) for name in who)]
            for metric, words in _METRICS.items()
        ]
        title = f"{split}: {scores['n_windows']:,} windows, loss {scores['loss']:.3f}"
        parts.append(f"{title}\n{table(['', *(_WHO[name] for name in who)], rows)}")
    return "\n\n".join(parts)


def lines(words: Mapping[str, str]) -> list[str]:
    """`name  text` lines with their texts below each other."""
    width = max(map(len, words), default=0)
    return [f"{name.ljust(width)}  {text}" for name, text in words.items()]


def count(number: float) -> str:
    """A count as people say it: 1,433,602 as 1.43 M, 812 as 812."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if number >= size:
            return f"{number / (1e3 if unit == 'k' else size):.3g} {unit}"
    return f"{number:,.0f}"


def duration(seconds: float) -> str:
    """A duration as people say it: 95 s, 12 min, 3.4 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _draw_take(axes: Any, scene: Scene, take: Take) -> None:
    shown = min(TRAIL, len(scene.frames))
    behind = "" if take is scene.takes[0] else f" (dashed: {scene.takes[0].name})"
    axes.set_title(f"{take.name}, the first {shown} frames{behind}", fontsize=10, loc="left")
    axes.set_facecolor("#f7f8fa")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#d5d9e0")
    _draw_stage(axes, scene.stage_id)
    if take is not scene.takes[0]:
        for track in scene.takes[0].sides:  # the truth, faint, to compare with
            axes.plot(track.x[:shown], track.y[:shown], color="#9aa1ad", lw=1.2, ls=(0, (2, 2)))
    for side, track in enumerate(take.sides):
        _draw_trail(axes, track, shown, INKS[side])
        _draw_fighter(axes, track, shown - 1, INKS[side])
    hud = [
        f"{character_label(scene.characters[side])}  {track.percent[shown - 1]:.0f} %"
        for side, track in enumerate(take.sides)
    ]
    for side, (words, x) in enumerate(zip(hud, (0.02, 0.98), strict=True)):
        axes.text(x, 0.03, words, transform=axes.transAxes, color=INKS[side], fontsize=10,
                  ha="right" if side else "left", fontweight="bold")  # fmt: skip


def _draw_stage(axes: Any, stage_id: int) -> None:
    from matplotlib.patches import Polygon

    stage = stage_geometry(stage_id)
    if stage is None:
        return
    axes.add_patch(Polygon([*stage.floor, *stage.body], facecolor="#d9dde5", edgecolor="none"))
    axes.plot(*zip(*stage.floor, strict=True), color="#3d4452", lw=2.2, solid_capstyle="round")
    for platform in stage.platforms:
        axes.plot([platform.left, platform.right], [platform.y, platform.y], color="#3d4452",
                  lw=2.2, ls=(0, (2, 2)) if platform.moves else "-")  # fmt: skip


def _draw_trail(axes: Any, track: Track, shown: int, ink: str) -> None:
    """The path, fading into the past, with a dot each quarter of a second."""
    from matplotlib.collections import LineCollection

    points = np.stack([track.x[:shown], track.y[:shown]], axis=1)
    pieces = np.stack([points[:-1], points[1:]], axis=1)
    alphas = np.linspace(0.15, 0.95, len(pieces))
    axes.add_collection(LineCollection(list(pieces), colors=ink, alpha=alphas, linewidths=1.8))
    axes.plot(*points[::15].T, ls="", marker="o", ms=3.2, color=ink, alpha=0.75)
    axes.plot(*points[:1].T, ls="", marker="o", ms=7, mfc="white", mec=ink, mew=1.6)


def _draw_fighter(axes: Any, track: Track, row: int, ink: str) -> None:
    """A capsule 13 units high, its tick the facing, with a circle while the shield is up."""
    from matplotlib.patches import Circle, FancyBboxPatch

    x, y = float(track.x[row]), float(track.y[row])
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    if int(track.state[row]) in _DEAD or not (left < x < right and bottom < y < top):
        return
    body = FancyBboxPatch((x - 0.4, y + 3), 0.8, 7, boxstyle="round,pad=3,rounding_size=3",
                          facecolor=ink, edgecolor="white", lw=1.2, zorder=3)  # fmt: skip
    axes.add_patch(body)
    way = -1 if track.facing[row] < 0 else 1
    axes.plot([x, x + way * 6.5], [y + 8.6] * 2, color="#15181f", lw=2, zorder=4)
    if 178 <= int(track.state[row]) <= 182:
        radius = 3 + 7 * float(track.shield[row]) / 60
        axes.add_patch(Circle((x, y + 6.5), radius, facecolor=ink, alpha=0.3, zorder=3))


def _draw_curves(axes: Any, scene: Scene) -> None:
    seconds = np.arange(1, len(scene.frames) + 1) / 60
    for curve in scene.curves:
        strong = curve.name == "dream"
        axes.plot(seconds[: len(curve.values)], curve.values, lw=2.2 if strong else 1.6,
                  color=_CURVE_INKS.get(curve.name, "#6f42a8"), label=curve.name,
                  ls="-" if strong else (0, (5, 2)))  # fmt: skip
    axes.set_title(f"position error over {scene.curves_of}", fontsize=10, loc="left")
    axes.set_xlabel("seconds dreamed", fontsize=9)
    axes.set_ylabel("units per axis", fontsize=9)
    axes.set_xlim(0, seconds[-1])
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if scene.curves:
        axes.legend(fontsize=9, frameon=False, loc="upper left")
