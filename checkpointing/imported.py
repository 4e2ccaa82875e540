"""The checkpoint of a converted model: parameters alone, written in little memory."""

import math
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from model.parameters import Params

_CHUNK_BYTES = 32 << 20
_FILE_BYTES = 64 << 20


def publish(workdir: epath.PathLike, params: Params, run: dict[str, Any]) -> None:
    """Writes the checkpoint of step 0, which is there when all of it is; returns then.

    A save in the background holds as much as it will have written until the end, since training
    goes on. Here nothing waits for it: arrays are written in chunks, a file is closed every few of
    them, and so many arrays are at work as fill what the largest needs (python -m bench
    conversion).

    Args:
      workdir: of the model.
      params: as Checkpoints reads them, layers in the order of depth.
      run: the record.
    """
    shards = (shard.data.nbytes for x in jax.tree.leaves(params) for shard in x.addressable_shards)
    handler = ocp.PyTreeCheckpointHandler(save_concurrent_gb=1 + math.ceil(max(shards) / 1e9))
    chunks = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES), params)
    options = ocp.CheckpointManagerOptions(
        create=True, cleanup_tmp_directories=True, enable_async_checkpointing=False
    )
    with ocp.CheckpointManager(
        epath.Path(workdir) / "checkpoints",
        options=options,
        item_handlers={"params": handler, "run": ocp.JsonCheckpointHandler()},
    ) as manager:
        manager.save(
            0,
            args=ocp.args.Composite(
                params=ocp.args.PyTreeSave(
                    params, save_args=chunks, ocdbt_target_data_file_size=_FILE_BYTES
                ),
                run=ocp.args.JsonSave(run),
            ),
        )
