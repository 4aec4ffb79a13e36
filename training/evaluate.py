"""From a dataset to judged weights: load the games, validate a model, dream, and write it down."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from schemas import features
from schemas.errors import EmptySelectionError, NotFoundError, RunMismatchError, UsageError
from schemas.features import View
from schemas.query import canonical, parse
from schemas.shard import Lock, Request, split_names
from training import metrics, rollout
from training.config import TrainConfig
from training.loss import Weights
from training.models import WorldModel, build
from training.pool import Batch, Pool, plan
from training.report import count, lines, metrics_table, write_rollout
from training.run import Run, read_run, write_atomic
from training.stream import Dataset, ShardStream, open_dataset
from training.viewer import Curve, Scene, Take, Track

EVAL_BATCH = 2048
LAST_VALIDATION = 16
"""The validation at the end takes so many times the windows of one on the way."""
SUBSET_SEED = 0
"""Validations look at the same windows, in every run."""
RECIPES: dict[str, tuple[dict[str, Any], Weights]] = {
    "glide": ({"glide": True}, Weights(continuous=20.0, velocity=10.0, motion_beta=0.01)),
    "original": ({}, Weights()),
}
"""recipe -> (changes to the model's config, weights of its loss). Both learn the same heads."""
CURVE_STARTS = 64
"""Dreams that an error curve is the mean of."""

Say = Callable[[str], None]
SHOWN_FRAMES = 120
"""Of a dream, as far as the picture's choice looks: a death would be most of what one sees."""
OUT_OF_PLAY = (*range(14), 322, 323, 324)
"""Action states of dying, respawning and entering the stage (reference: Slippi's action states)."""
STARTS_LOOKED_AT = 40

Progress = Callable[[float, float | None, str], None]


@dataclass(frozen=True)
class Data:
    """The games of a run: training and validation windows, and what was left aside."""

    dataset: Dataset
    view: View
    train: Pool
    val: Pool
    games: Counter[str]
    stream: ShardStream

    @property
    def dataset_id(self) -> str:
        """Id of the dataset, equal on every machine."""
        return self.dataset.manifest.dataset_id

    @cached_property
    def state_table(self) -> metrics.StateTable:
        """How often each action state follows each in the training games."""
        table = metrics.StateTable(self.view)
        columns = [0, len(self.view.ints)]
        for number, game in enumerate(self.train.games):
            states = torch.from_numpy(self.train.frames(number).ints[:, columns].astype("int64"))
            for start, stop in game.runs:
                run = states[start - game.start : stop - game.start]
                table.add(run[:-1], run[1:])
        return table

    def words(self) -> dict[str, str]:
        """For the header: which games, how many windows, what was made up or left aside."""
        found, games = self.dataset.manifest, self.games
        memory = (self.train.bytes + self.val.bytes) / 1e6
        made_up = self.train.missing + self.val.missing
        short = sum(not game.n_windows for game in (*self.train.games, *self.val.games))
        lost = [f"{game.game_id} ({game.reason})" for game in self.stream.stats.skipped]
        words = {
            "query": f"{found.query or 'everything'} "
            f"(dataset {self.dataset_id[:8]}, snapshot {found.snapshot})",
            "games": f"{found.games:,} with {found.frames:,} frames, seen from "
            f"{found.perspectives:,} sides: {games['train']:,} games train, "
            f"{games['val']:,} validate, {games['test']:,} are left for tests",
            "windows": f"{self.train.n_windows:,} for training, {self.val.n_windows:,} for "
            f"validation, in {memory:,.0f} MB of memory",
            "no validation": ""
            if self.val.n_windows
            else "too few games: all figures are of training games",
            "stand-ins": f"for what old replays lack: {_listed(made_up)}" if made_up else "",
            "too short": f"{short:,} perspectives have no window" if short else "",
            "not read": ", ".join(lost),
        }
        return {name: text for name, text in words.items() if text}


def load_data(run: Run, progress: Progress) -> Data:
    """Stream the run's games into memory; the first time their lock is written into the folder.

    Raises UsageError, before anything is streamed, for a device that is not here,
    EmptySelectionError where nothing matches, LimitError where it does not fit into memory.
    """
    config = run.config
    device_of(config)
    dataset = _open(run)
    if not dataset.members:
        raise EmptySelectionError(f"no game matches {dataset.manifest.query or 'the dataset'}")
    view = features.view(config.view)
    members = dataset.members
    names = split_names([m.bucket for m in members], [m.natural_key for m in members])
    split = {member.game_id: name for member, name in zip(members, names, strict=True)}
    pools = {}
    for name in ("train", "val"):
        sized = plan([m for m in members if split[m.game_id] == name], view, config.context)
        pools[name] = Pool(view, config.context, sized.rows)
    wanted = [m for m in members if split[m.game_id] in pools]
    plan(wanted, view, config.context).require()
    stream = ShardStream(dataset, games=[m.game_id for m in wanted])
    for n, game in enumerate(stream.games(view), 1):
        pools[split[game.member.game_id]].add(game.member.game_id, game.table, game.member.sides)
        progress(n, len(wanted), "games loaded")
    if not pools["train"].n_windows:
        raise EmptySelectionError(
            f"no game has {config.context + 1} frames in a row to train on",
            "another query, or a shorter --context",
        )
    return Data(dataset, view, pools["train"], pools["val"], Counter(names), stream)


def device_of(config: TrainConfig) -> torch.device:
    """The device that the settings name; `auto` is the GPU where there is one.

    Raises UsageError for one that torch does not know or that is not here.
    """
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        reason = str(error).partition("\n")[0]
        raise UsageError(f"device '{name}' cannot be used: {reason}", "auto or cpu") from error
    return device


def validate(
    model: WorldModel, data: Data, config: TrainConfig, *, n_windows: int
) -> dict[str, Any]:
    """Metrics of model and baselines on fixed windows, `validation` and `train` apart.

    Both without dropout, so that their difference is what the model learned by heart.
    """
    device = next(model.parameters()).device
    pools = {"validation": data.val, "train": data.train}
    return {
        name: metrics.evaluate(
            model,
            _subset(pool, n_windows, device),
            table=data.state_table,
            weights=RECIPES[config.recipe][1],
        )
        for name, pool in pools.items()
        if pool.n_windows
    }


def finish(
    run: Run, data: Data, model: WorldModel, *, step: int, say: Say, judged_again: bool = False
) -> dict[str, Any]:
    """The last validation and the rollout; writes result.json, the picture and the page.

    judged_again: write eval.json instead, and nothing into the log: result.json says that the run
    is finished, and a run may be judged in the middle, or while it goes on.
    """
    found = validate(model, data, run.config, n_windows=run.config.val_windows * LAST_VALIDATION)
    scene = draw_scene(model, data, run.config, step=step, say=say)
    files = {} if scene is None else write_rollout(run.path, scene)
    table = metrics_table(found)
    write_atomic(run.path / "report.txt", (table + "\n").encode())
    result = {"step": step, **found, "files": {k: path.name for k, path in files.items()}}
    if judged_again:
        run.write_json("eval.json", result)
    else:
        run.log(step=step, **found)
        run.write_json("result.json", result)
    say(table)
    if files:
        say(f"truth beside dream: {files['png']} and {files['html']}")
    return result


def evaluate_run(
    path: Path,
    *,
    url: str | None = None,
    shards: str | None = None,
    say: Say = lambda _: None,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Judge the last checkpoint of a run again: `finish` on the very games of its lock.

    Raises NotFoundError for a folder without run or checkpoint, RunMismatchError where the view's
    features are no longer those that it was trained with.
    """
    run = read_run(path)
    run.config = replace(run.config, url=url, shards=shards or (None if url else run.config.shards))
    checkpoint = run.newest()
    if checkpoint is None or not run.dataset_lock.exists():
        raise NotFoundError(f"{path} has no checkpoint yet", "train it first")
    torch.set_num_threads(run.config.threads)
    hash_now = features.view(run.config.view).hash
    if (trained := checkpoint.state.get("view_hash")) != hash_now:
        raise RunMismatchError(f"{path} was trained with view_hash {trained}, not {hash_now}")
    data = load_data(run, progress)
    model = build_model(run.config, data.view)
    model.load_state_dict(dict(checkpoint.model))
    for line in (*run.warnings, *lines(data.words())):
        say(line)
    model.to(device_of(run.config))
    return finish(run, data, model, step=checkpoint.step, say=say, judged_again=True)


def build_model(config: TrainConfig, view: View) -> WorldModel:
    """The model of these settings, with the initial weights of their seed."""
    torch.manual_seed(config.seed)
    changes, _ = RECIPES[config.recipe]
    return build(config.model, view, config.context, **changes)


def draw_scene(
    model: WorldModel, data: Data, config: TrainConfig, *, step: int, say: Say
) -> Scene | None:
    """A dream of a validation game (of a training game where there is none) beside the truth.

    None, and the reason said, where nothing can be dreamed.
    """
    pool, split = (data.val, "validation") if data.val.n_windows else (data.train, "training")
    starts = _starts(pool, config.context + config.rollout_frames)
    try:
        rollout.check_dreamable(data.view)
    except UsageError as error:
        say(f"no picture: {error}")
        return None
    if not starts or not config.rollout_frames:
        say(f"no picture: no {split} game has {config.rollout_frames} frames in a row to dream")
        return None
    number, row = _shown_start(pool, starts, config)
    game = pool.games[number]
    told = rollout.rollout(
        model, pool.frames(number), start=row - game.start, n_frames=config.rollout_frames
    )
    seen = slice(told.n_seed, None)
    takes = tuple(
        Take(name, (_track(told, 0, name, seen), _track(told, 1, name, seen)))
        for name in ("truth", "dream")
    )
    return Scene(
        game_id=game.game_id,
        stage_id=told.stage,
        characters=told.characters,
        frames=told.frame[seen],
        takes=takes,
        facts={"model": config.model, "view": config.view, "step": f"{step:,}",
               "game": f"{game.game_id[:8]} ({split})", "mode": told.mode},
        curves=_curves(model, pool, starts, config),
        curves_of=f"{min(len(starts), CURVE_STARTS)} {split} starts",
    )  # fmt: skip


def _listed(frames: Counter[str]) -> str:
    most = ", ".join(f"{name} {count(n)}" for name, n in frames.most_common(4))
    return f"{most} and {len(frames) - 4} more features" if len(frames) > 4 else most


def _open(run: Run) -> Dataset:
    """The dataset of the folder's lock whatever was ingested since; at the first start, the
    query's."""
    config = run.config
    lock = Lock.from_json(run.dataset_lock.read_bytes()) if run.dataset_lock.exists() else None
    request = Request(
        query=config.query,
        snapshot=config.snapshot,
        limit=config.limit,
        recordings=config.recordings,
    )
    dataset = open_dataset(config.url, request=request, lock=lock, shards=config.shards)
    manifest = dataset.manifest
    if config.query is not None and canonical(parse(config.query)) != manifest.query:
        raise RunMismatchError(f"the shards hold {manifest.query!r}, not {config.query!r}")
    if lock is None:
        games = tuple(member.listed for member in dataset.members)
        asked = replace(manifest.request, snapshot=manifest.snapshot)
        lock = Lock(asked, manifest.dataset_id, manifest.query, games, manifest.frames)
        write_atomic(run.dataset_lock, lock.to_json().encode())
    return dataset


def _subset(pool: Pool, n_windows: int, device: torch.device) -> Iterator[Batch]:
    """Batches of the same n windows each time, spread over the whole pool."""
    generator = torch.Generator().manual_seed(SUBSET_SEED)
    chosen = torch.randperm(pool.n_windows, generator=generator)[:n_windows].sort().values
    for part in torch.split(chosen, EVAL_BATCH):
        yield pool.batch(part).to(device)


def _starts(pool: Pool, length: int) -> list[tuple[int, int]]:
    """(game, first row in the pool) of stretches of that many rows, one after the other."""
    return [
        (number, row)
        for number, game in enumerate(pool.games)
        for start, stop in game.runs
        for row in range(start, stop - length + 1, length)
    ]


def _shown_start(pool: Pool, starts: list[tuple[int, int]], config: TrainConfig) -> tuple[int, int]:
    """The start nearest to the middle from which both fight on for long; figures take them all."""
    middle = len(starts) // 2
    states = [0, len(pool.view.ints)]

    def out_of_play(start: tuple[int, int]) -> int:
        number, row = start
        at = row - pool.games[number].start
        shown = pool.frames(number).ints[at : at + config.context + SHOWN_FRAMES, states]
        return int((np.isin(shown, OUT_OF_PLAY)).sum())

    by_distance = sorted(range(len(starts)), key=lambda n: abs(n - middle))
    return min((starts[n] for n in by_distance[:STARTS_LOOKED_AT]), key=out_of_play)


def _curves(
    model: WorldModel, pool: Pool, starts: list[tuple[int, int]], config: TrainConfig
) -> tuple[Curve, ...]:
    """Mean error at each horizon, of the dream and of what knows nothing."""
    chosen = starts[:: max(1, len(starts) // CURVE_STARTS)][:CURVE_STARTS]
    length = config.context + config.rollout_frames
    device = next(model.parameters()).device
    floats, ints = [], []
    for number, row in chosen:
        at = row - pool.games[number].start
        rows = pool.frames(number)
        floats.append(torch.from_numpy(rows.floats[at : at + length]))
        ints.append(torch.from_numpy(rows.ints[at : at + length].astype(np.int64)))
    truth, n_seed = torch.stack(floats).to(device), config.context
    dreamed, _ = rollout.dream(model, truth, torch.stack(ints).to(device))
    guesses = {
        "dream": dreamed,
        "persistence": rollout.stand(truth, n_seed),
        "constant velocity": rollout.glide(model.view, truth, n_seed),
    }
    return tuple(
        Curve(name, rollout.position_error(model.view, guess, truth, n_seed).cpu().numpy())
        for name, guess in guesses.items()
    )


def _track(told: rollout.Rollout, side: int, name: str, seen: slice) -> Track:
    """One side of truth or dream as the viewer takes it; both had the true controllers."""
    player, pad = getattr(told, name)[side], told.controllers[side]
    return Track(
        x=player.position_x[seen],
        y=player.position_y[seen],
        percent=player.percent[seen],
        stocks=player.stocks[seen],
        shield=player.shield[seen],
        facing=player.direction[seen],
        state=player.state[seen],
        stick_x=pad["main_x"][seen],
        stick_y=pad["main_y"][seen],
    )
