"""A `python` that starts at once: each of its processes is forked from one that has imported torch, and imports cifarnet anew.

It takes FILE, -m MODULE or -c CODE, like Python, with its own streams, variables and folder. It is no stand-in where the start
is the matter: what is imported, signals, another user, variables that Python reads itself.
"""

import atexit
import functools
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import traceback
from pathlib import Path

import forked
import torch

# What is run in the place of Python: it hands over what it was given, and ends as the forked process does.
CLIENT = """#!{python}
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b"."], [0, 1, 2])
    server.sendall(json.dumps([sys.argv[1:], sys.path[1:], {{**os.environ}}, os.getcwd()]).encode() + b"\\n")
    code = int(server.recv(9) or 1)
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@functools.cache
def executable() -> str:
    """The path of that `python`, which serves until the tests end; of Python itself where processes have no descriptors (macOS)."""
    if not hasattr(os, "pidfd_open"):
        return sys.executable
    folder = Path(tempfile.mkdtemp(prefix="python-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    python, address = folder / "python", str(folder / "socket")
    python.write_text(CLIENT.format(python=sys.executable, address=address))
    python.chmod(0o700)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    server = forked.CONTEXT.Process(target=_serve, args=(listener,), daemon=True)
    server.start()
    listener.close()
    return str(python)


def _serve(listener: socket.socket) -> None:
    """Forks a process for each client, and tells it how that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            if key.fileobj is listener:
                client, _ = listener.accept()
                number = _fork(client)
                waiting.register(os.pidfd_open(number), selectors.EVENT_READ, (client, number))
                continue
            waiting.unregister(key.fileobj)
            os.close(key.fd)
            client, number = key.data
            with client:
                client.sendall(str(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])).encode())


def _fork(client: socket.socket) -> int:
    _, streams, _, _ = socket.recv_fds(client, 1, 3)
    given = json.loads(client.makefile("rb").readline())
    number = os.fork()
    if not number:
        code = 1
        try:
            code = _work(streams, *given)
        finally:
            os._exit(code)
    for stream in streams:
        os.close(stream)
    return number


def _work(streams: list[int], arguments: list[str], path: list[str], environment: dict[str, str], folder: str) -> int:
    """What Python does with these arguments; returns its exit code."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode, closefd=False) for number, mode in enumerate("rww"))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    forked.multiprocessing.current_process().daemon = False  # which may have no children
    torch.set_num_threads(1)
    for name in [name for name in sys.modules if name.partition(".")[0] == "cifarnet"]:
        del sys.modules[name]
    sys.modules.pop("torch.utils.cpp_extension", None)  # it reads CUDA_HOME when it is imported
    sys.path[1:] = path
    try:
        _run(*arguments)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return int(end.code is not None) if not isinstance(end.code, int) else end.code
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
    return 0


def _run(first: str, *others: str) -> None:
    if first == "-c":
        sys.argv, sys.path[0] = ["-c", *others[1:]], ""
        exec(compile(others[0], "<string>", "exec"), {"__name__": "__main__"})
    elif first == "-m":
        sys.argv, sys.path[0] = ["-m", *others[1:]], os.getcwd()
        runpy.run_module(others[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = [first, *others], str(Path(first).resolve().parent)
        runpy.run_path(first, run_name="__main__")
