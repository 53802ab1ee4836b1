"""Shared by all commands: results on stdout, messages on stderr, errors in one line with their exit code."""

import errno
import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cifarnet.cli.options import how_to_go_on, spoken, spoken_error
from cifarnet.cli.streams import drop_output, write_message, write_traceback
from cifarnet.core.distributed import launched
from cifarnet.core.errors import CifarnetError, Interrupted
from cifarnet.core.json_values import plain
from cifarnet.core.launcher import local_number
from cifarnet.core.signals import Stopped, stoppable

if TYPE_CHECKING:
    from cifarnet.cli.terminal import Terminal

NO_MEMORY = "memory: the device has not enough for this; try a smaller --batch-size or --precision bf16"
LONGEST = 2000  # characters of an error: a name in a hostile file may be as long as the file
PATIENCE = 10.0  # seconds in which torchrun ends the other processes of a machine when its first one has failed


def messages(quiet: bool = False) -> "Terminal":
    """The console of progress and messages: stderr, plain where it is no terminal or NO_COLOR is set."""
    from cifarnet.cli import terminal

    return terminal.messages(quiet)


def results() -> "Terminal":
    """The console of results: stdout. Into a pipe or a file lines are as long as they need to be, or as COLUMNS says."""
    from cifarnet.cli import terminal

    return terminal.results()


def print_path(path: str | Path) -> None:
    """A path that was written, on stdout: one line however long it is, so that it can be copied."""
    results().say(path, soft_wrap=True)


def print_json(document: Any) -> None:
    """One JSON document on stdout, in ASCII; a value that is not finite becomes null, since JSON has no word for it."""
    print(json.dumps(plain(document), indent=2).replace("\x7f", "\\u007f"))


def say_files(errors: Sequence[str], remarks: Sequence[str]) -> None:
    """Remarks on image files, then their errors, on stderr: a line each."""
    for kind, lines in (("warning", remarks), ("error", errors)):
        for line in lines:
            messages().remark(kind, spoken(line))


def given_options(context: typer.Context) -> set[str]:
    """Names of the parameters that stand on the command line."""
    return {name for name in context.params if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"}


def resume_command(context: typer.Context, out: Path) -> str:
    """The command that goes on with what was stopped: the one that was typed, with --resume, and --out where it named none."""
    words = [word for word in context.find_root().obj if word not in ("--resume", "--overwrite")]
    place = [] if "out" in given_options(context) else ["--out", str(out)]
    return shlex.join(["cifarnet", *words, *place, "--resume"])


def run_app(app: Callable[..., Any], arguments: list[str]) -> int:
    """Runs a Typer app; whatever goes wrong becomes one line `error: what: why; what to do` and an exit code.

    2: refused before any work, 1: failed during work, 130 and 143: stopped by Ctrl-C and SIGTERM.
    """
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        with stoppable():
            code = app(args=arguments, prog_name="cifarnet", standalone_mode=False, obj=tuple(arguments))
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except Interrupted as stop:
        return _report(how_to_go_on(stop), stop.exit_code, debug, "")
    except CifarnetError as error:
        return _report(spoken_error(error.what, error.why, error.fix), error.exit_code, debug)
    except Stopped as stop:
        return _report(str(stop).replace("SIGINT", "Ctrl-C"), stop.exit_code, debug, "")
    except SystemExit as end:  # of the parser: after completion, and where the reader of our output went away
        drop_output()
        return 141 if isinstance(end.__context__, BrokenPipeError) else end.code if isinstance(end.code, int) else 0
    except BrokenPipeError:  # the reader of our output went away (`| head`): nothing is wrong
        drop_output()
        return 141
    except OSError as error:
        known = f"{error.filename or 'system'}: {error.strerror or error}"
        code = 2 if error.errno == errno.ENAMETOOLONG else 1
        return _report(NO_MEMORY if _memory_ran_out(error) else known, code, debug)
    except Exception as error:
        return _report(*_describe(error), debug)


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """A Python warning as one line on stderr, without the source line that it came from."""
    write_message(f"warning: {spoken(' '.join(str(message).split()))}")


def _describe(error: Exception) -> tuple[str, int]:
    if hasattr(error, "format_message"):  # the parser's own: a wrong option or value
        context = getattr(error, "ctx", None)
        hint = f"; see {context.command_path} --help" if context else ""
        return f"{error.format_message().rstrip('.')}{hint}", getattr(error, "exit_code", 2)
    if type(error).__name__ == "Abort":
        return "interrupted", 130
    text = " ".join(str(error).split())
    if _memory_ran_out(error):
        return NO_MEMORY, 1
    return f"internal: {type(error).__name__}: {text[:300]}; this is a bug, run again with --debug to see where", 1


def _memory_ran_out(error: BaseException | None) -> bool:
    """True where `error`, or one that it was raised while handling, says so: without memory tidying up fails as well.

    Under a limit (`ulimit -v`) Python itself may lose a MemoryError, and says SystemError "without exception set".
    """
    while error is not None:
        if isinstance(error, SystemError) and "without" in str(error) and _memory_is_limited():
            return True
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return True
        if "can't allocate memory" in str(error) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return True
        error = error.__cause__ or error.__context__
    return False


def _memory_is_limited() -> bool:
    try:
        import resource
    except ImportError:  # Windows
        return False
    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def _report(message: str, code: int, debug: bool, kind: str = "error: ") -> int:
    if debug:
        write_traceback()
    if local_number() > 0:
        # What all ranks of a machine have to say is said by its first; this one's own fault, after a while.
        time.sleep(PATIENCE)
        message = f"rank {launched().rank}: {message}"
    write_message(f"{kind}{message[:LONGEST]}")
    return code
