"""Help for what was mistyped, or is called otherwise in other tools: each function makes the refusal to raise."""

import contextlib
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from cifarnet.cli.options import flag
from cifarnet.cli.values import OTHER_VALUES, VALUES, other_value
from cifarnet.core.errors import Refused, printable
from cifarnet.core.known import folded, nearest, same_name

# Options of other tools -> ours; the first that the command has is the hint.
OTHER_OPTIONS: dict[str, tuple[str, ...]] = {
    "--model --net --network --backbone --architecture --model-name": ("--arch", "--run"),
    "--weights --pretrained --finetune": ("--init-from", "--run"),
    "--checkpoint --ckpt --ckpt-path --model-path --checkpoint-path --load --run-dir": ("--run", "--init-from"),
    "--criterion --loss-fn --objective --head": ("--loss",),
    "--data --data-path --dataset-dir --data-root --root --datadir --path": ("--data-dir",),
    "--dataset-name --task": ("--dataset",),
    "--batch --bs --batchsize --mini-batch --train-batch-size": ("--batch-size", "--batch"),
    "--num-epochs --n-epochs --max-epochs --epoch --nb-epochs --iterations": ("--epochs",),
    "--learning-rate --learningrate --base-lr --eta --max-lr": ("--lr",),
    "--lr-scheduler --lr-schedule --scheduler --sched": ("--schedule",),
    "--optim --opt --solver": ("--optimizer",),
    "--wd --decay --l2": ("--weight-decay",),
    "--warmup-epochs --warmup-steps": ("--warmup",),
    "--smoothing --ls": ("--label-smoothing",),
    "--num-workers --nworkers --jobs -j": ("--workers",),
    "--img-size --imgsz --input-size --resolution --size": ("--image-size",),
    "--augmentation --aug --aa --transform": ("--augment",),
    "--random-seed --manual-seed --random-state": ("--seed",),
    "--gpu --gpus --cuda --use-cuda --gpu-id": ("--device cuda",),
    "--cpu --no-cuda --no-gpu": ("--device cpu",),
    "--mps": ("--device mps",),
    "--fp16 --amp --half --mixed-precision --bf16": ("--precision bf16",),
    "--fp32 --no-amp": ("--precision fp32",),
    "--output --output-dir --save-dir --outdir --log-dir --logdir --save --name -o": ("--out", "--csv"),
    "--continue --resume-from --restart": ("--resume",),
    "--force --yes": ("--overwrite",),
    "--silent": ("--quiet",),
    "--preset --protocol": ("--recipe",),
    "--topk --top-k --k": ("--top",),
    "--gradcam --cam": ("--grad-cam",),
    "--n --num-samples --num-images": ("--samples",),
    "--perplexity --n-neighbors": ("--neighbors",),
    "--s --temperature": ("--scale",),
    "--m": ("--margin",),
    "--fpr --fmr --fars --false-accept-rate": ("--far",),
    "--resamples --n-bootstrap --n-boot": ("--bootstrap",),
    "--mirror --hflip": ("--flip",),
}  # fmt: skip
OPTION_HINTS = {folded(other): ours for others, ours in OTHER_OPTIONS.items() for other in others.split()}

# Words that others have for a command.
OTHER_COMMANDS: dict[str, str] = {
    "test evaluate validate val score benchmark": "eval", "fit run learn": "train", "resume continue": "train --resume",
    "classify infer inference recognize label": "predict", "plot draw show figure viz": "visualize",
    "flops params macs profile cost summary size": "complexity", "compare results table": "report",
    "info env environment version check devices": "doctor", "gradcam features activations": "featuremaps",
    "tsne": "visualize umap --method tsne", "pca": "visualize umap --method pca", "embedding projection": "visualize umap", "match roc eer": "verify",
    "convert deploy onnx quantize quantise save": "export", "readme modelcard": "card", "search enroll enrol gallery": "identify", "help": "--help", "completion": "--install-completion",
}  # fmt: skip
COMMAND_HINTS = {other: ours for others, ours in OTHER_COMMANDS.items() for other in others.split()}
TRUTH = {word: True for word in ("true", "yes", "on", "1")} | {word: False for word in ("false", "no", "off", "0")}
FOLDERS = ("--data-dir", "--gallery")  # the options that a folder of images on its own may be meant for
MOST_OWNERS = 4  # commands that a line names


def flags_of(command: Any) -> list[str]:
    """The options of a command, as they are typed; those that are hidden are left out."""
    return [
        name
        for one in command.params
        if one.param_type_name == "option" and not one.hidden
        for name in (*one.opts, *one.secondary_opts)
    ]


def commands_below(group: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each command below a group, by the words that call it."""
    for name, command in getattr(group, "commands", {}).items():
        yield path + name, command
        yield from commands_below(command, f"{path}{name} ")


def unknown_option(name: str, context: Any, typed: Sequence[str]) -> Refused:
    """The refusal of an option that the command does not have; `typed`: the whole command line."""
    if len(name) == 2:  # of -lr the parser names -l
        clusters = [word for word in typed if re.match(r"-[^-]", word) and name[1] in word]
        name = clusters[0].partition("=")[0] if clusters else name
    here = [*flags_of(context.command), "--help"]
    if name in here:  # -r=3
        return value_error(name, context, typed)
    if file := next((word for word in typed if word.startswith(name) and os.path.exists(word)), None):
        return Refused(file, "there is no such option, but a file or folder of that name", f"write ./{file}")
    meant = next((ours for ours in OPTION_HINTS.get(folded(name), ()) if ours.split()[0] in here), None)
    meant = meant or same_name(name, here)
    if not meant:
        below = [
            path
            for path, one in commands_below(context.find_root().command)
            if f"--{name.lstrip('-')}" in flags_of(one)
        ]
        if below:
            first = f"name the command first: cifarnet {below[0]} {name}"
            fix = first if hasattr(context.command, "commands") else see(context)
            if len(below) > MOST_OWNERS:
                return Refused(name, f"is no option of {context.command_path}", fix)
            return Refused(name, f"is an option of {listed(below)}, not of {context.command_path}", fix)
    meant = meant or nearest(name, here)
    return Refused(name, "there is no such option", f"did you mean {meant}?" if meant else see(context))


def listed(names: Sequence[str]) -> str:
    """`cifarnet train and cifarnet eval`."""
    *most, last = [f"cifarnet {name}" for name in names]
    return f"{', '.join(most)} and {last}" if most else last


def see(context: Any) -> str:
    """Where the options are listed."""
    return f"see {context.command_path} --help"


def stray_argument(word: str, context: Any, typed: Sequence[str]) -> Refused:
    """The refusal of a word that belongs to no option; of a value the option is named that takes it."""
    meant = option_for(word, flags_of(context.command), typed)
    if meant:
        return Refused(f"'{word}'", "belongs to no option", f"did you mean {meant}?")
    return Refused(f"'{word}'", f"{context.command_path} has no use for it", see(context))


def option_for(word: str, here: Sequence[str], typed: Sequence[str]) -> str | None:
    """The option, with its value, that a word on its own may stand for: resnet50, lr=0.1, a folder, the False of --normalize False."""
    before = typed[typed.index(word) - 1] if word in typed[1:] else ""
    if before in here and word.lower() in TRUTH:
        return state_of(before, word, here)
    name, equals, value = word.partition("=")
    if equals and (option := same_name(name, here)):
        return f"{option} {value}"
    for name, values in VALUES.items():
        found = same_name(word, values) or other_value(name, word)
        if flag(name) in here and found and found != "none":
            return f"{flag(name)} {found}"
    if os.path.isdir(word) and (folder := folder_option(word, here)):
        return f"{folder} {shlex.quote(printable(word))}"
    for name in ("arch", "loss", "dataset"):
        found = nearest(word, (*VALUES[name], *OTHER_VALUES.get(name, ())))
        if flag(name) in here and found:
            return f"{flag(name)} {other_value(name, found) or found}"
    return None


def folder_option(word: str, here: Sequence[str]) -> str | None:
    """The option for a folder that stands alone: of images, or of a run that is to go on; None for a folder of runs."""
    if is_run(word):
        return "--resume --out" if "--resume" in here else None
    with contextlib.suppress(OSError):
        if any(is_run(os.path.join(word, name)) for name in os.listdir(word)):
            return None
    return next((one for one in FOLDERS if one in here), None)


def is_run(folder: str) -> bool:
    """Is a configuration in it, as in every run's?"""
    return os.path.isfile(os.path.join(folder, "config.json"))


def state_of(option: str, value: str, here: Sequence[str]) -> str | None:
    """How a flag is given that someone wrote with a value: --no-normalize for `--normalize False`."""
    off = option.replace("--", "--no-", 1)
    return option if TRUTH.get(value.lower(), True) else off if off in here else None


def value_error(option: str, context: Any, typed: Sequence[str]) -> Refused:
    """The refusal of an option without the value that it needs, or with one where it takes none."""
    known = next((one for one in context.command.params if option in (*one.opts, *one.secondary_opts)), None)
    if getattr(known, "is_flag", False):
        given = next((word for word in typed if word.startswith(f"{option}=")), option)
        meant = state_of(option, given.partition("=")[2], flags_of(context.command))
        return Refused(option, "takes no value", f"did you mean {meant}?" if meant else f"leave out '{given}'")
    values = VALUES.get(getattr(known, "name", ""))
    return Refused(option, "needs a value", f"choose from {', '.join(values)}" if values else see(context))


def not_the_given(error: Exception) -> str:
    """`, not 'one'`: the value that the parser did not take, where it says which it was."""
    wrong: list[Any] = getattr(error.__cause__, "errors", list)()
    return f", not '{printable(str(wrong[0]['input']))[:40]}'" if wrong else ""


def unknown_command(word: str, context: Any, after: Sequence[str]) -> Refused:
    """The refusal of a command that is not there; a figure is looked for too. `after`: the words that follow."""
    known = dict(commands_below(context.command))
    below = {path.split()[-1]: path for path in reversed(known)}
    hint = COMMAND_HINTS.get(word.lower(), "").removeprefix(f"{context.command.name} ")
    if word == "help" and after and after[0] in known:
        hint = f"{after[0]} --help"
    meant = below.get(word) or hint or below.get(nearest(word, below) or "", "")
    fits = meant.startswith("-") or meant.partition(" ")[0] in known
    fix = f"did you mean {context.command_path} {meant}?" if fits else see(context)
    return Refused(f"'{word}'", f"{context.command_path} has no such command", fix)
