"""How every command starts and ends: its streams, its errors, its exit code.

Before ``run`` is entered, this module imports only what Python has imported already, so that Ctrl-C during the
imports is one line too.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import NoReturn, TextIO

    from omegaconf import DictConfig

# Console script -> its module, whose ``main`` is called by ``run``.
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
CLOSED_PIPE = 141  # 128 + SIGPIPE: the reader of the output has exited, as in ``... | head -1``
# Hydra's options that take a value.
WITH_VALUE = ["--config-dir", "-cd", "--config-name", "-cn", "--cfg", "-c", "--package", "-p"]
INFO = ["--info", "-i"]  # their value is optional
PLAIN = {"±": "+-", "…": "."}  # replacements where the terminal's encoding lacks the key; all others become "?"
DEBUGGING = "HYDRA_FULL_ERROR" in os.environ  # every error keeps its traceback


def main() -> None:
    """The entry point of every console script."""
    run(SCRIPTS[os.path.basename(sys.argv[0])])


def run(module: str) -> "NoReturn":
    """Run the ``main`` of a command's module, and exit.

    An error that the user can fix prints one line on standard error and exits with 1; a signal prints a line and
    exits with 128 + its number; a closed output pipe exits with 141; a bug prints its traceback.
    """
    try:
        try:
            _prepare()
            import importlib

            importlib.import_module(module).main()
        except SystemExit as request:  # --help, or a failure that has been reported
            if request.code:
                raise
        sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        resume = " to resume" if module in ("repro.train", "repro.search.app") else ""
        _print_error(f"interrupted; run the same command again{resume}")
        sys.exit(128 + getattr(interrupt, "signal", 2))
    except SystemExit as request:
        # rich exits by itself when the pipe is closed
        sys.exit(CLOSED_PIPE if isinstance(request.__context__, BrokenPipeError) else request.code)
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
    """Run ``task`` as a Hydra app on ``conf/<config_name>.yaml`` with the command line's overrides and options."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from repro.config import catalogue
    from repro.config.folders import CONF, expand_home

    def run_task(composed: "DictConfig") -> object:
        try:
            return task(composed)
        except Exception as error:
            if HydraConfig.get().mode is RunMode.MULTIRUN:
                raise  # the sweep reports it
            fail(error)  # otherwise Hydra prints a line before it

    OmegaConf.register_new_resolver("choices", catalogue.choices, replace=True)
    for argument in sys.argv:
        argument.encode()  # UnicodeEncodeError for characters that the locale lacks: Hydra cannot read them
    sys.argv[1:] = options_last([expand_home(argument) for argument in sys.argv[1:]])
    hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(run_task)()


def marked_options(arguments: "Iterable[str]") -> "Iterator[tuple[str, bool]]":
    """Each argument, and whether it is one of Hydra's options or the value of one."""
    previous = ""  # the option whose value may follow
    for argument in arguments:
        is_value = previous in WITH_VALUE or (previous in INFO and "=" not in argument)
        is_option = is_value or argument.startswith("-")
        yield argument, is_option
        previous = "" if is_value else argument


def options_last(arguments: "list[str]") -> "list[str]":
    """The arguments, overrides before options: Hydra's parser refuses options between overrides."""
    marked = list(marked_options(arguments))
    return [argument for argument, _ in sorted(marked, key=lambda pair: pair[1])]


def fail(error: Exception) -> "NoReturn":
    """Exit with the line of an error that the user can fix; raise any other error."""
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

    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise errors rather than print them over many lines
    logging.raiseExceptions = DEBUGGING  # a log that cannot be written loses lines, without a traceback for each
    # Our conf/hydra/launcher/ray.yaml deliberately extends the plug-in's configuration of that name.
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/ray' is validated against")
    codecs.register_error("plain", _replace_unencodable)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")


def _replace_unencodable(error: UnicodeError) -> tuple[str, int]:
    """The replacement for characters that the stream's encoding lacks, as a handler of ``codecs``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(character, "?") for character in error.object[error.start : error.end]), error.end


def _print_error(line: str) -> None:
    import contextlib

    with contextlib.suppress(OSError):
        print(line, file=sys.stderr)


def _is_closed(stream: "TextIO") -> bool:
    """Whether a stream writes to a pipe that has no reader any more."""
    import select

    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (OSError, ValueError):
        return False


def _flush(stream: "TextIO") -> None:
    """Flush; output that cannot be written is discarded, or Python would report it again at exit."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except ValueError:  # closed
        pass
