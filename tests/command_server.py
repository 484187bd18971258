"""A process that has imported what every command imports, and forks for each: importing torch takes seconds.

A line of JSON on standard input is a command: module, arguments, cwd, environment, files for stdout and stderr. The
answer is its exit code. The suite's own modules are imported by each command anew.
"""

import importlib
import json
import os
import runpy
import sys

IMPORTED = ("hydra.main", "matplotlib.pyplot", "pandas", "rich.table", "seaborn", "sklearn.datasets", "torch")


def become(command: dict) -> None:
    """Turn a fork of this process into the process of ``python -m <module> <arguments>``."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(command[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(command["cwd"])
    os.environ.clear()
    os.environ.update(command["environment"])
    sys.path[0] = command["cwd"]
    sys.argv[:] = ["", *command["arguments"]]


def serve() -> str | None:
    """Answer commands until the input ends; in a fork, return the module that it has to run."""
    for name in IMPORTED:
        importlib.import_module(name)
    for line in sys.stdin:
        command = json.loads(line)
        sys.stdout.flush()
        process = os.fork()
        if process == 0:
            become(command)
            return command["module"]
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
    return None


if __name__ == "__main__":
    module = serve()
    if module is not None:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
