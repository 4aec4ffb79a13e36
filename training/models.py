"""World models: from K frames of both players and the next controllers to the next frame.

One line of MODELS a model. Modules carry the original's names, so its weights load as they are.
"""

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from schemas.errors import UnknownNameError, UsageError, nearest
from schemas.features import View
from training.mamba import K_MAX, NORM_EPS, Init, Mamba2, State, wide

# The original's names of modules and heads, where they differ from the feature's name.
SHORT_NAMES = {
    "jumps_left": "jumps",
    "hurtbox_state": "hurtbox",
    "last_attack_landed": "last_attack",
}
# Outputs of the heads that are not categorical; those of the others are NAME_logits.
OUTPUT_NAMES = {
    "continuous": "continuous_delta",
    "velocity": "velocity_delta",
    "dynamics": "dynamics_pred",
    "binary": "binary_logits",
}


def head_widths(view: View) -> dict[str, int]:
    """Width of each head's output, by the name of the head, in the order of the targets."""
    widths = {
        "continuous": 2 * len(view.core),
        "velocity": 2 * len(view.velocity),
        "dynamics": 2 * len(view.dynamics),
        "binary": 2 * len(view.binary),
    }
    for player in (0, 1):
        for feature in view.ints:
            if feature.predicted:
                widths[f"p{player}_{_short(feature.name)}"] = feature.vocab
    return widths


def _short(name: str) -> str:
    return SHORT_NAMES.get(name, name)


class WorldModel(nn.Module, ABC):
    """What all models share: embeddings of ids, and one linear head per predicted thing.

    Both players share the embedding tables. `forward` returns, by the original's names, the heads'
    outputs: changes of core and velocity and values of dynamics in the view's scale, logits else.

    glide: core and velocity have a network of their own (Motion) beside their heads, and positions
    are predicted as a difference to the last movement: constant velocity is a strong guess (a third
    of persistence's error), and this starts from it.
    """

    def __init__(self, view: View, context: int, width: int, *, glide: bool = False) -> None:
        super().__init__()
        if glide and context < 2:
            raise UsageError("a context of one frame shows no movement", "at least 2, or no glide")
        self.view, self.context = view, context
        self._embeds = [f"{_short(feature.name)}_embed" for feature in view.ints]
        for name, feature in zip(self._embeds, view.ints, strict=True):
            self.add_module(name, nn.Embedding(feature.vocab, feature.width))
        self.stage_embed = nn.Embedding(view.stage.vocab, view.stage.width)
        ids_width = 2 * sum(feature.width for feature in view.ints) + view.stage.width
        self.frame_width = view.n_float + ids_width
        self._heads = tuple(head_widths(view))
        for name, n in head_widths(view).items():
            self.add_module(f"{name}_head", nn.Linear(width, n))
        self.motion = Motion(view, self.frame_width) if glide else None
        if glide:
            _silence(self.get_submodule("continuous_head"), self.get_submodule("velocity_head"))

    @property
    def n_parameters(self) -> int:
        """Number of trained values."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, floats: Tensor, ints: Tensor, controls: Tensor) -> dict[str, Tensor]:
        """floats (B, K, F) scaled, ints (B, K, I), controls (B, C) of the frame to predict."""
        pred = self.read(self.hidden(floats, ints, controls))
        return self.moved(pred, floats[:, -2:], ints[:, -1], controls)

    def moved(
        self, pred: dict[str, Tensor], floats: Tensor, ints: Tensor, controls: Tensor
    ) -> dict[str, Tensor]:
        """The prediction of a gliding model, as others give it; that of another one as it is.

        floats: the last two frames (B, 2, F). ints (B, I): of the last one.
        """
        if self.motion is None:
            return pred
        heads = torch.cat([pred["continuous_delta"], pred["velocity_delta"]], dim=1)
        change = self.motion(heads, floats, self.embed(floats[:, -1], ints), controls)
        core, velocity = change.tensor_split([pred["continuous_delta"].shape[1]], dim=1)
        return pred | {"continuous_delta": core, "velocity_delta": velocity}

    @abstractmethod
    def hidden(self, floats: Tensor, ints: Tensor, controls: Tensor) -> Tensor:
        """The vector (B, width) that all heads read."""

    def embed(self, floats: Tensor, ints: Tensor) -> Tensor:
        """Frames as vectors: (..., F) and (..., I) -> (..., frame_width)."""
        names = (*self._embeds, *self._embeds, "stage_embed")
        ids = [self.get_submodule(name)(ints[..., i]) for i, name in enumerate(names)]
        return torch.cat([floats, *ids], dim=-1)

    def read(self, hidden: Tensor) -> dict[str, Tensor]:
        """All heads of (B, width), in float32 or wider: losses are not for half precision."""
        return {
            OUTPUT_NAMES.get(name, f"{name}_logits"): wide(
                self.get_submodule(f"{name}_head")(hidden)
            )
            for name in self._heads
        }


class Motion(nn.Module):
    """How core and velocity change, from the last two frames and the next controllers.

    A network of its own, because in a shared one the gradients of hundreds of action logits drown
    those of movements; and in game units, because a movement of one unit is 0.05 in a view's scale.
    """

    SPEED_MAX = 10.0
    """Units a frame; a respawn moves a fighter by hundreds."""

    scale: Tensor

    def __init__(self, view: View, frame_width: int, width: int = 256) -> None:
        super().__init__()
        self._core, self._velocity = view.both(view.core), view.both(view.velocity)
        names = [view.floats[i].name for i in (*view.core, *view.core)]
        self._positions = [at for at, name in enumerate(names) if name in ("x", "y")]
        scales = [view.floats[i].scale for group in (view.core, view.velocity) for i in group * 2]
        self.register_buffer("scale", torch.tensor(scales), persistent=False)
        self.net = nn.Sequential(
            nn.Linear(frame_width + len(scales) + view.n_control, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, len(scales)),
        )
        _silence(self.net[-1])

    def forward(self, heads: Tensor, floats: Tensor, frame: Tensor, controls: Tensor) -> Tensor:
        """heads (B, M) in units, floats (B, 2, F), frame (B, frame_width) -> changes (B, M) in the
        view's scale: core, then velocity."""
        moved = (floats[:, 1] - floats[:, 0])[:, self._core]
        speeds = torch.cat([moved, floats[:, 1][:, self._velocity]], dim=1) / self.scale
        speeds = speeds.clamp(-self.SPEED_MAX, self.SPEED_MAX)
        change = (heads + wide(self.net(torch.cat([frame, speeds, controls], dim=1)))) * self.scale
        glide = torch.zeros_like(change)
        glide[:, self._positions] = moved[:, self._positions]
        return change + glide


def _silence(*layers: nn.Module) -> None:
    """Let layers begin by predicting no change: unlearning noise costs hundreds of steps."""
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)


@dataclass(frozen=True)
class MlpConfig:
    """Sizes of a FrameStackMLP."""

    hidden: int = 512
    trunk: int = 256
    dropout: float = 0.1
    glide: bool = False

    def make(self, view: View, context: int) -> WorldModel:
        """A model with fresh weights."""
        return FrameStackMLP(view, context, self)


class FrameStackMLP(WorldModel):
    """K frames side by side, and the controllers, through two layers."""

    def __init__(self, view: View, context: int, config: MlpConfig) -> None:
        super().__init__(view, context, config.trunk, glide=config.glide)
        self.trunk = nn.Sequential(
            nn.Linear(context * self.frame_width + view.n_control, config.hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.trunk),
            nn.ReLU(),
            nn.Dropout(config.dropout),
        )

    def hidden(self, floats: Tensor, ints: Tensor, controls: Tensor) -> Tensor:
        """The trunk's output (B, trunk)."""
        out: Tensor = self.trunk(torch.cat([self.embed(floats, ints).flatten(1), controls], dim=1))
        return out


@dataclass(frozen=True)
class Mamba2Config:
    """Sizes of a FrameStackMamba2; `init` is the draw of the blocks' step sizes and decays."""

    d_model: int
    n_layers: int
    d_state: int = 64
    headdim: int = 64
    dropout: float = 0.1
    init: Init = "canonical"
    glide: bool = False

    def make(self, view: View, context: int) -> WorldModel:
        """A model with fresh weights.

        Raises UsageError for a context longer than the dual form's one chunk.
        """
        if context > K_MAX:
            raise UsageError(f"a context of {context} frames is too long", f"at most {K_MAX}")
        return FrameStackMamba2(view, context, self)


class Layer(nn.Module):
    """x + block(norm(x))."""

    def __init__(self, config: Mamba2Config) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(config.d_model, eps=NORM_EPS)
        self.mamba = Mamba2(
            config.d_model, d_state=config.d_state, headdim=config.headdim, init=config.init
        )

    def forward(self, x: Tensor, *, n_last: int | None = None) -> Tensor:
        """(B, K, d_model) -> (B, K, d_model), or the last n frames of it."""
        out: Tensor = self.mamba(self.norm(x), n_last=n_last)
        return out + (x if n_last is None else x[:, -n_last:])

    def step(self, x: Tensor, state: State) -> Tensor:
        """(B, d_model) -> (B, d_model), one frame further."""
        return x + self.mamba.step(self.norm(x), state)


class FrameStackMamba2(WorldModel):
    """Mamba-2 over the frames; the controllers of the next frame join just before the heads."""

    def __init__(self, view: View, context: int, config: Mamba2Config) -> None:
        super().__init__(view, context, config.d_model, glide=config.glide)
        self.frame_proj = nn.Linear(self.frame_width, config.d_model)
        self.dropout = config.dropout
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layers))
        self.final_norm = nn.RMSNorm(config.d_model, eps=NORM_EPS)
        self.ctrl_proj = nn.Linear(view.n_control, config.d_model)

    def hidden(self, floats: Tensor, ints: Tensor, controls: Tensor) -> Tensor:
        """The last frame's vector plus that of the controllers (B, d_model)."""
        x = wide(self.frame_proj(self.embed(floats, ints)))  # the residual sum stays wide
        x = functional.dropout(x, self.dropout, self.training)
        *early, last = self.layers
        for layer in early:
            x = layer(x)
        x = last(x, n_last=1)[:, 0]  # nothing reads the other frames of the last layer
        return self._condition(x, controls)

    def start(self, n_rows: int) -> list[State]:
        """Empty states for `step`, one a layer."""
        return [layer.mamba.new_state(n_rows) for layer in self._typed_layers()]

    @torch.no_grad()
    def step(
        self,
        floats: Tensor,
        ints: Tensor,
        controls: Tensor,
        states: list[State],
        *,
        before: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Take in one frame (B, F), (B, I) and predict the next, whose controllers are (B, C).

        before: the frame before, (B, F), for a model that glides; None at the first frame of all.
        Changes the states in place. Equals `forward` on all frames since `start`, not on a sliding
        window of them; a model trained on windows meets states here that it never saw.
        """
        assert not self.training, "step has no dropout: call eval() first"
        x = wide(self.frame_proj(self.embed(floats, ints)))
        for layer, state in zip(self._typed_layers(), states, strict=True):
            x = layer.step(x, state)
        pred = self.read(self._condition(x, controls))
        two = torch.stack([floats if before is None else before, floats], dim=1)
        return self.moved(pred, two, ints, controls)

    def _condition(self, x: Tensor, controls: Tensor) -> Tensor:
        out: Tensor = self.final_norm(x) + self.ctrl_proj(controls)
        return out

    def _typed_layers(self) -> list[Layer]:
        return [layer for layer in self.layers if isinstance(layer, Layer)]


MODELS: dict[str, MlpConfig | Mamba2Config] = {
    "mlp": MlpConfig(),
    "mamba2-4m": Mamba2Config(384, 4),
    "mamba2-10m": Mamba2Config(512, 6),
    "mamba2-16m": Mamba2Config(768, 4),
    # for tests and for looking at things without waiting
    "mlp-tiny": MlpConfig(hidden=64, trunk=32),
    "tiny": Mamba2Config(32, 2, d_state=16, headdim=16),
}
"""All models by the name that `--model` takes."""


def build(name: str, view: View, context: int, **changes: Any) -> WorldModel:
    """A model with fresh weights (drawn from torch's global generator).

    changes: fields of the model's config to replace (`dropout`, `init`, sizes).
    Raises UnknownNameError for the model, UsageError for a context or a field it cannot have.
    """
    if name not in MODELS:
        raise UnknownNameError(
            f"unknown model '{name}'", nearest(name, MODELS) or ", ".join(MODELS)
        )
    if context < 1:
        raise UsageError(f"a context of {context} frames is too short", "at least 1")
    config = MODELS[name]
    known = [field.name for field in dataclasses.fields(config)]
    for key in changes:
        if key not in known:
            hint = nearest(key, known) or ", ".join(known)
            raise UsageError(f"model '{name}' has no setting '{key}'", hint)
    return dataclasses.replace(config, **changes).make(view, context)
