"""The command line, a file for each command. Only what parses arguments is imported before a command runs."""
