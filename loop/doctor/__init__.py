"""What `loop doctor` looks at, by what it is about: the machine, the config, the state directory, the log."""
