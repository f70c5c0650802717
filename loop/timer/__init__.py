"""What wakes `loop tick --timer` from outside: when, by which systemd units, and through which commands of systemd."""
