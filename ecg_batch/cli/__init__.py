"""The command `ecg-batch`: a module a subcommand. Each imports what is heavy only when it runs, so that --help answers at once."""
