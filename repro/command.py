"""How every command begins and ends: its streams, its errors, its exit code.

Nothing is imported here before ``run`` is entered that Python has not imported already, so that Ctrl-C during the
imports is one line too.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import NoReturn, TextIO

    from omegaconf import DictConfig

# The modules of the console scripts; each has a ``main``, which expects to be run by ``run``.
SCRIPTS = {
    "repro-train": "repro.train",
    "repro-figures": "repro.figures.app",
    "repro-search": "repro.search.app",
    "repro-evaluate": "repro.evaluate",
    "repro-report": "repro.report",
    "repro-bench": "repro.bench.app",
    "repro-status": "repro.status",
    "repro-tracking": "repro.tracking.upload",
}
CLOSED_PIPE = 141  # 128 + SIGPIPE: whoever read the output is gone, as in ``... | head -1``
# Hydra's options that take a value.
WITH_VALUE = ["--config-dir", "-cd", "--config-name", "-cn", "--cfg", "-c", "--package", "-p"]
INFO = ["--info", "-i"]  # whose value may be missing
PLAIN = {"±": "+-", "…": "."}  # where the terminal's encoding lacks them; anything else is "?"
DEBUGGING = "HYDRA_FULL_ERROR" in os.environ  # every error keeps its traceback


def main() -> None:
    """Every console script."""
    run(SCRIPTS[os.path.basename(sys.argv[0])])


def run(module: str) -> "NoReturn":
    """Run the ``main`` of a command's module, and exit.

    What the user can mend is one line on standard error and exit code 1; a signal is a line and 128 + its number;
    output that nobody reads any more is 141; a bug is its traceback.
    """
    try:
        try:
            _prepare()
            import importlib

            importlib.import_module(module).main()
        except SystemExit as end:  # --help, or a failure that has been told
            if end.code:
                raise
        sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        resume = " to resume" if module in ("repro.train", "repro.search.app") else ""
        _say(f"interrupted; run the same command again{resume}")
        sys.exit(128 + getattr(interrupt, "signal", 2))
    except SystemExit as end:
        sys.exit(CLOSED_PIPE if isinstance(end.__context__, BrokenPipeError) else end.code)  # rich exits by itself
    except BrokenPipeError as error:
        if any(map(_is_closed, (sys.stdout, sys.stderr))):
            sys.exit(CLOSED_PIPE)
        fail(error)
    except Exception as error:
        fail(error)
    finally:
        for stream in (sys.stdout, sys.stderr):
            _flush(stream)
    sys.exit(0)


def hydra_app(task: "Callable[[DictConfig], object]", config_name: str) -> None:
    """Run ``task`` as the Hydra app of ``conf/<config_name>.yaml`` that the command line describes."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from repro.config.folders import CONF, expand_home

    def run_task(composed: "DictConfig") -> object:
        try:
            return task(composed)
        except Exception as error:
            if HydraConfig.get().mode is RunMode.MULTIRUN:
                raise  # the sweep names it
            fail(error)  # Hydra would print a line of its own first

    for argument in sys.argv:
        argument.encode()  # UnicodeEncodeError for what this locale's encoding lacks: Hydra could not read it
    sys.argv[1:] = options_last([expand_home(argument) for argument in sys.argv[1:]])
    hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(run_task)()


def marked_options(arguments: "Iterable[str]") -> "Iterator[tuple[str, bool]]":
    """Each argument, and whether it is one of Hydra's options or the value of one."""
    before = ""  # the option whose value may follow
    for argument in arguments:
        is_value = before in WITH_VALUE or (before in INFO and "=" not in argument)
        is_option = is_value or argument.startswith("-")
        yield argument, is_option
        before = "" if is_value else argument


def options_last(arguments: "list[str]") -> "list[str]":
    """The arguments, overrides before options: Hydra's parser refuses options between overrides."""
    marked = list(marked_options(arguments))
    return [argument for argument, _ in sorted(marked, key=lambda pair: pair[1])]


def fail(error: Exception) -> "NoReturn":
    """End the command with the line of an error that the user can mend; raise any other."""
    from repro.config.errors import describe

    line = None if DEBUGGING else describe(error)
    if line is None:
        raise error
    sys.exit(f"error: {line}")


def _prepare() -> None:
    import codecs
    import io
    import logging
    import warnings

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print over many lines
    logging.raiseExceptions = DEBUGGING  # a log that cannot be written costs its lines, not a traceback for each
    # Our conf/hydra/launcher/ray.yaml is meant to complete the plug-in's own configuration of that name.
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/ray' is validated against")
    codecs.register_error("plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    """What is printed in place of characters that the stream's encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(character, "?") for character in error.object[error.start : error.end]), error.end


def _say(line: str) -> None:
    import contextlib

    with contextlib.suppress(OSError):
        print(line, file=sys.stderr)


def _is_closed(stream: "TextIO") -> bool:
    """Whether nobody reads the pipe any more that a stream writes to."""
    import select

    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (OSError, ValueError):
        return False


def _flush(stream: "TextIO") -> None:
    """Flush; what cannot be written goes nowhere, or Python would say so once more as it ends."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except ValueError:  # closed
        pass
