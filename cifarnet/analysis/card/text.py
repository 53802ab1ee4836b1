"""A model's card as a README.md: a YAML head for the Hugging Face hub, then Markdown. Foreign text is escaped in both."""

import json
import re
from pathlib import Path
from typing import Any

from cifarnet.analysis.card.facts import Facts
from cifarnet.analysis.report.document import Block, Heading, Paragraph, markdown
from cifarnet.analysis.report.document import Table as DocumentTable
from cifarnet.analysis.significance import wilson_interval
from cifarnet.core.errors import plural, printable
from cifarnet.core.percent import percent
from cifarnet.data.registry import DATASETS
from cifarnet.data.shape_options import held_words, shaping_words
from cifarnet.models.registry import find_arch

HUB_NAMES = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100"}  # of data sets that the hub has
WORDS = {
    "accuracy": "accuracy",
    "macro_f1": "F1, mean of the classes",
    "auroc": "AUROC, one against the rest, without the temperature",
}
WORDS |= {"ece": "calibration error without the temperature (15 bins of equal width)"}
HUB_METRICS = {"accuracy": "accuracy", "macro_f1": "f1", "auroc": "roc_auc"}
OTHER_PIXELS = "its pixels not known to be the published ones"
VIEWS = ", the logits of {} averaged (--tta)"
SHOWN = 5  # confusions
NAMED = 100  # classes


def card(facts: Facts, exported: dict[str, Any] | None = None) -> str:
    """The text of the card.

    Args:
        exported: `Exported.to_dict()` of a file that the card lies beside.
    """
    blocks = [*about(facts), *data_blocks(facts), *score_blocks(facts), *calibration_blocks(facts)]
    blocks += file_blocks(exported) if exported else []
    blocks += limits(facts)
    command = fenced(facts.command) if facts.command else "The command that trained it is not recorded.\n"
    return f"{head(facts)}\n{markdown(facts.name, blocks, Path())}\n## To train it again\n\n{command}"


def quoted(text: str) -> str:
    """A YAML scalar that is text whatever it holds: JSON's strings are such."""
    return json.dumps(printable(text), ensure_ascii=False)


def head(facts: Facts) -> str:
    """The YAML head."""
    config = facts.info.config
    lines = ["---", f"license: {'mit' if facts.packaged else 'unknown'}", "library_name: cifarnet"]
    lines += ["pipeline_tag: image-classification", "tags:"]
    lines += [
        f"- {quoted(tag)}" for tag in dict.fromkeys(("image-classification", "cifarnet", config.arch, config.loss))
    ]
    hub = HUB_NAMES.get(config.dataset) if facts.has_published_pixels else None
    lines += ["datasets:", f"- {hub}"] if hub else []
    measured = {key: facts.scores[key] for key in HUB_METRICS if key in facts.scores}
    if measured:
        lines += [
            "metrics:",
            *(f"- {HUB_METRICS[key]}" for key in measured),
            "model-index:",
            f"- name: {quoted(facts.name)}",
        ]
        lines += ["  results:", "  - task:", "      type: image-classification", "    dataset:"]
        name, kind = measured_on(facts)
        lines += [f"      name: {quoted(name)}", f"      type: {quoted(kind)}", "      split: test"]
        lines += ["    metrics:"]
        for key, value in measured.items():
            lines += [
                f"    - type: {HUB_METRICS[key]}",
                f"      value: {value:.6f}",
                f"      name: {quoted(WORDS[key] + averaged(facts))}",
            ]
    return "\n".join([*lines, "---", ""])


def measured_on(facts: Facts) -> tuple[str, str]:
    """The data set that the scores are of, and what the hub calls it; of other classes or pixels than the set's, names of no set there."""
    config = facts.info.config
    name = f"superclasses of {config.dataset}" if config.coarse else config.dataset
    if config.hold_out_classes is not None:
        name += f" without {held_words(config.hold_out_classes)}"
    if not facts.has_published_pixels:
        return f"{name}, {OTHER_PIXELS}", f"{config.dataset}-other-pixels"
    if name == config.dataset:
        return name, HUB_NAMES.get(name, name)
    return name, f"{config.dataset}-{len(facts.classes)}-classes"


def averaged(facts: Facts) -> str:
    """The words after a score's name where several views of each image were averaged; empty without them."""
    return VIEWS.format(facts.views) if facts.views else ""


def about(facts: Facts) -> list[Block]:
    """The card's first paragraphs: network, loss, classes, input."""
    config, info = facts.info.config, facts.info
    values = [(name, f"{value:.4g}" if isinstance(value, float) else value) for name, value in facts.constants.items()]
    constants = ", ".join(f"{name} {value}" for name, value in values)
    arch = find_arch(config.arch)
    layers = arch.title + (f", stem {config.stem}" if "stem" in arch.options else "")
    text = f"An image classifier of {plural(len(info.classes), 'class')}, trained with cifarnet: {layers}; "
    text += f"loss {config.loss}{f' ({constants})' if constants else ''}; {epochs_words(facts)}; seed {config.seed}."
    inputs = (
        f"It takes RGB images of {config.image_size} x {config.image_size} pixels; others are squeezed to that size. "
    )
    mean, std = (", ".join(f"{value:.4f}" for value in values) for values in (info.mean, info.std))
    inputs += f"Pixels in [0, 1] are normalised with mean {mean} and standard deviation {std} (red, green, blue)."
    names = facts.classes[:NAMED]
    more = f", and {len(facts.classes) - NAMED:,} more" if len(facts.classes) > NAMED else ""
    return [Paragraph(text), Paragraph(inputs), Paragraph(f"Classes: {', '.join(names)}{more}.")]


def epochs_words(facts: Facts) -> str:
    """How long it was trained, and of how many epochs where it is not the model of the last one."""
    done, asked = facts.info.epoch, facts.info.config.epochs
    if facts.best:
        return f"epoch {done} of {asked}, the best on held-out images"
    return plural(done, "epoch") if done == asked else f"{done} of {plural(asked, 'epoch')}"


def data_blocks(facts: Facts) -> list[Block]:
    """The card's section on the data of training and measurement."""
    config, data = facts.info.config, facts.data
    row = DATASETS.get(config.dataset)
    said = facts.info.metrics.get("data")
    words = f"Trained on {said if isinstance(said, str) else config.dataset}"
    shaped = shaping_words(config)
    words += f" ({shaped})" if shaped else ""
    words += "" if facts.has_published_pixels else f", {OTHER_PIXELS}"
    if data is None:
        return [Heading("Data"), Paragraph(f"{words}. No digest of the data was recorded.")]
    words += f": {plural(data.train.images, 'training image')}, {plural(data.test.images, 'test image')}. "
    words += f"Digest of classes, labels and pixels: {data.digests} (cifarnet data shows it)."
    if row and row.from_files:
        words += " The images were read from files of the one who trained it."
    return [Heading("Data"), Paragraph(words)]


def score_blocks(facts: Facts) -> list[Block]:
    """The scores with their intervals, and the largest confusions."""
    if not facts.scores:
        return [Heading("Scores"), Paragraph("No scores were recorded.")]
    rows = []
    for key, value in facts.scores.items():
        interval = "–"
        if key == "accuracy" and facts.images:
            low, high = wilson_interval(round(value * facts.images), facts.images)
            interval = f"{percent(low, unit='')} to {percent(high, unit='')}"
        rows.append([WORDS[key], percent(value, unit=""), interval])
    where = f"on {plural(facts.images, 'test image')}" if facts.images else "on the test images"
    precision = facts.info.config.precision
    said = f"Measured {where}{'' if precision == 'auto' else f', computed in {precision}'}"
    said += "; the interval is Wilson's, 95%." if facts.images and "accuracy" in facts.scores else "."
    if facts.views:
        said += f" These figures are of the model as it was measured in training{averaged(facts)}; cifarnet predict and the "
        said += "exported file look at one view, whose scores are others: cifarnet eval measures them."
    blocks: list[Block] = [Heading("Scores"), Paragraph(said)]
    blocks.append(DocumentTable(["score", "%", "interval"], rows))
    worst = confusions(facts)
    if worst:
        blocks.append(Paragraph("The largest confusions:"))
        blocks.append(DocumentTable(["class → taken for", "images", "of"], worst))
    return blocks


def confusions(facts: Facts) -> list[list[str]]:
    """Class and the class that it was taken for, how many images, of how many; the most first."""
    found = [
        (count, sum(row), facts.classes[true], facts.classes[taken])
        for true, row in enumerate(facts.confusion)
        for taken, count in enumerate(row)
        if true != taken and count
    ]
    found.sort(key=lambda one: -one[0])
    return [[f"{true} → {taken}", f"{count:,}", f"{total:,}"] for count, total, true, taken in found[:SHOWN]]


def calibration_blocks(facts: Facts) -> list[Block]:
    """How far its probabilities can be believed."""
    found = facts.info.calibration
    if found is None:
        text = "The probabilities are the softmax as trained; no temperature was fitted (cifarnet calibrate does it)."
    else:
        text = f"Logits are divided by the temperature {found.temperature:.4g} before the softmax, fitted on "
        text += f"{plural(found.images, 'image')} ({found.source}). An image whose energy score, T log of the sum of "
        text += f"exp(logit / T), is below {found.unknown_at:.4g} is taken for none of the classes: at most 1% of those are."
    return [Heading("Calibration"), Paragraph(text)]


def file_blocks(exported: dict[str, Any]) -> list[Block]:
    """The exported file beside the card, and what its check found."""
    found, size = exported["parity"], exported["input"]["shape"][1]
    kind = f"ONNX, opset {exported['opset']}" if exported["format"] == "onnx" else "torch.export (.pt2)"
    text = f"{Path(exported['file']).name}: {kind}, {exported['precision']}, {exported['bytes'] / 1e6:.2f} MB. "
    text += f"Input images: uint8 RGB, N x {size} x {size} x 3. Outputs: probabilities, logits, embedding (length 1)."
    check = f"Checked against the model on {exported['checked_on']}: largest difference of a logit {found['logit_difference']:.2g}; "
    check += (
        f"{plural(found['changes'], 'image')} with another class; least cosine of two embeddings {found['cosine']:.7f}."
    )
    if found["accuracy"]:
        check += f" Accuracy {percent(found['accuracy'][0])} before, {percent(found['accuracy'][1])} in the file."
    return [Heading("File"), Paragraph(text), Paragraph(check)]


def limits(facts: Facts) -> list[Block]:
    """Where it ends."""
    text = "Every image gets one of the classes above, one that shows none of them too"
    text += ", unless the threshold above is used. " if facts.info.calibration else ". "
    text += "The scores hold for images like the test images; on others nothing was measured, nor for groups of people or things. "
    text += "Embeddings are compared by their cosine; a threshold for that is measured with cifarnet verify."
    licence = "MIT, as cifarnet." if facts.packaged else (
        "Nobody has stated one for these weights: set the license in the head of this file. cifarnet itself is MIT; the data "
        "has terms of its own."
    )  # fmt: skip
    return [Heading("Limits"), Paragraph(text), Heading("Licence"), Paragraph(licence)]


def fenced(text: str) -> str:
    """A block of code, whose fence no text can end."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}bash\n{printable(text)}\n{fence}\n"
