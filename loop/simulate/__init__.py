"""`loop simulate`: the production decider, folds and log under a clock that is told the time, and modelled sessions."""
