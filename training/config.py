"""What a run is: the model, its data, its mesh, and how it is trained."""

import dataclasses
from typing import Any, Literal

from cluster.config import WatchConfig
from data.config import DataConfig
from model.config import ModelConfig
from model.generation import Sampling
from sharding.config import MeshConfig
from training.objectives.config import ObjectiveConfig
from training.tuning import TuningConfig

Schedule = Literal["cosine", "wsd", "constant"]
OptimizerName = Literal["adamw", "muon", "adafactor", "lion"]


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its learning rate.

    Attributes:
      name: "adamw" (Loshchilov & Hutter 2019); "muon" (Jordan et al. 2024) on the matrices of the
        blocks, scaled so that it takes AdamW's learning rate, with AdamW on the rest; "adafactor"
        (Shazeer & Stern 2018), whose state is small; "lion" (Chen et al. 2023), which wants a
        learning rate of a fifth to a tenth of AdamW's and more weight decay.
      learning_rate: the peak.
      schedule: after a linear warm-up, "cosine" to final_fraction x peak at the last step; "wsd":
        warm-up, stable, then a linear decay to final_fraction x peak over the last decay_steps
        (Hu et al. 2024); "constant".
      warmup_steps: steps of the warm-up; the first step already has learning_rate / warmup_steps.
      decay_steps: length of the decay of "wsd".
      final_fraction: of the peak, at the last step.
      beta1, beta2, eps: Adam's; the first two also Lion's.
      momentum: Muon's.
      weight_decay: on matrices and embeddings, not on norm scales and biases.
      clip_norm: gradients are scaled down to this global norm; 0 is off.
      offload: between steps its state waits in the memory of the hosts.
    """

    name: OptimizerName = "adamw"
    learning_rate: float = 1e-3
    schedule: Schedule = "cosine"
    warmup_steps: int = 100
    decay_steps: int = 0
    final_fraction: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    momentum: float = 0.95
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    offload: bool = False

    def __post_init__(self) -> None:
        for name in ("warmup_steps", "decay_steps", "weight_decay", "clip_norm"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate={self.learning_rate}: must be positive")
        for name in ("beta1", "beta2", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must lie in [0, 1)")
        if self.schedule == "wsd" and not self.decay_steps:
            raise ValueError("decay_steps=0: the wsd schedule needs the length of its decay")
        if not 0 <= self.final_fraction <= 1:
            raise ValueError(f"final_fraction={self.final_fraction}: must lie in [0, 1]")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long, how much at a time, from which seed.

    Attributes:
      steps: optimizer steps of the whole run.
      batch_size: sequences of one optimizer step, over all devices and accumulation.
      accumulation: microbatches a step is computed in; changes memory, not the result.
      seed: of the initial parameters. (data.seed orders the data.)
      z_loss: weight of log(Z)^2 a token, which keeps logits from drifting (PaLM); 0 is off.
      start_from: a workdir, of a run or of convert.py, whose newest checkpoint has the parameters
        that the run begins with, in the place of `seed`; its model is that of the run (see
        configs/start_from.py). Empty: none.
    """

    steps: int = 1000
    batch_size: int = 32
    accumulation: int = 1
    seed: int = 0
    z_loss: float = 0.0
    start_from: str = ""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulation"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"accumulation={self.accumulation} does not divide batch_size={self.batch_size}"
            )
        if self.z_loss < 0:
            raise ValueError(f"z_loss={self.z_loss}: must not be negative")


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Evaluation on the held-out split, during the run and at its end.

    Attributes:
      every: steps between evaluations during the run; 0 is only at the end.
      max_tokens: budget of each evaluation during the run, for each corpus of a mixture; the last
        one covers the whole splits.
      batch_size: sequences at a time.
      stride: tokens between the starts of successive windows of a long document; a smaller
        stride gives every token more context and costs more. 0 is half the sequence length.
      examples: of each task's eval split, that the model is judged by in its own metrics at each
        evaluation, the last one included; 0 is none. (eval.py --task takes all of them.)
    """

    every: int = 0
    max_tokens: int = 100_000
    batch_size: int = 32
    stride: int = 0
    examples: int = 0

    def __post_init__(self) -> None:
        least_of = {"every": 0, "max_tokens": 1, "batch_size": 1, "stride": 0, "examples": 0}
        for name, least in least_of.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least {least}")


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Attributes:
    every: steps between checkpoints; one is always saved at the end and on a signal.
    keep: how many of the newest stay.
    """

    every: int = 500
    keep: int = 3

    def __post_init__(self) -> None:
        for name in ("every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """Attributes:
    prompts: what the samples in the report continue.
    max_tokens, temperature, top_p: how (see generate.py).
    """

    prompts: tuple[str, ...] = ()
    max_tokens: int = 200
    temperature: float = 0.8
    top_p: float = 0.95

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens={self.max_tokens}: must be at least 1")
        Sampling(temperature=self.temperature, top_p=self.top_p)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A whole run. `configs/` holds one file a run; `configs/door.py` makes this of it."""

    model: ModelConfig
    data: DataConfig
    mesh: MeshConfig = MeshConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    tuning: TuningConfig = TuningConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    report: ReportConfig = ReportConfig()
    watch: WatchConfig = WatchConfig()

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, as saved with a checkpoint."""
        return dataclasses.asdict(self)
