"""Learning: the loss, the optimizer, the state and the step that is compiled."""
