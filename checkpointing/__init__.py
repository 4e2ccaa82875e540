"""The run on disk: checkpoints, what may go on from them, the workdir, how a run is stopped."""
