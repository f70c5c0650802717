"""Pure folds of the log, one per module, composed by `projections.state.State`."""
