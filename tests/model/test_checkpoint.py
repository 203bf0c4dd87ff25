"""Checkpoints of every format: exact, lazy, and in bounded memory."""

import json
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from zhbert.errors import ZhbertError
from zhbert.model.checkpoint import open_checkpoint
from zhbert.model.entry import Entry, converted, entries_of
from zhbert.model.formats.pickle import write_pickle
from zhbert.model.formats.safetensors import write_safetensors

KINDS = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool]
shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
# Names without inner dots: none of them is another program's for a tensor of BERT.
characters = st.characters(exclude_categories=["Cs"], exclude_characters="./")
tables = st.dictionaries(
    st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="./"), min_size=1, max_size=20
    ).map("x.{}".format),
    st.tuples(shapes, st.sampled_from(KINDS), st.integers(0, 2**31)),
    min_size=1,
    max_size=6,
)


def make(table: dict) -> dict[str, torch.Tensor]:
    def tensor(shape: tuple[int, ...], kind: torch.dtype, seed: int) -> torch.Tensor:
        numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 100
        return numbers.to(kind)

    return {name: tensor(*args) for name, args in table.items()}


def equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)


@given(tables)
def test_safetensors_are_what_the_library_reads(tmp_path_factory, table: dict) -> None:
    folder, tensors = tmp_path_factory.mktemp("model"), make(table)
    write_safetensors(folder, entries_of(tensors))
    theirs = load_file(folder / "model.safetensors")
    assert all(equal(theirs[name], tensor) for name, tensor in tensors.items())
    assert len(theirs) == len(tensors)


@given(tables)
def test_pickles_are_what_torch_reads(tmp_path_factory, table: dict) -> None:
    folder, tensors = tmp_path_factory.mktemp("model"), make(table)
    write_pickle(folder, entries_of(tensors))
    file = folder / "pytorch_model.bin"
    for mapped in (False, True):
        theirs = torch.load(file, weights_only=True, mmap=mapped)
        assert list(theirs) == list(tensors)
        assert all(equal(theirs[name], tensor) for name, tensor in tensors.items())
    # Checksums hold, for whoever unpacks the file with something else than torch.
    assert zipfile.ZipFile(file).testzip() is None


def test_the_same_model_is_the_same_bytes_of_torch_save(tmp_path: Path) -> None:
    """Also in another process, and under the names inside that torch.save gives."""
    entries = entries_of({"x.a": torch.ones(3, 2), "x.b": torch.arange(4)})
    program = """
    import sys
    from pathlib import Path
    import torch
    from zhbert.model.entry import entries_of
    from zhbert.model.formats.pickle import write_pickle

    entries = entries_of({"x.a": torch.ones(3, 2), "x.b": torch.arange(4)})
    write_pickle(Path(sys.argv[1]), entries)
    """
    for name in ("one", "other", "theirs"):
        (tmp_path / name).mkdir()
    write_pickle(tmp_path / "one", entries)
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program), tmp_path / "other"],
        check=True,
    )
    one, other, theirs = (tmp_path / n / "pytorch_model.bin" for n in ("one", "other", "theirs"))
    assert one.read_bytes() == other.read_bytes()
    torch.save({name: entry.read() for name, entry in entries.items()}, theirs)
    assert zipfile.ZipFile(one).namelist() == zipfile.ZipFile(theirs).namelist()


@given(tables, st.integers(1, 200))
def test_what_is_written_is_read(tmp_path_factory, table: dict, bound: int) -> None:
    tensors = make(table)
    for write in (write_safetensors, write_pickle):
        folder = tmp_path_factory.mktemp("model")
        bounded = {"max_shard_bytes": bound} if write is write_safetensors else {}
        write(folder, entries_of(tensors), **bounded)
        entries = open_checkpoint(folder).entries
        assert set(entries) == set(tensors)
        for name, entry in entries.items():
            assert (entry.shape, entry.dtype) == (tuple(tensors[name].shape), tensors[name].dtype)
            assert equal(entry.read(), tensors[name])


def test_shards_keep_within_their_bound(tmp_path: Path) -> None:
    tensors = {f"x.{i}": torch.full((10,), float(i)) for i in range(9)}
    write_safetensors(tmp_path, entries_of(tensors), max_shard_bytes=130)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert files == [f"model-{i:05}-of-00003.safetensors" for i in (1, 2, 3)]
    assert all(len(load_file(tmp_path / file)) == 3 for file in files)
    assert index["metadata"]["total_size"] == 360


def test_another_type_is_made_on_the_way(tmp_path: Path) -> None:
    tensors = {"x.a": torch.randn(3, 4), "x.ids": torch.arange(3)}
    write_safetensors(tmp_path, converted(entries_of(tensors), torch.bfloat16))
    theirs = load_file(tmp_path / "model.safetensors")
    assert equal(theirs["x.a"], tensors["x.a"].bfloat16())
    assert equal(theirs["x.ids"], tensors["x.ids"])


def test_a_changed_entry_knows_its_shape_before_it_is_read() -> None:
    def read() -> torch.Tensor:
        raise AssertionError("read too early")

    entry = Entry((2, 3), torch.float16, read).then(lambda t: t.float().t()[1:])
    assert (entry.shape, entry.dtype, entry.size) == ((2, 2), torch.float32, 16)


def test_pickles_of_old_pytorch_are_read(tmp_path: Path) -> None:
    tensors = {"x.a": torch.randn(3, 4), "x.b": torch.randn(2).half()}
    file = tmp_path / "pytorch_model.bin"
    torch.save(tensors, file, _use_new_zipfile_serialization=False)
    entries = open_checkpoint(tmp_path).entries
    assert all(equal(entries[name].read(), tensor) for name, tensor in tensors.items())


def test_a_type_that_no_bert_has_is_named(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    tensors = {"x.a": torch.ones(2).to(torch.float8_e4m3fn)}
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ZhbertError, match=r"x\.a is kept as F8_E4M3"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/hostname", "sub/model.safetensors"])
def test_a_shard_outside_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "model" / "sub").mkdir(parents=True)
    for place in (tmp_path, tmp_path / "model" / "sub"):
        write_safetensors(place, entries_of({"x.a": torch.ones(2)}))
    index = tmp_path / "model" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x.a": name}}))
    with pytest.raises(ZhbertError, match="not a file beside it"):
        open_checkpoint(tmp_path / "model")


@pytest.mark.parametrize("write", [write_safetensors, write_pickle])
def test_an_interrupted_writing_leaves_the_old_file(tmp_path: Path, write) -> None:
    write(tmp_path, entries_of({"x.a": torch.ones(2)}))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def fail() -> torch.Tensor:
        raise OSError(28, "No space left on device", "x")

    broken = {"x.a": Entry.of(torch.zeros(2)), "x.b": Entry((3,), torch.float32, fail)}
    with pytest.raises(ZhbertError, match="the disk is full"):
        write(tmp_path, broken)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_large_model_passes_through_little_memory(tmp_path: Path) -> None:
    """640 MB of tensors there and back: far less than one copy beside what torch itself takes."""
    program = """
    import resource, sys
    from pathlib import Path
    import torch
    from zhbert.model.checkpoint import open_checkpoint
    from zhbert.model.entry import Entry
    from zhbert.model.formats.pickle import write_pickle
    from zhbert.model.formats.safetensors import write_safetensors

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

    one = Entry((4096, 1024), torch.float32, lambda: torch.ones(4096, 1024))
    entries = {f"x.{i}": one for i in range(40)}
    folders = [Path(sys.argv[1]) / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    before = peak()
    write_safetensors(folders[0], entries)
    write_pickle(folders[1], open_checkpoint(folders[0]).entries)
    write_safetensors(folders[2], open_checkpoint(folders[1]).entries)
    print(peak() - before)
    """
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(result.stdout) < 400
