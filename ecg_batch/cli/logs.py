"""The log on stderr: progress and narration with the time, warnings and errors with their name. Results are printed on stdout."""

import logging
import sys


class Line(logging.Formatter):
    """'12:30:05 submitted 4 tasks'; 'warning: ...'. A log is read the morning after, so narration has its time."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        if record.levelno < logging.WARNING:
            return super().format(record)
        return f"{record.levelname.lower()}: {record.getMessage()}"


class Stderr(logging.Handler):
    """Writes to what stderr is at the moment; above a progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
            if sys.stderr.isatty() and "tqdm" in sys.modules:
                sys.modules["tqdm"].tqdm.write(text, file=sys.stderr)
            else:
                print(text, file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


def log_from(level: int) -> None:
    """Show the log of the package from this level on."""
    ours = logging.getLogger("ecg_batch")
    ours.setLevel(level)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # where there is no home it tells at length where its cache is instead
    if not any(isinstance(handler, Stderr) for handler in ours.handlers):
        handler = Stderr()
        handler.setFormatter(Line())
        ours.addHandler(handler)
