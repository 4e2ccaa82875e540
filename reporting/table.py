"""The metrics: one row for each, from which the report, its charts and the progress line follow.

A metric is named where it is computed (training/step.py, reporting/recorder.py or
evaluation/held_out.py) and here. One without a row is in the files all the same, and in the report
under its plain name: a name in a row makes it readable.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """How one metric is written and drawn.

    Attributes:
      title: of its chart; "" draws none.
      on: the metric on whose chart it is a second line; "" is a chart of its own.
      label: of its line, in a legend and under the pointer.
      number: writes a value for a reader of the report.
      live: writes it in the progress line; None leaves it out.
      smooth: drawn pale, with its running mean over it.
      log: on a logarithmic axis.
      zero: on an axis that starts at zero.
      wide: the chart is as wide as the page.
      baselines: the chart shows the baselines of the data too.
      some: of some models alone: where there are no values, nothing is missing.
    """

    title: str = ""
    on: str = ""
    label: str = "training"
    number: Callable[[float], str] = "{:,.4g}".format
    live: Callable[[float], str] | None = None
    smooth: bool = True
    log: bool = False
    zero: bool = False
    wide: bool = False
    baselines: bool = False
    some: bool = False


def short(value: float) -> str:
    """A number to two or three digits: "0.42", "7.3", "512", "2.1k", "35k", "1.3M"."""
    for scale, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * scale:
            value /= scale
            return f"{value:.1f}{letter}" if abs(value) < 9.95 else f"{value:.0f}{letter}"
    return f"{value:.2g}" if abs(value) < 9.95 else f"{value:.0f}"


_bits, _percent = "{:.3f}".format, "{:.2f}%".format

# The order is that of the charts and of the progress line, whose last parts go first where a
# terminal is narrow.
TABLE: Mapping[str, Metric] = {
    # Of the step, on the devices, and what follows from it.
    "loss": Metric(
        "Loss, nats a token", number="{:.4f}".format, live="loss {:.3f}".format, log=True, wide=True
    ),
    "bits_per_byte": Metric(
        "Bits per byte", number=_bits, live="{:.2f} bits/byte".format, log=True, baselines=True
    ),
    "task_loss": Metric(
        "Loss, nats a token, mean over tasks",
        number="{:.4f}".format,
        live="tasks {:.3f}".format,
        log=True,
        some=True,
    ),
    "perplexity": Metric(),
    "grad_norm": Metric("Gradient norm", label="norm", log=True),
    "learning_rate": Metric("Learning rate", label="rate", smooth=False, zero=True),
    "param_norm": Metric("Parameter norm", label="norm"),
    "z_loss": Metric("Squared log of the softmax's normalizer", label="log(Z)²", zero=True),
    "distill_loss": Metric(
        "Divergence from the teacher, nats a token, x temperature²",
        number="{:.4f}".format,
        live="teacher {:.3f}".format,
        zero=True,
        some=True,
    ),
    "preference_loss": Metric(
        "Loss of a pair",
        number="{:.4f}".format,
        live="preferences {:.3f}".format,
        zero=True,
        some=True,
    ),
    "accuracy": Metric(
        "Pairs whose better answer has the higher reward, ties half",
        number="{:.3f}".format,
        live="accuracy {:.2f}".format,
        zero=True,
        some=True,
    ),
    "margin": Metric("Difference of the rewards of a pair", live="margin {:.3f}".format, some=True),
    "reward_chosen": Metric("Rewards", label="better answer", some=True),
    "reward_rejected": Metric(on="reward_chosen", label="other answer"),
    "log_prob_chosen": Metric("Log-probability of an answer, nats", label="better", some=True),
    "log_prob_rejected": Metric(on="log_prob_chosen", label="other"),
    "balance_loss": Metric("Load-balancing loss of the experts, 1 if all have as much", some=True),
    "router_z_loss": Metric(
        "Squared log of the routers' normalizer", label="log(Z)²", zero=True, some=True
    ),
    "expert_load_max": Metric(
        "Tokens of an expert, relative to the mean of its layer",
        label="busiest",
        zero=True,
        some=True,
    ),
    "expert_load_min": Metric(on="expert_load_max", label="idlest"),
    "tokens": Metric(),
    # Of the clock.
    "time/tokens_per_s": Metric(
        "Tokens a second",
        label="tokens/s",
        number="{:,.0f}".format,
        live=lambda value: f"{short(value)} tok/s",
        zero=True,
    ),
    "time/wait_percent": Metric(
        "Waiting for data, % of the step",
        label="waiting",
        number=_percent,
        live="wait {:.1f}%".format,
        zero=True,
    ),
    "time/mfu_percent": Metric(
        "Of the devices' peak FLOP/s, %", label="MFU", number=_percent, zero=True
    ),
    "time/tflops": Metric(),
    "time/step_s": Metric(),
    # Of the held-out split.
    "eval/loss": Metric(on="loss", label="held out", number="{:.4f}".format, smooth=False),
    "eval/task_loss": Metric(
        on="task_loss", label="held out", number="{:.4f}".format, smooth=False, some=True
    ),
    "eval/bits_per_byte": Metric(on="bits_per_byte", label="held out", number=_bits, smooth=False),
    "eval/perplexity": Metric(number="{:,.2f}".format),
    "eval/tokens": Metric(),
    "eval/bytes": Metric(),
    "eval/preference_loss": Metric(on="preference_loss", label="held out", smooth=False),
    "eval/accuracy": Metric(on="accuracy", label="held out", smooth=False),
    "eval/margin": Metric(on="margin", label="held out", smooth=False),
    "eval/reward_chosen": Metric(on="reward_chosen", label="better, held out", smooth=False),
    "eval/reward_rejected": Metric(on="reward_chosen", label="other, held out", smooth=False),
    "eval/log_prob_chosen": Metric(on="log_prob_chosen", label="better, held out", smooth=False),
    "eval/log_prob_rejected": Metric(on="log_prob_chosen", label="other, held out", smooth=False),
    "eval/pairs": Metric(),
    "time/eval_s": Metric(),
}


def metric(name: str) -> Metric:
    """The row of a metric; for one that has none, a plain chart under its name.

    "loss/NAME" and "eval/loss/NAME" are of a corpus, and written as what they are parts of;
    "task/..." is of a task.
    """
    if name.startswith("loss/"):
        title = f"Loss of {name.removeprefix('loss/')}, nats a token"
        return dataclasses.replace(TABLE["loss"], title=title, live=None, wide=False)
    if name.startswith("eval/loss/"):
        return dataclasses.replace(TABLE["eval/loss"], on=name.removeprefix("eval/"))
    if name.startswith("task/"):
        return _of_task(name)
    if name == "time/tasks_s":
        return Metric()
    return TABLE.get(name) or Metric(name, label=name)


def _of_task(name: str) -> Metric:
    """Of "task/TASK/METRIC", on whose chart are "/low" and "/high", the ends of its interval."""
    number = "{:.1f}".format
    for end in ("low", "high"):
        if name.endswith(f"/{end}"):
            on = name.removesuffix(f"/{end}")
            return Metric(on=on, label=f"95 %, {end}", number=number, smooth=False)
    task, _, what = name.removeprefix("task/").rpartition("/")
    title = f"{what.replace('_', ' ')} of {task or 'the tasks, each by its first metric'}, 0 to 100"
    return Metric(title, label=what, number=number, smooth=False, zero=True)
