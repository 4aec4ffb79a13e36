"""Train on Modal: one function around the loop of training.train, resumed by Modal's own retries.

    modal run training/modal_app.py --query "char='fox'" --url https://... --gpu H100

Imports without an account; `train_run.local(...)` runs the very body on this machine.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import modal

from schemas.errors import TrainingError, UsageError

_UNUSED = ["**/__pycache__/**"]
RUNS = Path("/runs")
GPUS = ("T4", "L4", "A10", "A100", "A100-40GB", "A100-80GB", "L40S", "H100", "H200", "B200")
"""What Modal names; it does not check a name before the container is asked for."""
HOUR_S = 3600
_PACKAGES = ("torch", "numpy", "pyarrow", "rich", "safetensors", "webdataset", "matplotlib")


def image() -> modal.Image:
    """The versions that are installed here, so that a run there is the run that was tried here."""
    pinned = [f"{name}=={version(name).partition('+')[0]}" for name in _PACKAGES]
    built = modal.Image.debian_slim(python_version="3.11").uv_pip_install(*pinned)
    # Sources last: no rebuild. Ours have JSON and HTML beside the code, which Modal would drop.
    return built.add_local_python_source("schemas", "training", ignore=_UNUSED)


app = modal.App("meleewm-training")
runs = modal.Volume.from_name("meleewm-runs", create_if_missing=True, version=2)


@app.function(
    image=image(),
    gpu="H100",
    cpu=4,
    memory=32_768,
    timeout=24 * HOUR_S,  # of one attempt: a retry begins it anew
    retries=modal.Retries(max_retries=10, initial_delay=60.0),
    single_use_containers=True,  # a fresh CUDA context after a crash
    volumes={str(RUNS): runs},
)
def train_run(settings: dict[str, Any], name: str | None = None) -> dict[str, Any]:
    """Train with these settings (training.config) in the volume's folder `name`; its result.

    The same settings go on where an earlier attempt was stopped, whoever started it. Raises
    TrainingError after a stop by a signal, so that Modal's retry takes over.
    """
    from training.config import from_dict
    from training.train import train

    config = from_dict(settings)
    if not modal.is_local():
        runs.reload()
        config = from_dict({**settings, "run_dir": str(RUNS / (name or config.folder.name))})
    ended = train(config, say=print, saved=_commit)
    _commit()
    if ended.exit_code:
        raise TrainingError(f"stopped at step {ended.step} of {ended.total}", "a retry goes on")
    return {"folder": str(ended.path), "step": ended.step, "result": ended.result}


@app.local_entrypoint()
def main(query: str, url: str, gpu: str = "H100", steps: int = 0, model: str = "mamba2-4m") -> None:
    """Start a run there and wait for it; `--detach` of `modal run` lets it go on without us."""
    settings: dict[str, Any] = {"query": query, "url": url, "model": model}
    if steps:
        settings["steps"] = steps
    train_run.with_options(gpu=checked_gpu(gpu)).remote(settings)


def checked_gpu(gpu: str) -> str:
    """A GPU as Modal names it, with an optional count (`H100:2`); UsageError for another one."""
    name, _, number = gpu.partition(":")
    if name.rstrip("!") not in GPUS or (number and number not in "12345678"):
        raise UsageError(f"Modal has no GPU '{gpu}'", f"one of {', '.join(GPUS)}")
    return gpu


def _commit() -> None:
    """Make a checkpoint outlive the container; here there is no volume to commit."""
    if not modal.is_local():
        runs.commit()
