"""Checkpoints: saved asynchronously, published whole or not at all, readable on any mesh."""

import contextlib
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from errors import UserError
from model.parameters import Params
from sharding.layer_order import LayerOrder, on_host
from training.fields import flat
from training.state import TrainState


class Checkpoints:
    """The checkpoints of a run, one directory a step.

    A checkpoint holds three items: `params` (those that move), `optimizer` (Optax's state) and
    `run` (JSON: the config, the cursor, what the data was). Arrays are stored per parameter,
    whatever the mesh, and layers in the order of depth, whatever their order in memory.
    Orbax writes into a temporary directory and renames it: what has a step's name is complete.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        keep: int | None = None,
        timeout_s: float = 1800,
        order: LayerOrder | None = None,
    ) -> None:
        """Opens them to read, or, with `keep`, also to save.

        Args:
          workdir: of the run.
          keep: how many of the newest stay.
          timeout_s: of one save in the background.
          order: of the layers of states; None is that of depth.
        """
        self._workdir, self._order = workdir, order
        self._manager = ocp.CheckpointManager(
            epath.Path(workdir) / "checkpoints",
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                create=keep is not None,
                cleanup_tmp_directories=keep is not None,
                async_options=ocp.AsyncOptions(timeout_secs=round(timeout_s)),
            ),
        )

    def latest(self) -> int | None:
        """The newest complete step, or None."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """The complete steps, oldest first."""
        return sorted(self._manager.all_steps())

    def resolve(self, step: int | None) -> int:
        """`step`, or the newest one.

        Raises:
          UserError: there is no such checkpoint.
        """
        have = self.steps()
        if not have:
            raise UserError(
                f"no checkpoint in {self._workdir}: train.py --workdir={self._workdir} makes one"
            )
        if step is not None and step not in have:
            listed = ", ".join(map(str, have))
            raise UserError(f"no checkpoint of step {step} in {self._workdir}; it has {listed}")
        return have[-1] if step is None else step

    def save(self, step: int, state: TrainState, run: dict[str, Any]) -> None:
        """Starts saving; returns once the state is copied off the devices (it may be donated)."""
        if self._order is not None:
            state = self._order.by_depth(state, on_host)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(state.params),
                optimizer=ocp.args.StandardSave(state.opt_state),
                run=ocp.args.JsonSave(run),
            ),
        )

    def run(self, step: int) -> dict[str, Any]:
        """What was saved as `run` with this step."""
        restored = self._manager.restore(step, args=ocp.args.Composite(run=ocp.args.JsonRestore()))
        return restored["run"]

    def params(self, step: int, abstract: Params) -> Params:
        """Of the parameters of a step those that `abstract` has, placed as it says; optimizer state
        stays on disk.

        Raises:
          UserError: the checkpoint lacks one.
        """
        args = ocp.args.PyTreeRestore(
            abstract,
            restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
            partial_restore=True,
        )
        # One of its own: a manager reads an item in one way alone.
        with ocp.CheckpointManager(epath.Path(self._workdir) / "checkpoints") as manager:
            params: Params = manager.restore(step, args=ocp.args.Composite(params=args))["params"]
        # What is not there Orbax leaves as it was asked for.
        if missing := [path for path, x in flat(params).items() if not isinstance(x, jax.Array)]:
            raise UserError(
                f"the checkpoint of step {step} in {self._workdir} has no {', '.join(missing)}: it "
                "is of another model than its record says, or damaged"
            )
        return params

    def state(self, step: int, abstract: TrainState) -> TrainState:
        """The whole state of a step, placed as `abstract` says."""
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardRestore(abstract.params),
                optimizer=ocp.args.StandardRestore(abstract.opt_state),
            ),
        )
        count = jax.device_put(jax.numpy.int32(step), abstract.step.sharding)
        state = TrainState(restored["params"], restored["optimizer"], count)
        return state if self._order is None else self._order.by_stage(state)

    def raise_errors(self) -> None:
        """Raises what a save in the background failed with, if one did."""
        self._manager.check_for_errors()

    def wait(self) -> None:
        """Waits until the save under way is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and frees the manager's threads."""
        self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, *error: object) -> None:
        # A save under way when something else fails is worth its wait; if it is what failed, that
        # error is on its way already.
        with contextlib.suppress(Exception) if kind else contextlib.nullcontext():
            self.close()
