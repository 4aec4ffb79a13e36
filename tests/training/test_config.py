"""Settings: what names a run, what is refused, and with which words."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from schemas.errors import UsageError, UserError
from training.config import (
    DEFAULT_STEPS,
    TrainConfig,
    differences,
    from_dict,
    from_file,
    role_of,
    steps_per_epoch,
)

FOX = TrainConfig(query="char='fox'")


def test_every_setting_explains_itself_and_has_a_role() -> None:
    for setting in fields(TrainConfig):
        assert setting.metadata["help"]
        assert role_of(setting.name) in ("identity", "place", "pace")


def test_run_folder_follows_from_what_decides_the_weights() -> None:
    assert FOX.folder.parts[0] == "runs"
    assert FOX.folder.name == f"mlp-v22-state-age-{FOX.digest}"
    for other in (
        replace(FOX, url="http://127.0.0.1:1"),
        replace(FOX, keep=9, checkpoint_s=1.0, device="cpu", threads=1),
        replace(FOX, steps=DEFAULT_STEPS),
        replace(FOX, query=" char  = 'fox'"),
    ):
        assert other.digest == FOX.digest
    for other in (replace(FOX, lr=3e-3), replace(FOX, query="char='falco'"), replace(FOX, seed=1)):
        assert other.digest != FOX.digest
    assert replace(FOX, run_dir="here").folder == Path("here")


def test_a_lock_counts_by_its_content(tmp_path: Path) -> None:
    one, two, three = tmp_path / "a.lock", tmp_path / "b.lock", tmp_path / "c.lock"
    for path, text in ((one, "x"), (two, "x"), (three, "y")):
        path.write_text(text)
    digests = [TrainConfig(dataset=str(path)).digest for path in (one, two, three)]
    assert digests[0] == digests[1] != digests[2]
    with pytest.raises(UsageError, match="cannot read"):
        _ = TrainConfig(dataset=str(tmp_path / "none.lock")).digest


def test_file_round_trip_and_changes(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(replace(FOX, lr=3e-4).to_dict()))
    assert from_file(path) == replace(FOX, lr=3e-4)
    assert from_file(path, seed=7).seed == 7


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"query": "char='fox'", "bacth": 3}, "unknown setting 'bacth' \\(nearest: batch"),
        ({"query": "char='fox'", "batch": "3"}, "batch is '3' \\(int is expected"),
        ({"query": "char='fox'", "steps": True}, "steps is True \\(int or null"),
        ({"query": "char='fox'", "batch": 0}, "batch is 0 \\(it must be at least 1"),
        ({"query": "char='fox'", "lr": 0}, "lr is 0 \\(it must be above 0"),
        ({"query": "char='fox'", "lr": float("nan")}, "lr is nan"),
        ({"query": "char='fox'", "warmup": 1.0}, "warmup is 1.0"),
        ({"query": "char='fox'", "steps": 1, "epochs": 1}, "steps and epochs together"),
        ({"query": "char='fox'", "dataset": "y"}, "query and dataset together"),
        ({"query": "char='fox'", "url": "u", "shards": "s"}, "url and shards together"),
        ({"dataset": "x.lock", "limit": 3}, "limit and dataset together"),
        ({"shards": "s", "snapshot": 1}, "snapshot and shards together"),
        ({"query": "char='fox'", "recordings": "two"}, "recordings is 'two'"),
        ({}, "no games chosen"),
        ({"query": "char='fxo'"}, "unknown character 'fxo' \\(nearest: fox"),
        ({"query": "char='fox'", "view": "v22-state-aeg"}, "nearest: v22-state-age"),
    ],
)
def test_refusals_name_the_setting(values: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        from_dict(values)


def test_refuses_files_that_hold_no_settings(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text("{")
    with pytest.raises(UsageError, match="is not JSON"):
        from_file(path)
    path.write_text("[]")
    with pytest.raises(UsageError, match="holds no settings"):
        from_file(path)


def test_steps_of_a_run() -> None:
    assert steps_per_epoch(1025, 512) == 3
    assert FOX.n_steps(10) == DEFAULT_STEPS
    assert replace(FOX, steps=7).n_steps(10) == 7
    assert replace(FOX, epochs=2).n_steps(1025) == 6


def test_differences_are_words() -> None:
    assert differences(FOX.identity(), FOX) == []
    assert differences(FOX.identity(), replace(FOX, lr=0.01)) == ["lr 0.002 -> 0.01"]
