"""Sets of safetensors files: what is written comes back in any slices, no kill loses the last set, broken sets are refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from cifarnet.core.errors import Failed, Refused
from cifarnet.storage import sharded_file as tensor_set
from cifarnet.storage.sharded_file import INDEX, Rows, TensorSet, existing, files_of, index_of, write_set

META = {"format": "f", "kind": "model", "info": "{}"}
WHOLE = torch.arange(60, dtype=torch.float32).view(20, 3)


def make(folder, value=0.0):
    """A set of one process whose tensor lies in two pieces, as two ranks would have written them."""
    path = folder / "last.safetensors"
    write_set(
        path, {"w": Rows(WHOLE[:8] + value, 0), "b": torch.ones(2), "n": torch.tensor(7), "e": torch.empty(0)}, META
    )
    index = index_of(path)
    document = json.loads(index.read_text())
    tag = document["metadata"]["set"]
    second = f"last-{tag}-00002-of-00002.safetensors"
    save_file({"w[8:20]": WHOLE[8:] + value}, folder / second, {"kind": "part", "set": tag})
    document["weight_map"]["w[8:20]"] = second
    index.write_text(json.dumps(document))
    return index


def change(index, edit):
    document = json.loads(index.read_text())
    edit(document)
    index.write_text(json.dumps(document))


def test_any_slice_is_what_was_written(tmp_path):
    index = make(tmp_path)
    found = TensorSet(index, "f", "model")
    assert found.tensors["w"].shape == (20, 3) and found.metadata["info"] == "{}"
    assert torch.equal(found.read("w"), WHOLE)
    for rows in (range(0, 8), range(3, 17), range(8, 20), range(19, 20)):
        assert torch.equal(found.read("w", rows), WHOLE[rows.start : rows.stop])
    assert torch.equal(found.read("b"), torch.ones(2)) and found.read("n") == 7
    assert found.read("e").shape == (0,)


def test_the_files_follow_the_usual_convention(tmp_path):
    """Each tensor of weight_map is a tensor of the file it names, as safetensors itself reads it."""
    index = make(tmp_path)
    document = json.loads(index.read_text())
    assert index.name == f"last.safetensors{INDEX}"
    for name, file in document["weight_map"].items():
        assert name in load_file(tmp_path / file)


def test_a_later_saving_replaces_the_earlier_one(tmp_path):
    make(tmp_path)
    (tmp_path / "last-other.safetensors").write_bytes(b"not ours")
    index = make(tmp_path, 5.0)
    assert torch.equal(TensorSet(index, "f", "model").read("w"), WHOLE + 5)
    kept = {file.name for file in tmp_path.iterdir()}
    assert kept == {file.name for file in files_of(index)} | {"last-other.safetensors"} and len(kept) == 4


@pytest.mark.parametrize("moment", range(3))
def test_killed_at_any_moment_a_whole_set_is_there(tmp_path, monkeypatch, moment):
    """Before and after the part, before and after the index: the old set until the index is replaced, then the new one."""
    index = make(tmp_path)
    done = []

    def until(kind, real):
        def step(*arguments, **options):
            if len(done) == moment:
                raise KeyboardInterrupt
            done.append(kind)
            return real(*arguments, **options)

        return step

    with monkeypatch.context() as patch:
        patch.setattr(tensor_set, "write_file", until("write", tensor_set.write_file))
        patch.setattr(tensor_set, "sweep", until("sweep", tensor_set.sweep))
        with pytest.raises(KeyboardInterrupt):
            write_set(index, {"w": Rows(WHOLE + 9, 0), "b": torch.ones(2), "n": torch.tensor(7)}, META)
    expected = WHOLE if moment < 2 else WHOLE + 9
    assert torch.equal(TensorSet(index, "f", "model").read("w"), expected)
    write_set(index, {"w": WHOLE}, META)
    assert len(files_of(index)) == 2, "what a kill left behind goes with the next saving"


def test_a_full_disk_keeps_the_old_set(tmp_path, monkeypatch):
    index = make(tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}

    def full(path, data):
        raise Failed(str(path), "cannot be written (No space left on device)")

    monkeypatch.setattr(tensor_set, "write_file", full)
    with pytest.raises(Failed, match="No space"):
        write_set(index, {"w": WHOLE}, META)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


BROKEN = {
    "missing part": (lambda d, p: next(p.glob("last-*00002-of*")).unlink(), "missing"),
    "rows lack": (lambda d, p: d["weight_map"].pop("w[0:8]"), "lacks rows 0 to 7 of w"),
    "rows twice": (lambda d, p: d["weight_map"].update({"w[0:8]": "again.safetensors"}), "missing"),
    "another saving": (lambda d, p: d["metadata"].update({"set": "00000000"}), "another saving"),
    "no stamp": (lambda d, p: d["metadata"].pop("set"), "another saving"),
    "unknown tensor": (lambda d, p: d["weight_map"].update({"x": d["weight_map"]["b"]}), "lacks x"),
    "other folder": (lambda d, p: d["weight_map"].update({"b": "../b.safetensors"}), "not beside it"),
    "pickle": (lambda d, p: d["weight_map"].update({"b": "weights.bin"}), "not beside it"),
    "no table": (lambda d, p: d.pop("weight_map"), "not an index"),
    "wrong kind": (lambda d, p: d["metadata"].update({"kind": "state"}), "is a state file"),
    "not ours": (lambda d, p: d["metadata"].pop("format"), "no cifarnet metadata"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_sets_are_refused_in_one_line(tmp_path, name):
    index = make(tmp_path)
    edit, message = BROKEN[name]
    change(index, lambda document: edit(document, tmp_path))
    with pytest.raises(Refused, match=message) as error:
        TensorSet(index, "f", "model")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("w[8:21]", WHOLE[8:], "has 12 rows"),
        ("w[9:21]", WHOLE[8:], "lacks rows 8 to 8 of w"),
        ("w[7:19]", WHOLE[8:], "repeats rows of w"),
        ("w[8:20]", WHOLE[8:, :2].contiguous(), "different types or shapes"),
        ("w[8:20]", WHOLE[8:].half(), "different types or shapes"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(tmp_path, name, tensor, message):
    index = make(tmp_path)
    document = json.loads(index.read_text())
    second = document["weight_map"].pop("w[8:20]")
    save_file({name: tensor}, tmp_path / second, {"kind": "part", "set": document["metadata"]["set"]})
    change(index, lambda d: (d["weight_map"].pop("w[8:20]"), d["weight_map"].update({name: second})))
    with pytest.raises(Refused, match=message):
        TensorSet(index, "f", "model")


def test_a_truncated_part_and_an_index_that_is_none(tmp_path):
    index = make(tmp_path)
    part = next(tmp_path.glob("last-*00002-of*"))
    part.write_bytes(part.read_bytes()[:-5])
    with pytest.raises(Refused, match="broken"):
        TensorSet(index, "f", "model")
    for text in ("", "[]", "{", '{"metadata": {}, "weight_map": {}}'):
        index.write_text(text)
        with pytest.raises(Refused, match="not an index"):
            TensorSet(index, "f", "model")
    index.unlink()
    with pytest.raises(Refused, match="no such file"):
        TensorSet(index, "f", "model")


def test_the_file_or_the_set_is_found(tmp_path):
    path = tmp_path / "last.safetensors"
    assert existing(path) is None
    index = make(tmp_path)
    assert existing(path) == index
    path.touch()
    assert existing(path) == path
