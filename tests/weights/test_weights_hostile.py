"""Hostile files: they try to fill memory, to crash or hang the process, or to read other files."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import weights_files as files

import fastnst
from fastnst.errors import WeightsError
from fastnst.weights import load

KERNEL, BIAS = files.random_convs("conv1_1")["conv1_1"]
BOMB = 400 << 20  # bytes that a small file decompresses to


def zeros(size: int, start: bytes = b"") -> bytes:
    """Compress ``start`` and ``size`` zeros without allocating them."""
    packer = zlib.compressobj(6)
    block = bytes(1 << 20)
    return packer.compress(start) + b"".join(packer.compress(block) for _ in range(size >> 20)) + packer.flush()


def zip_bomb(path: Path, member: str, start: bytes, more: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in more.items():
            archive.writestr(name, data)
        with archive.open(member, "w") as file:
            file.write(start)
            for _ in range(BOMB >> 20):
                file.write(bytes(1 << 20))


def npy_header(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue()


def npz_of_a_large_shape(path: Path) -> None:
    more = {"conv1_1_b.npy": npy_header((64,)) + bytes(256)}
    zip_bomb(path, "conv1_1_W.npy", npy_header((3, 3, 1 << 10, BOMB // (36 << 10))), more)


def npz_with_a_large_header(path: Path) -> None:
    zip_bomb(path, "conv1_1_W.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{", {})


def npz_with_a_large_bias(path: Path) -> None:
    more = {"conv1_1_W.npy": npy_header((3, 3, 3, 64)) + bytes(6912)}
    zip_bomb(path, "conv1_1_b.npy", npy_header((BOMB // 4,)), more)


def h5(path: Path, chunk: bytes = b"", **options: Any) -> None:
    """Write a kernel as such a dataset, with the given compressed bytes as its first chunk."""
    import h5py

    with h5py.File(path, "w") as file:
        file["block1_conv1/bias:0"] = BIAS
        node = file.create_dataset("block1_conv1/kernel:0", **{"shape": (3, 3, 3, 64), "dtype": "f4", **options})
        if chunk:
            node.id.write_direct_chunk((0, 0, 0, 0), chunk)


def h5_of_a_large_shape(path: Path) -> None:
    h5(path, shape=(3, 3, 9000, 9000), chunks=(3, 3, 64, 64))


def h5_with_a_chunk_that_unpacks_to_more(path: Path) -> None:
    h5(path, zeros(BOMB), chunks=(3, 3, 3, 64), compression=4)


def h5_with_a_chunk_that_unpacks_to_less(path: Path) -> None:
    h5(path, zlib.compress(b"abc"), chunks=(3, 3, 3, 64), compression=4)


def h5_with_a_large_chunk(path: Path) -> None:
    """HDF5 itself reads out of bounds here."""
    h5(path, zlib.compress(b"abc"), chunks=(3, 3, 1000, 99999), maxshape=(None,) * 4, compression=4)


def h5_of_deep_groups(path: Path) -> None:
    import h5py

    with h5py.File(path, "w", libver="latest") as file:
        group = file.id
        for _ in range(3000):
            group = h5py.h5g.create(group, b"a")


def h5_of_groups_that_hold_each_other(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        groups = [file.create_group(f"g{number}") for number in range(40)]
        for one in groups:
            for other in groups:
                one[other.name[1:]] = other


def mat(path: Path, packed: bytes) -> None:
    """Write a MAT-file of one compressed variable."""
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 15, len(packed)) + packed)


def mat_matrix(kind: int, sides: tuple[int, ...], size: int, name: bytes = b"layers") -> bytes:
    """The beginning of an array whose contents take ``size`` bytes."""
    shape = struct.pack(f"<II{len(sides)}i", 5, 4 * len(sides), *sides) + bytes(-4 * len(sides) % 8)
    start = (
        struct.pack("<IIII", 6, 8, kind, 0) + shape + struct.pack("<II", 1, len(name)) + name + bytes(-len(name) % 8)
    )
    return struct.pack("<II", 14, len(start) + size) + start


def mat_of_many_cells(path: Path) -> None:
    packer = zlib.compressobj(6)
    empty = struct.pack("<II", 14, 0) * (1 << 17)
    packed = packer.compress(mat_matrix(1, (1, BOMB // 8), BOMB))
    mat(path, packed + b"".join(packer.compress(empty) for _ in range(BOMB >> 20)) + packer.flush())


def mat_of_structs_without_fields(path: Path) -> None:
    fields = struct.pack("<IIII", 0x40005, 32, 1, 0)
    mat(path, zlib.compress(mat_matrix(2, (2**31 - 1, 2**31 - 1), len(fields)) + fields))


def mat_of_deep_cells(path: Path) -> None:
    inner = b""
    for depth in range(3000):
        inner = mat_matrix(1, (1, 1), len(inner), b"layers" if depth == 2999 else b"") + inner
    mat(path, zlib.compress(inner))


def mat_with_a_large_name(path: Path) -> None:
    start = mat_matrix(1, (1, 1), BOMB, b"")
    mat(path, zeros(BOMB, start[:-8] + struct.pack("<II", 1, BOMB)))


def mat_with_a_bomb_beside_it(path: Path) -> None:
    numbers = struct.pack("<II", 9, BOMB)
    mat(path, zeros(BOMB, mat_matrix(6, (1, BOMB // 8), 8 + BOMB, b"nothing") + numbers))


def mat_of_many_small_elements(path: Path) -> None:
    """Each is inside the tag before it; none makes the reader decompress the file from its start again."""
    cell = mat_matrix(4, (1, 1), 8, b"") + struct.pack("<II", 0x10010, ord("x"))
    count = 90_000
    mat(path, zlib.compress(mat_matrix(1, (1, count), count * len(cell)) + cell * count))


def mat_that_claims_a_large_kernel(path: Path) -> None:
    name = mat_matrix(4, (1, 7), 16, b"") + struct.pack("<II", 16, 7) + b"conv1_1\0"
    kernel = mat_matrix(6, (3, 3, 1 << 10, BOMB // 72 >> 10), 8 + BOMB, b"") + struct.pack("<II", 9, BOMB)
    fields = struct.pack("<II", 0x40005, 8) + struct.pack("<II", 1, 24) + b"name\0\0\0\0biases\0\0filters\0"
    before = fields + name + mat_matrix(6, (64, 1), 8, b"") + struct.pack("<II", 9, 0)
    mat(path, zeros(BOMB, mat_matrix(2, (1, 1), len(before) + len(kernel) + BOMB) + before + kernel))


def pth_with_a_compressed_pickle(path: Path) -> None:
    zip_bomb(path, "vgg/data.pkl", b"\x80\x02", {"vgg/version": b"3"})


def pth_with_a_large_pickle(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("vgg/data.pkl", b"\x80\x02" + b"]" * (16 << 20) + b".")


def pth_of_an_expanded_tensor(path: Path) -> None:
    torch.save({"conv1_1.weight": torch.zeros(1).expand(1 << 15, 1 << 15, 3, 3), "conv1_1.bias": torch.zeros(64)}, path)


def pth_with_strides_beyond_its_storage(path: Path) -> None:
    torch.save({"conv1_1.weight": torch.zeros(64, 3, 3, 3), "conv1_1.bias": torch.zeros(64)}, path)
    data = path.read_bytes()
    strides = b"K\x1bK\x09K\x03K\x01"
    assert data.count(strides) == 1
    path.write_bytes(data.replace(strides, b"K\xffK\xffK\xffK\xff"))


def old_pth_that_claims_more_than_it_has(path: Path) -> None:
    files.write_old_pth(path, {"conv1_1": (KERNEL, BIAS)})
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<q", KERNEL.size), struct.pack("<q", 1 << 40)))


def pickled_in_a_zip(path: Path, pickled: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("vgg/data.pkl", pickled)


def pth_with_a_key_that_takes_for_ever_to_hash(path: Path) -> None:
    doubled = b"".join(b"q\x00h\x00\x86" for _ in range(99))
    pickled_in_a_zip(path, b"\x80\x02}K\x01\x85" + doubled + b"K\x01s.")


def pth_that_copies_a_dictionary_many_times(path: Path) -> None:
    pairs = b"](" + b"".join(b"K" + bytes([number % 256]) + b"K\x00\x86" for number in range(50_000)) + b"eq\x00"
    copy = b"ccollections\nOrderedDict\nh\x00\x85R"
    pickled_in_a_zip(path, b"\x80\x02" + pairs + copy * 20_000 + b".")


def pth_with_a_far_memo(path: Path) -> None:
    """Python's C unpickler allocates a table with as many entries."""
    pickled_in_a_zip(path, b"\x80\x02}r\xff\xff\xff\x7f.")


def safetensors_with_a_large_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 1 << 40) + b'{"a":1}')


def safetensors_of_a_large_shape(path: Path) -> None:
    size = 1 << 40
    header = {"conv1_1.weight": {"dtype": "F32", "shape": [size], "data_offsets": [0, 4 * size]}}
    data = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(data)) + data + bytes(64))


HOSTILE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "shape.npz": (npz_of_a_large_shape, "conv1_1 weight should be [64, 3, 3, 3]"),
    "header.npz": (npz_with_a_large_header, "reading array header"),
    "bias.npz": (npz_with_a_large_bias, "conv1_1 bias should be [64]"),
    "shape.h5": (h5_of_a_large_shape, "conv1_1 weight should be [64, 3, 3, 3]"),
    "more.h5": (h5_with_a_chunk_that_unpacks_to_more, "a chunk that does not unpack to 6912 bytes"),
    "less.h5": (h5_with_a_chunk_that_unpacks_to_less, "a chunk that does not unpack to 6912 bytes"),
    "chunk.h5": (h5_with_a_large_chunk, "claims chunks of 3599964000 bytes"),
    "deep.h5": (h5_of_deep_groups, "nests groups more than 32 deep"),
    "round.h5": (h5_of_groups_that_hold_each_other, "no VGG convolutions found"),
    "cells.mat": (mat_of_many_cells, "more than 100000 arrays"),
    "structs.mat": (mat_of_structs_without_fields, "more than 100000 arrays"),
    "deep.mat": (mat_of_deep_cells, "arrays nested too deep"),
    "name.mat": (mat_with_a_large_name, "a name, shape or text of 419430400 bytes"),
    "beside.mat": (mat_with_a_bomb_beside_it, "no VGG convolutions found"),
    "small.mat": (mat_of_many_small_elements, "no VGG convolutions found"),
    "kernel.mat": (mat_that_claims_a_large_kernel, "conv1_1 weight should be [64, 3, 3, 3]"),
    "compressed.pth": (pth_with_a_compressed_pickle, "its parts are compressed"),
    "pickle.pth": (pth_with_a_large_pickle, "it describes its tensors in 16777219 bytes"),
    "expanded.pth": (pth_of_an_expanded_tensor, "conv1_1 weight should be [64, 3, 3, 3]"),
    "strides.pth": (pth_with_strides_beyond_its_storage, "conv1_1.weight lies outside its storage"),
    "old.pth": (old_pth_that_claims_more_than_it_has, "it ends before byte"),
    "hash.pth": (pth_with_a_key_that_takes_for_ever_to_hash, "a key that is neither text nor number"),
    "copies.pth": (pth_that_copies_a_dictionary_many_times, "too many entries"),
    "memo.pth": (pth_with_a_far_memo, "no VGG convolutions found"),
    "header.safetensors": (safetensors_with_a_large_header, "its header claims more than 10485760 bytes"),
    "shape.safetensors": (safetensors_of_a_large_shape, "file not fully covered"),
}
_CHILD = """
import json, resource, signal, sys
from fastnst.errors import WeightsError
from fastnst.weights import load

def peak():
    return sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))

load("{folder}/good.h5", arch="vgg19")
for name in sys.argv[1:]:
    before = peak()
    signal.alarm(60)
    try:
        load(f"{folder}/{{name}}", arch="vgg19")
        error = ""
    except WeightsError as caught:
        error = str(caught)
    except BaseException as caught:
        error = repr(caught)
    print(json.dumps([name, error, peak() - before]), flush=True)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, int]]:
    """For each hostile file the error, and the increase of the peak memory of a process and its children in kB."""
    folder = tmp_path_factory.mktemp("hostile")
    files.write_keras2(folder / "good.h5", files.random_convs("conv1_1"))
    for name, (write, _) in HOSTILE.items():
        write(folder / name)
        assert (folder / name).stat().st_size < 20 << 20
    environment = {**os.environ, "PYTHONPATH": str(Path(fastnst.__file__).parents[1])}
    said: dict[str, tuple[str, int]] = {}
    while len(said) < len(HOSTILE):
        names = [name for name in HOSTILE if name not in said]
        command = [sys.executable, "-c", _CHILD.format(folder=folder), *names]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        for line in ended.stdout.splitlines():
            name, error, growth = json.loads(line)
            said[name] = error, growth
        if ended.returncode:
            died = next(name for name in HOSTILE if name not in said)
            said[died] = f"the process ended with {ended.returncode}: {ended.stderr[-300:]}", 0
    return said


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_clear_error_and_takes_no_memory(name: str, outcomes: dict[str, tuple[str, int]]) -> None:
    error, growth = outcomes[name]
    assert f"/{name}: " in error
    assert HOSTILE[name][1] in error
    assert error.isprintable()
    assert len(error) < 1000
    assert "memory" not in error
    assert growth < 100_000


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_npz_members_of_other_methods_are_rejected(method: int, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "vgg.npz", "w", method) as archive:
        archive.writestr("conv1_1_W.npy", npy_header((3, 3, 3, 64)))
    with pytest.raises(WeightsError, match="compressed by another method than NumPy's"):
        load(tmp_path / "vgg.npz", arch="vgg19")


@pytest.mark.parametrize("kind", ["external", "virtual", "external link", "soft link", "dangling link"])
def test_an_hdf5_file_cannot_lead_to_another(kind: str, tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        secret["kernel"] = np.ones((3, 3, 3, 64), np.float32)
    with h5py.File(tmp_path / "vgg.h5", "w") as file:
        layer = file.create_group("block1_conv1")
        layer["bias:0"] = BIAS
        if kind == "external":
            external = [(str(tmp_path / "secret.h5"), 0, 6912)]
            layer.create_dataset("kernel:0", (3, 3, 3, 64), "f4", external=external)
        elif kind == "virtual":
            layout = h5py.VirtualLayout((3, 3, 3, 64), "f4")
            layout[...] = h5py.VirtualSource(tmp_path / "secret.h5", "kernel", (3, 3, 3, 64))
            layer.create_virtual_dataset("kernel:0", layout)
        elif kind == "external link":
            layer["kernel:0"] = h5py.ExternalLink(tmp_path / "secret.h5", "kernel")
        else:
            layer["kernel:0"] = h5py.SoftLink("/block1_conv1/bias:0" if kind == "soft link" else "/gone")
    wanted = "is a link" if "link" in kind else "keeps its values in another file"
    with pytest.raises(WeightsError, match=rf"refused, block1_conv1/kernel:0 {wanted}"):
        load(tmp_path / "vgg.h5", arch="vgg19")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_an_hdf5_file_cannot_wait_for_a_pipe(tmp_path: Path) -> None:
    """A virtual dataset of unlimited size opens its source when its shape is read."""
    import h5py

    os.mkfifo(tmp_path / "pipe")
    endless = slice(0, h5py.h5s.UNLIMITED)
    layout = h5py.VirtualLayout((3, 3, 3, 64), "f4", maxshape=(None, 3, 3, 64))
    layout[endless] = h5py.VirtualSource(tmp_path / "pipe", "k", (3, 3, 3, 64), "f4", maxshape=(None, 3, 3, 64))[
        endless
    ]
    with h5py.File(tmp_path / "vgg.h5", "w", libver="latest") as file:
        file.create_virtual_dataset("block1_conv1", layout)
    with pytest.raises(WeightsError, match="keeps its values in another file"):
        load(tmp_path / "vgg.h5", arch="vgg19")


@pytest.mark.slow
def test_an_hdf5_file_that_hangs_the_library_is_one_clear_error(tmp_path: Path) -> None:
    """The library loops over the free objects of its heap by their size, infinitely if a size is zero."""
    path = tmp_path / "vgg.h5"
    files.write_keras3(path, files.random_convs("conv1_1"))
    data = bytearray(path.read_bytes())
    place = data.index(b"GCOL") + 16
    while int.from_bytes(data[place : place + 2], "little"):
        size = int.from_bytes(data[place + 8 : place + 16], "little")
        place += 16 + -(-size // 8) * 8
    data[place + 8 : place + 16] = bytes(8)
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="damaged, the HDF5 library"):
        load(path, arch="vgg19")


@pytest.mark.parametrize("code", ["import os; os.abort()", "print('nothing')", "import time; time.sleep(60)"])
def test_a_crash_or_nonsense_of_the_hdf5_library_is_one_clear_error(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastnst.weights.readers import keras

    files.write_keras2(tmp_path / "vgg.h5", files.random_convs("conv1_1"))
    (tmp_path / "index.py").write_text(code)
    monkeypatch.setattr(keras.hdf5_index, "__file__", str(tmp_path / "index.py"))
    monkeypatch.setattr(keras, "_SECONDS", 2)
    with pytest.raises(WeightsError, match=r"vgg\.h5: damaged, ") as caught:
        load(tmp_path / "vgg.h5", arch="vgg19")
    assert str(caught.value).isprintable()


def test_modules_beside_a_file_are_not_imported_by_its_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_keras2(tmp_path / "vgg.h5", files.random_convs("conv1_1"))
    for name in ("h5py", "numpy", "json", "re"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    assert load("vgg.h5", arch="vgg19").arch == "vgg19"


@pytest.mark.parametrize("filters", [{"compression": "lzf"}, {"scaleoffset": 4}])
def test_hdf5_filters_that_keras_does_not_use_are_rejected(filters: dict[str, Any], tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "vgg.h5", "w") as file:
        file["block1_conv1/bias:0"] = BIAS
        file.create_dataset("block1_conv1/kernel:0", data=np.moveaxis(KERNEL, (2, 3, 1, 0), (0, 1, 2, 3)), **filters)
    with pytest.raises(WeightsError, match="packed by other filters than gzip and shuffle"):
        load(tmp_path / "vgg.h5", arch="vgg19")


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize(
    "options",
    [
        {"chunks": (3, 3, 3, 64)},
        {"chunks": (2, 3, 2, 40), "compression": "gzip"},
        {"chunks": (3, 2, 3, 48), "compression": "gzip", "shuffle": True, "fletcher32": True},
        {"chunks": (1, 1, 3, 64), "maxshape": (None, 3, 3, None), "shuffle": True},
        {"chunks": (3, 3, 3, 64), "maxshape": (3, 3, 3, None), "compression": 9},
    ],
)
def test_chunks_are_read_as_h5py_reads_them(options: dict[str, Any], libver: str, tmp_path: Path) -> None:
    import h5py

    kernel = np.moveaxis(KERNEL, (2, 3, 1, 0), (0, 1, 2, 3))
    with h5py.File(tmp_path / "vgg.h5", "w", libver=libver) as file:
        file["block1_conv1/bias:0"] = BIAS
        file.create_dataset("block1_conv1/kernel:0", data=kernel, **options)
    with h5py.File(tmp_path / "vgg.h5") as file:
        assert np.array_equal(file["block1_conv1/kernel:0"][()], kernel)
    assert np.array_equal(load(tmp_path / "vgg.h5", arch="vgg19", convention="caffe-rgb").convs["conv1_1"][0], KERNEL)


def test_an_hdf5_reference_is_not_followed(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "vgg.h5", "w") as file:
        file["kernel"], file["block1_conv1/bias:0"] = np.zeros((3, 3, 3, 64), np.float32), BIAS
        file["block1_conv1/kernel:0"] = np.full((3, 3, 3, 64), file["kernel"].ref, h5py.ref_dtype)
    with pytest.raises(WeightsError, match="conv1_1 has no weight"):
        load(tmp_path / "vgg.h5", arch="vgg19")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".h5", ".mat", ".npz"])
def test_only_regular_files_are_opened(suffix: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"device{suffix}").symlink_to("/dev/zero")
    for name in ("pipe", "device"):
        with pytest.raises(WeightsError, match="a pipe or a device; give a regular file"):
            load(tmp_path / f"{name}{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(WeightsError, match="a folder; give the weights file itself"):
        load(tmp_path / f"folder{suffix}")


def test_a_symbolic_link_to_a_file_is_followed(tmp_path: Path) -> None:
    files.write_pth(tmp_path / "vgg.pth", files.random_convs())
    (tmp_path / "link.pth").symlink_to("vgg.pth")
    assert load(tmp_path / "link.pth", arch="vgg19").arch == "vgg19"


@pytest.mark.parametrize("name", ["n" * 300, "n" * 300 + ".pth", "nul\0.pth"])
def test_invalid_file_names_are_one_clear_error(name: str) -> None:
    from fastnst.errors import UsageError

    with pytest.raises((WeightsError, UsageError)) as caught:
        load(name)
    assert str(caught.value).isprintable()


CALLS = ["os.system", "builtins.eval", "posix.mkdir", "torch.serialization.os.system", "subprocess.Popen"]


@pytest.mark.parametrize("called", CALLS)
def test_globals_of_a_pickle_are_not_imported(called: str, tmp_path: Path) -> None:
    module, _, name = called.rpartition(".")
    pickled_in_a_zip(tmp_path / "vgg.pth", f"\x80\x02c{module}\n{name}\n(X\x01\x00\x00\x00atR.".encode("latin-1"))
    with pytest.raises(WeightsError, match=rf"refused, reading it would run code \({called}\)"):
        load(tmp_path / "vgg.pth")


def test_names_of_pytorch_in_a_pickle_are_not_called(tmp_path: Path) -> None:
    call = b"ctorch\nload\nX\x05\x00\x00\x00a.pth\x85R"
    pickled_in_a_zip(tmp_path / "vgg.pth", b"\x80\x02}X\x0e\x00\x00\x00conv1_1.weight" + call + b"s.")
    with pytest.raises(
        WeightsError, match=r"conv1_1\.weight is not a plain tensor of floating point numbers \(torch\.load"
    ):
        load(tmp_path / "vgg.pth")
