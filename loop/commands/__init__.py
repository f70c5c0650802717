"""One module per command: gather, then render. No decisions here."""
