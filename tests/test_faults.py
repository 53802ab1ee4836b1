"""Faults provoked for real: full and read-only disks, a power cut, signals, no network, no memory, broken checkpoints."""

import contextlib
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import forked_python
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save

import cifarnet
from cifarnet.cli import run
from cifarnet.losses import kernels
from cifarnet.storage import atomic as storage
from cifarnet.storage.run_files import read_metrics
from cifarnet.storage.run_folder import RunFolder

QUICK = (
    "train --arch baseline --dataset digits --batch-size 256 --augment none --lr 3e-3 --precision fp32 --device cpu -q"
)
SCRIPTS = Path(__file__).parents[1] / "scripts" / "proof"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(*arguments, code=None):
    """The program, or Python code, as a process of its own."""
    return [sys.executable, *(["-c", code] if code else ["-m", "cifarnet"]), *map(str, arguments)]


def forked_command(*arguments, code=None):
    """As `command`, where its start and its signals are not the matter."""
    return [forked_python.executable(), *command(*arguments, code=code)[1:]]


def execute(line, **options):
    return subprocess.run(line, capture_output=True, text=True, env=ENVIRONMENT, **options)


def needs_mount(*line):
    """Runs a mount command; the test is skipped where that is not allowed."""
    if os.geteuid() != 0 or subprocess.run(line, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a file system")


@contextlib.contextmanager
def mounted(*options, at):
    at.mkdir(exist_ok=True)
    needs_mount("mount", *options, str(at))
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


@contextlib.contextmanager
def read_only(folder):
    """The folder as a medium that cannot be written: permissions do not bind root."""
    if os.geteuid() != 0:
        folder.chmod(0o500)
        yield
        folder.chmod(0o700)
        return
    with mounted("--bind", str(folder), at=folder):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of one epoch, and the same run after two; not to be changed."""
    folder = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where runs/latest is marked
        assert run([*QUICK.split(), "--epochs", "1", "--schedule", "constant", "--out", str(folder / "one")]) == 0
        shutil.copytree(folder / "one", folder / "two")
        assert run(["train", "--resume", "--epochs", "2", "-q", "--out", str(folder / "two")]) == 0
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    return folder


def one_line(result, code, *words):
    """The contract: nothing on stdout, one line on stderr that names what is wrong, this exit code."""
    assert result[0] == code, result
    assert result[1] == "" and result[2].startswith("error: ") and result[2].count("\n") == 1, result
    assert all(word in result[2] for word in words), result[2]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def same_tensors(one, two):
    one, two = load_file(one), load_file(two)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


# the disk


def fill(folder, leave):
    """Takes all of the file system's room but `leave` bytes."""
    with open(folder / "ballast", "wb") as file:
        file.write(bytes(shutil.disk_usage(folder).free - leave))


def test_a_full_disk_while_saving(cli, trained, tmp_path):
    """No room for the training state, then for nothing; the old files stay, and with room again the run goes on exactly."""
    with mounted("-t", "tmpfs", "-o", "size=12m", "tmpfs", at=tmp_path / "disk") as disk:
        shutil.copytree(trained / "one", disk / "run")
        before, resume = contents(disk / "run"), ("train", "--resume", "--epochs", 2, "-q", "--out", disk / "run")
        fill(disk, leave=1_000_000)
        one_line(cli(*resume), 1, "state.safetensors", "No space left on device", "the previous file is kept")
        kept = contents(disk / "run")
        assert all(kept[name] == before[name] for name in before if name.endswith(".safetensors"))
        (disk / "ballast").unlink()
        fill(disk, leave=0)
        kept = contents(disk / "run")
        one_line(cli(*resume), 1, "No space left on device")
        assert contents(disk / "run") == kept
        (disk / "ballast").unlink()
        assert cli(*resume)[0] == 0
        for name in ("state.safetensors", "last.safetensors"):
            assert same_tensors(disk / "run" / name, trained / "two" / name)


def test_a_full_disk_while_logging(tmp_path):
    """A limit on the size of files that only the log meets: one warning, training goes on, and no line is lost."""
    folder, records = RunFolder(tmp_path), [{"epoch": epoch, "x": "y" * 100} for epoch in range(1, 6)]
    assert folder.log(records[:1]) is None
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
    try:
        warnings = [folder.log(records[:count]) for count in (2, 3)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "training goes on" in warnings[0] and "File too large" in warnings[0] and warnings[1] is None
    assert folder.log(records[:4]) is None and folder.log(records) is None
    assert read_metrics(folder.metrics) == (records, [])


def test_a_power_cut_leaves_the_old_or_the_new_file(tmp_path, monkeypatch):
    """What a disk holds if the power goes at each stage of a write: a copy of the block device below a mounted ext4."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("needs mkfs.ext4")
    device, states = tmp_path / "disk.img", []
    device.write_bytes(bytes(8 << 20))
    subprocess.run(["mkfs.ext4", "-q", str(device)], check=True)
    old, new = b"old" * 50_000, b"new!" * 50_000
    with mounted("-o", "loop,commit=300", str(device), at=tmp_path / "disk") as disk:
        storage.write_file(disk / "file", old)

        def cut(function):
            def before(*arguments):
                shutil.copy(device, tmp_path / f"cut{len(states)}.img")
                states.append(function)
                return getattr(os, f"real_{function}")(*arguments)

            monkeypatch.setattr(os, f"real_{function}", getattr(os, function), raising=False)
            monkeypatch.setattr(os, function, before)

        cut("fsync"), cut("replace")
        storage.write_file(disk / "file", new)
        monkeypatch.undo()
        (disk / "careless").write_bytes(new)
        shutil.copy(device, tmp_path / f"cut{len(states)}.img")
    assert states == ["fsync", "replace", "fsync"]
    found = []
    for number in range(4):
        image = tmp_path / f"cut{number}.img"
        with mounted("-o", "loop", str(image), at=tmp_path / "after") as after:
            found.append((after / "file").read_bytes())
            careless = after / "careless"
            assert not careless.exists() or careless.read_bytes() != new  # so much for a write without fsync
    assert found[:2] == [old, old] and found[2] in (old, new) and found[3] == new


def test_a_read_only_run_folder_is_found_before_training(cli, trained, tmp_path):
    shutil.copytree(trained / "one", tmp_path / "run")
    before = contents(tmp_path / "run")
    with read_only(tmp_path / "run"):
        one_line(cli("train", "--resume", "--epochs", 2, "--out", "run"), 2, "run: cannot be written", "--out")
        one_line(cli(*QUICK.split(), "--overwrite", "--out", "run"), 2, "run: cannot be written")
        one_line(cli(*QUICK.split(), "--out", "run/below"), 2, "run/below: cannot be written")
        code, out, _ = cli("eval", "run", "--json")  # a finished run on a medium that cannot be written is still good
        assert code == 0 and json.loads(out)["images"] == 355
    assert contents(tmp_path / "run") == before


def test_a_read_only_cache_folder(cli, tmp_path):
    (tmp_path / "cache").mkdir()
    with read_only(tmp_path / "cache"):
        one_line(cli("train", "--dataset", "cifar10", "--out", "run"), 2, "cache/cifarnet", "XDG_CACHE_HOME")
    assert not (tmp_path / "run").exists()


def test_results_that_cannot_be_written_are_an_error():
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(forked_command("doctor"), stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert done.returncode == 1 and done.stderr == (
        "error: stdout: cannot be written (No space left on device); send the results elsewhere\n"
    )


def test_a_reader_that_went_away_is_no_error(trained):
    """As `| head`, but the pipe is closed before the first line is written."""
    line = forked_command("predict", trained / "a.png", "--checkpoint", trained / "one", "--json")
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    process.stdout.close()
    # Which model this is, what its probabilities are worth, and no more.
    which, how = process.stderr.read().splitlines()
    assert which.startswith(f"{trained / 'one'}: baseline") and how == "probabilities: not calibrated"
    assert process.wait() == 141


# signals


def test_a_second_signal_ends_the_process_at_once():
    """In a step that never ends, at a terminal, whose cursor comes back."""
    code = "import time; from cifarnet.core.signals import StopRequest\nwith StopRequest(): print(flush=True); time.sleep(100); time.sleep(100)"
    for number, expected in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        screen, terminal = os.openpty()
        process = subprocess.Popen(command(code=code), stdout=subprocess.PIPE, stderr=terminal, text=True)
        process.stdout.readline()
        process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.send_signal(number)
        assert process.wait(10) == expected and b"\x1b[?25h" in os.read(screen, 1000)
        os.close(screen), os.close(terminal)


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_while_data_is_read(tmp_path, number, expected):
    """Sent to the program and its workers, as a terminal does, while they decode a thousand large images."""
    Image.effect_noise((1500, 1500), 90).convert("RGB").save(tmp_path / "photo.jpg")
    for part, count in (("train", 500), ("test", 1)):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            for index in range(count):
                os.link(tmp_path / "photo.jpg", tmp_path / part / name / f"{index}.jpg")
    line = command("train", "--dataset", "folder", "--data-dir", ".", "--out", "run")
    process = subprocess.Popen(
        line, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=ENVIRONMENT, start_new_session=True
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("needs /proc to see the workers start")
    while process.poll() is None and not children.read_text():
        time.sleep(0.01)
    time.sleep(0.5)
    os.killpg(process.pid, number)
    _, messages = process.communicate(timeout=30)
    assert process.returncode == expected and messages.startswith("stopped by ") and messages.count("\n") == 1, messages
    assert not (tmp_path / "run").exists()


def test_kill_storm(tmp_path):
    """The short form of scripts/proof/kill_storm.py: kill -9 at random moments, some within a write."""
    line = f"{SCRIPTS / 'kill_storm.py'} --kills 2 --epochs 2 --losses curricularface --signals SIGKILL --json k.json"
    done = execute([forked_python.executable(), *line.split()], cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = json.loads((tmp_path / "k.json").read_text())
    assert found["kills"] == 2 and found["runs"] >= 1 and found["differences"] == []


def test_killed_before_the_first_state_was_saved(cli, tmp_path):
    """Then there is nothing to resume, and both ways to ask say the same way out."""
    code = """
import os, signal, sys
from cifarnet.cli import run
from cifarnet.engine import loop
loop.save_state = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # after config.json, before the state
run(sys.argv[1:])
"""
    done = execute(forked_command(*QUICK.split(), "--out", "run", code=code), cwd=tmp_path)
    assert done.returncode == -signal.SIGKILL and (tmp_path / "run" / "config.json").exists()
    one_line(cli("train", "--resume", "--out", "run"), 2, "no training state", "--overwrite")
    one_line(cli(*QUICK.split(), "--out", "run"), 2, "already holds", "--overwrite")
    assert cli(*QUICK.split(), "--epochs", 1, "--overwrite", "--out", "run")[0] == 0


# memory, network, versions


def test_out_of_memory_suggests_a_smaller_batch(tmp_path):
    """A ceiling of 500 MB above what the program takes after its start."""
    code = """
import resource, sys
import cifarnet.cli.watcher
from cifarnet.cli import run
size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 500_000_000,) * 2)
sys.exit(run(sys.argv[1:]))
"""
    line = f"{QUICK} --arch resnet18 --stem cifar --batch-size 1442 --image-size 64 --epochs 1 --out run"
    done = execute(forked_command(*line.split(), code=code), cwd=tmp_path)
    one_line((done.returncode, done.stdout, done.stderr), 1, "memory", "smaller --batch-size")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_out_of_gpu_memory_suggests_a_smaller_batch(cli):
    line = f"{QUICK} --arch resnet152 --stem cifar --image-size 1024 --batch-size 1442 --epochs 1 --device cuda"
    one_line(cli(*line.split(), "--out", "run"), 1, "memory", "smaller --batch-size")


def test_without_a_network(tmp_path):
    """In a network namespace of its own, which has no connection at all."""
    if execute(["unshare", "-rn", "true"]).returncode != 0:
        pytest.skip("needs the right to make a network namespace")
    environment = {**ENVIRONMENT, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    line = ["unshare", "-rn", *command("train", "--dataset", "cifar10", "--out", "run")]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, env=environment)
    words = (str(tmp_path / "cache"), "download failed", "curl -LO https://", "--dataset digits needs no download")
    one_line((done.returncode, done.stdout, done.stderr), 2, *words)


def test_an_extension_for_another_torch(tmp_path):
    """A copy of the installed package whose compiled head says that it was built for another torch."""
    origin = kernels._extension_path()
    if origin is None:
        pytest.skip("the extension is not built")
    package, stamp = Path(cifarnet.__file__).parent, f"torch={torch.__version__};".encode()
    shutil.copytree(package, tmp_path / "cifarnet", ignore=shutil.ignore_patterns("*.safetensors"))
    library = tmp_path / "cifarnet" / Path(origin).name
    data = Path(origin).read_bytes()
    assert stamp in data  # once or twice: compilers may copy a string
    library.write_bytes(data.replace(stamp, b"torch=" + b"0" * (len(stamp) - 7) + b";"))
    done = execute(
        forked_command(*QUICK.split(), "--loss", "arcface", "--epochs", 1, "--json", "--out", "run"), cwd=tmp_path
    )
    assert done.stderr.startswith("warning: the compiled margin head is not used: it is built for torch 000")
    assert done.stderr.count("\n") == 1
    assert done.returncode == 0 and json.loads(done.stdout)["backend"] == "torch"


def change_metadata(path, change):
    """Writes the file again with other metadata."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    change(metadata)
    path.write_bytes(save(load_file(path), metadata))


def test_a_state_of_another_torch_and_gpu_is_warned_of(cli, trained, tmp_path):
    shutil.copytree(trained / "one", tmp_path / "run")
    change_metadata(
        tmp_path / "run" / "state.safetensors",
        lambda values: values.update(versions=json.dumps({"cifarnet": "0.1.0", "torch": "1.0", "gpu": "Tesla K80"})),
    )
    code, _, err = cli("train", "--resume", "--epochs", 2, "--out", "run")
    assert code == 0 and same_tensors(tmp_path / "run" / "last.safetensors", trained / "two" / "last.safetensors")
    assert all(f"warning: {name}" in err for name in ("cifarnet was 0.1.0", "torch was 1.0", "gpu was Tesla K80"))


# checkpoints


def header_and_body(path):
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(path, change):
    header, body = header_and_body(path)
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def overlap(header):
    names = [name for name in header if name != "__metadata__"]
    header[names[0]] = header[names[1]]


def poison(path):
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    next(value for value in tensors.values() if value.dtype == torch.float32).view(-1)[0] = float("nan")
    path.write_bytes(save(tensors, metadata))


BREAKS = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "empty": lambda path: path.write_bytes(b""),
    "trailing bytes": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "huge header": lambda path: path.write_bytes(struct.pack("<Q", 2**63) + path.read_bytes()[8:]),
    "overlapping offsets": lambda path: with_header(path, overlap),
    "no metadata": lambda path: with_header(path, lambda header: header.pop("__metadata__")),
    "metadata that is no text": lambda path: with_header(path, lambda header: header["__metadata__"].update(info=[1])),
    "a pickle": lambda path: torch.save({}, path),
    "weights that are no numbers": poison,
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_checkpoint_is_refused_by_every_command(cli, trained, tmp_path, name):
    shutil.copytree(trained / "one", tmp_path / "run")
    for file in ("last.safetensors", "state.safetensors"):
        BREAKS[name](tmp_path / "run" / file)
    before, picture = contents(tmp_path / "run"), trained / "a.png"
    for line in (
        ("eval", "run"),
        ("predict", picture, "--checkpoint", "run"),
        ("featuremaps", picture, "--checkpoint", "run"),
        ("visualize", "confusion", "run"),
        ("complexity", "--checkpoint", "run"),
        ("train", "--resume", "--epochs", 2, "-q", "--out", "run"),
        (*QUICK.split(), "--init-from", "run", "--out", "new"),
    ):
        one_line(cli(*line), 2, ".safetensors")
    assert contents(tmp_path / "run") == before and not (tmp_path / "new").exists()


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("size", [1000, 100_000])
def test_a_broken_best_model_is_told_before_a_resume_trains(cli, trained, tmp_path, epochs, size):
    """And a way out is named that is one: the other model can be evaluated, and without the file the run goes on."""
    shutil.copytree(trained / "one", tmp_path / "run")
    best, last = tmp_path / "run" / "best.safetensors", tmp_path / "run" / "last.safetensors"
    best.write_bytes(last.read_bytes()[:size])
    before = contents(tmp_path / "run")
    resume = ("train", "--resume", "--epochs", epochs, "--out", "run")
    one_line(
        cli(*resume),
        2,
        f"{best.relative_to(tmp_path)}: is ",
        "evaluate run/last.safetensors",
        "or remove it and --resume, at the end of the run with more --epochs: the best one is then one to come",
    )
    assert contents(tmp_path / "run") == before
    assert cli("eval", "run/last.safetensors")[0] == 0
    best.unlink()
    code, _, said = cli(*resume)
    assert code == 0 and ("train loss" in said) is (epochs == 2)  # no headings where no row will come
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["epochs"] == epochs


@pytest.mark.parametrize(
    ("entry", "values"),
    [
        ("progress", {"step": 10**6}),
        ("progress", {"epoch": 10**400}),
        ("progress", {"epoch": True}),
        ("progress", {"history": [{"epoch": 1}]}),
        ("progress", {"history": []}),
        ("progress", {"seconds": 10**400}),
        ("progress", {"seconds": float("nan")}),
        ("config", {"lr": 10**400}),
    ],
)
def test_numbers_of_a_training_state_are_checked(cli, trained, tmp_path, entry, values):
    shutil.copytree(trained / "one", tmp_path / "run")
    path = tmp_path / "run" / "state.safetensors"
    change_metadata(path, lambda found: found.update({entry: json.dumps(json.loads(found[entry]) | values)}))
    one_line(cli("train", "--resume", "--epochs", 2, "-q", "--out", "run"), 2)


@pytest.mark.parametrize("values", [{"mean": [float("nan"), 0, 0]}, {"mean": [1e300, 0, 0]}, {"std": [1e-320, 1, 1]}])
def test_pixels_that_would_be_normalised_to_nonsense(cli, trained, tmp_path, values):
    shutil.copy(trained / "one" / "last.safetensors", tmp_path / "m.safetensors")
    change = {"info": lambda text: json.dumps(json.loads(text) | values)}
    change_metadata(tmp_path / "m.safetensors", lambda found: found.update(info=change["info"](found["info"])))
    one_line(cli("predict", trained / "a.png", "--checkpoint", "m.safetensors"), 2, "mean")


def test_metadata_too_deep_to_be_read(cli, trained, tmp_path):
    shutil.copytree(trained / "one", tmp_path / "run")
    change_metadata(tmp_path / "run" / "last.safetensors", lambda found: found.update(info="[" * 100_000))
    change_metadata(tmp_path / "run" / "state.safetensors", lambda found: found.update(versions="[" * 100_000))
    one_line(cli("eval", "run"), 2, "not JSON")
    assert cli("train", "--resume", "--epochs", 2, "-q", "--out", "run")[0] == 0


def test_a_run_of_a_later_version_names_both(cli, trained, tmp_path):
    """Its options are not those of a file that the user wrote: what is known here is of no use."""
    shutil.copytree(trained / "one", tmp_path / "run")

    def of_later(values):
        options = json.loads(values["config"]) | {"new_option": True}
        values.update(config=json.dumps(options), versions=json.dumps({"cifarnet": "9.1"}))

    change_metadata(tmp_path / "run" / "state.safetensors", of_later)
    said = f"with the option 'new_option', which this version, {cifarnet.__version__}, does not know; update cifarnet\n"
    result = cli("train", "--resume", "--epochs", 2, "-q", "--out", "run")
    one_line(result, 2, f"state.safetensors: was written by cifarnet 9.1 {said}")
    path = tmp_path / "run" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"new_option": True}))
    code, _, err = cli("runs", ".")
    assert code == 0 and f"config.json: was written by a later cifarnet {said}" in err
    one_line(cli("train", "--config", path), 2, "unknown option 'new_option'; ", "known: arch, ")


def test_weights_alone_are_not_resumed(cli, trained):
    last = trained / "one" / "last.safetensors"
    one_line(cli("train", "--resume", "--out", last), 2, "not a run folder", f"--init-from {last}")


def test_numbers_in_a_log_that_no_float_holds(cli, tmp_path):
    (tmp_path / "run").mkdir()
    record = {"epoch": 1, "train_loss": 10**400, "train_accuracy": 0.5, "lr": 0.1}
    (tmp_path / "run" / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    assert cli("visualize", "curves", "run", "--out", "c.png")[0] == 0


def test_fuzz(tmp_path):
    """The short form of scripts/proof/fuzz.py."""
    done = execute(
        [forked_python.executable(), SCRIPTS / "fuzz.py", "--cases", "350", "--seed", "99", "--json", "f.json"],
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = json.loads((tmp_path / "f.json").read_text())
    assert found["cases"] == 350 and len(found["targets"]) == 13 and 0 < found["refused"] < 350
