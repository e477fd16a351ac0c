"""torch's files without torch: bit-exact round trips, and pickles that would like to do something else."""

import os
import pickle
import zipfile
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfjax.errors import UserError
from rfjax.tensors import legacy, pt
from rfjax.tensors.pt import open_pt, write_pt

KINDS = list(pt.STORAGE_NAMES)
SIX = np.arange(6, dtype=np.float32)


@dataclass
class Name:
    """Pickled as the global "module name", which is not imported."""

    name: str


@dataclass
class Call:
    """Pickled as a call, and perhaps a state that is set on what it returns; `op` may create an object instead."""

    what: object
    arguments: tuple = ()
    state: object = None
    op: bytes = pickle.REDUCE


@dataclass
class Storage:
    """Pickled as torch's persistent id."""

    kind: str
    key: str
    count: int


@dataclass
class Module:
    """Pickled as the persistent id of a class with its source, as torch did before 1.6."""

    pid: tuple


def encode(value):
    """Pickle opcodes as torch writes them."""
    if isinstance(value, Module):
        return encode(value.pid) + pickle.BINPERSID
    if isinstance(value, Name):
        return pickle.GLOBAL + value.name.replace(" ", "\n").encode() + b"\n"
    if isinstance(value, Storage):
        pid = ("storage", Name(f"torch {value.kind}Storage"), value.key, "cuda:0", value.count)
        return encode(pid) + pickle.BINPERSID
    if isinstance(value, Call):
        call = encode(value.what) + (b"" if value.op == b"" else encode(value.arguments) + value.op)
        return call if value.state is None else call + encode(value.state) + pickle.BUILD
    if isinstance(value, dict):
        items = b"".join(encode(key) + encode(item) for key, item in value.items())
        return pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS
    if isinstance(value, tuple | list):
        return pickle.MARK + b"".join(map(encode, value)) + (pickle.TUPLE if isinstance(value, tuple) else pickle.LIST)
    return pickle.dumps(value, 2)[2:-1]


ORDERED, REBUILD = Name("collections OrderedDict"), Name("torch._utils _rebuild_tensor_v2")


def tensor(kind="Float", key="0", count=6, start=0, shape=(2, 3), strides=(3, 1)):
    return Call(REBUILD, (Storage(kind, key, count), start, shape, strides, False, Call(ORDERED)))


def save(path, value, *data, compression=zipfile.ZIP_STORED, **entries):
    """A torch file by hand."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + encode(value) + b".")
        for key, array in enumerate(data):
            archive.writestr(f"x/data/{key}", array.tobytes())
        for name, text in entries.items():
            archive.writestr(f"x/{name}", text)
    return path


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.lists(st.integers(0, 4), max_size=3)), max_size=5), st.booleans())
def test_what_is_written_is_read_bit_for_bit(tmp_path_factory, kinds, backwards):
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("pt") / "x.pt"
    tensors = {"first": SIX}
    for number, (dtype, shape) in enumerate(kinds):
        raw = rng.integers(0, 2 if dtype.kind == "b" else 256, int(np.prod(shape)) * dtype.itemsize, np.uint8)
        tensors[f"layer.{number}.wäight"] = raw.view(dtype).reshape(shape)
    write_pt(path, list(tensors.items())[:: -1 if backwards else 1], tensors)
    checkpoint = open_pt(path)
    assert (checkpoint.part, checkpoint.parts, checkpoint.rest) == (None, (), {})
    with checkpoint.tensors as found:
        assert list(found.names) == list(tensors)
        for name, array in tensors.items():
            read = found.read(name)
            assert (read.dtype, read.shape, read.tobytes()) == (array.dtype, array.shape, array.tobytes())
            assert found._entries[name].offset % pt.ALIGNMENT == 0


def test_entries_beyond_two_gigabytes_have_zips_extension(tmp_path, monkeypatch):
    monkeypatch.setattr(pt, "ZIP64", 8)
    write_pt(tmp_path / "x.pt", [("w", SIX)], {"w": SIX})
    with open_pt(tmp_path / "x.pt").tensors as found:
        assert (found.read("w") == SIX).all() and found._entries["w"].offset % pt.ALIGNMENT == 0


def test_views_of_a_shared_storage(tmp_path):
    value = {
        "whole": tensor(),
        "transposed": tensor(shape=(3, 2), strides=(1, 3)),
        "column": tensor(start=1, shape=(2,), strides=(3,)),
        "expanded": tensor(shape=(2, 4), strides=(0, 0), start=5),
        "number": tensor(start=4, shape=(), strides=()),
        "empty": tensor(shape=(0, 3)),
        "parameter": Call(
            Name("torch._utils _rebuild_parameter"), (tensor(start=2, shape=(4,), strides=(1,)), True, 0)
        ),
    }
    matrix = SIX.reshape(2, 3)
    wanted = (matrix, matrix.T, matrix[:, 1], np.full((2, 4), 5), np.array(4), matrix[:0], SIX[2:])
    with open_pt(save(tmp_path / "x.pt", value, SIX)).tensors as found:
        for name, array in zip(value, wanted, strict=True):
            np.testing.assert_array_equal(found.read(name), array, strict=False)
            assert found.shape(name) == array.shape
        np.testing.assert_array_equal(found.read("transposed", (1, 3)), matrix.T[1:])
        assert found.bands("transposed", (1, 3)) == [(1, 3)]


STATE = {"w": tensor()}
ARGUMENTS = Call(Name("argparse Namespace"), (), {"model": "DiT-XL/2", "sizes": [1, 2]}, pickle.NEWOBJ)
TRAINING = {
    "model": Call(ORDERED, (), {"_metadata": Call(ORDERED)}),
    "ema": STATE,
    "opt": {"state": {0: {"step": tensor(shape=(), strides=())}}, "param_groups": [{"lr": 1e-4}]},
    "args": ARGUMENTS,
    "steps": 400000,
}


def test_a_training_checkpoint(tmp_path):
    checkpoint = open_pt(save(tmp_path / "x.pt", TRAINING | {"model": {"v": tensor()}}, SIX))
    assert (checkpoint.part, checkpoint.parts, checkpoint.tensors.names) == ("ema", ("model", "ema"), ("w",))
    assert checkpoint.rest["args"] == {"model": "DiT-XL/2", "sizes": [1, 2]}
    assert checkpoint.rest["steps"] == 400000 and checkpoint.rest["opt"]["param_groups"] == [{"lr": 1e-4}]
    assert open_pt(tmp_path / "x.pt", "model").tensors.names == ("v",)
    with pytest.raises(UserError, match=r"no part 'emma' \(did you mean 'ema'\?\)"):
        open_pt(tmp_path / "x.pt", "emma")


def test_which_part_is_taken(tmp_path):
    for value, part in (
        ({"model": STATE, "x": STATE}, "model"),
        ({"net": STATE, "n": 1}, "net"),
        (STATE | {"n": 1}, None),
    ):
        assert open_pt(save(tmp_path / "x.pt", value, SIX)).part == part
    with pytest.raises(UserError, match=r"2 state dicts.*\(choose from: a, b\)"):
        open_pt(save(tmp_path / "x.pt", {"a": STATE, "b": STATE}, SIX))
    with pytest.raises(UserError, match="0 state dicts"):
        open_pt(save(tmp_path / "x.pt", {"steps": 1}))
    with pytest.raises(UserError, match="holds a list"):
        open_pt(save(tmp_path / "x.pt", [1]))


def attacks(mark):
    code = f"open({str(mark)!r}, 'w')"
    system = Call(Name("os system"), (f"touch {mark}",))
    return {
        "os.system": system,
        "posix.system": Call(Name("posix system"), (f"touch {mark}",)),
        "__builtin__.eval": Call(Name("__builtin__ eval"), (code,)),
        "builtins.exec": Call(Name("builtins exec"), (code,)),
        "builtins.getattr": Call(Name("builtins getattr"), (Name("os system"), "x")),
        "torch.load": Call(Name("torch load"), (str(mark),)),
        "torch.nn.modules.linear.Linear": Call(Name("torch.nn.modules.linear Linear"), (), {"x": 1}, b""),
        "torch._utils._rebuild_tensor_v2.__globals__": Name("torch._utils _rebuild_tensor_v2.__globals__"),
        "torch.storage._load_from_bytes": Call(Name("torch.storage _load_from_bytes"), (b"",)),
        "numpy.core.multiarray._reconstruct": Call(Name("numpy.core.multiarray _reconstruct"), ()),
    }


@pytest.mark.parametrize("name", attacks(""))
@pytest.mark.parametrize("inside", [lambda x: x, lambda x: STATE | {"v": x}, lambda x: TRAINING | {"args": x}])
def test_nothing_foreign_is_called(tmp_path, name, inside):
    mark = tmp_path / "mark"
    path = save(tmp_path / "x.pt", inside(attacks(mark)[name]), SIX)
    with pytest.raises(UserError) as caught:
        open_pt(path)
    assert str(path) in str(caught.value) and "nothing was run" in str(caught.value)
    assert f"`{'os.system' if 'getattr' in name else name}`" in str(caught.value) or "getattr" in name
    assert not mark.exists()


def test_the_attacks_would_work_elsewhere(tmp_path):
    mark = tmp_path / "mark"
    pickle.loads(b"\x80\x02" + encode(attacks(mark)["__builtin__.eval"]) + b".")
    assert mark.exists()


@pytest.mark.parametrize(
    "state", [{"__code__": 1}, (None, {"__code__": 1}), (None, {"__defaults__": (1,)}), (None, {"items": 1})]
)
@pytest.mark.parametrize(
    "what", ["collections OrderedDict", "argparse Namespace", "torch._utils _rebuild_tensor_v2", "torch FloatStorage"]
)
def test_what_a_pickle_sets_on_known_names_is_gone_with_it(tmp_path, what, state):
    good, bad = save(tmp_path / "good.pt", TRAINING, SIX), {"x": Call(Name(what), (), state, b""), "ema": STATE}
    try:
        open_pt(save(tmp_path / "bad.pt", bad, SIX)).tensors.close()
    except UserError as error:
        assert "damaged pickle" in str(error)
    with open_pt(good).tensors as found:
        assert (found.read("w") == SIX.reshape(2, 3)).all()


def test_a_tensor_cannot_be_made_to_lie_elsewhere(tmp_path):
    moved = Call(REBUILD, tensor().arguments, {"path": "/etc/passwd"})
    with pytest.raises(UserError, match="damaged pickle"):
        open_pt(save(tmp_path / "x.pt", {"w": moved}, SIX))


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"w": tensor(key="7")}, "no entry data/7"),
        ({"w": tensor(count=7)}, "data/0 should have 28 bytes, and has 24"),
        ({"w": tensor(start=1)}, "reaches beyond its 24 bytes"),
        ({"w": tensor(start=-1)}, "reaches beyond"),
        ({"w": tensor(strides=(3, -1))}, "reaches beyond"),
        ({"w": tensor(shape=("a", 3))}, "damaged pickle"),
        ({"w": tensor(shape=(10**9, 10**9), strides=(0, 0))}, "would take 4,000,000,000,000,000,000: save contiguous"),
        ({"w": tensor(shape=(2**60,), strides=(0,))}, "damaged pickle"),
        ({"w": tensor(shape=(1,) * 40, strides=(1,) * 40)}, "damaged pickle"),
        ({"w": tensor(shape=(2, True))}, "damaged pickle"),
        ({"w": Call(REBUILD, (5, 0, (2,), (1,), False, {}))}, "damaged pickle"),
    ],
)  # fmt: skip
def test_damaged_pickles_are_named(tmp_path, value, fault):
    with pytest.raises(UserError, match=rf"x\.pt.*{fault}"):
        open_pt(save(tmp_path / "x.pt", value, SIX))


def narrow(dtype, count):
    return Call(
        Name("torch._utils _rebuild_tensor_v3"),
        (Storage("Untyped", "0", 24), 0, (count,), (1,), False, 0, Name(f"torch {dtype}")),
    )


def test_a_type_that_is_not_read_matters_only_where_it_is_asked_for(tmp_path):
    values = np.arange(-12, 12).astype(ml_dtypes.float8_e5m2)
    value = {
        "w": narrow("float8_e5m2", 24),
        "other": narrow("float8_e4m3fnuz", 24),
        "freqs": tensor("ComplexFloat", count=3),
    }
    with open_pt(save(tmp_path / "x.pt", value, values)).tensors as found:
        np.testing.assert_array_equal(found.read("w").astype(np.float32), values.astype(np.float32))
        for name, kind in (("other", "float8_e4m3fnuz"), ("freqs", "complex64")):
            with pytest.raises(UserError, match=f"stores {name} as {kind}"):
                found.read(name)


def raw(path, data, *storages):
    """A torch file around a pickle's bytes."""
    save(path, {}, *storages)
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist() if not name.endswith("data.pkl")}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", data)
        for name, content in kept.items():
            archive.writestr(name, content)
    return path


START = pickle.PROTO + b"\x02"
DOUBLING = b"]" + b"".join(b"q%c0](h%ch%ce" % (i, i, i) for i in range(60))  # each list holds the one before it twice
TUPLES = b")" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(60))  # and each tuple: its hash takes 2^60 steps


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (START + b"]" + pickle.LONG_BINPUT + b"\xff\xff\xff\xff.", "holds a list"),  # a memo of 2^32 places
        (START + pickle.BINUNICODE8 + (2**60).to_bytes(8, "little") + b"x.", "damaged pickle"),
        (START + pickle.BYTEARRAY8 + (2**40).to_bytes(8, "little") + b"x.", "damaged pickle"),
        (START + pickle.FRAME + (2**60).to_bytes(8, "little") + b"N.", "damaged pickle|holds a NoneType"),
        (START + b"}" + TUPLES + b"K\x01s.", "a key is a tuple|damaged pickle"),
        (START + b"ccollections\nOrderedDict\n]" + TUPLES + b"K\x01\x86a\x85R.", "damaged pickle: a key is a tuple"),
        (START + b"(" + b"." * 9, "damaged pickle"),
        (START + b"N" * 9, "damaged pickle"),
        (START + b"0.", "damaged pickle"),
        (START + b"\x82\x01.", "damaged pickle"),  # a name by a number of copyreg's
        (START + b"(" * 50_000 + b"t" * 50_000 + b".", "holds a tuple"),
        (b"", "damaged pickle"),
        (START + b"N" * pt.LARGEST_PICKLE, "at most 16,777,216 are read"),
    ],
)
def test_a_pickle_that_would_fill_memory_or_never_end(tmp_path, data, fault):
    with pytest.raises(UserError, match=rf"x\.pt.*({fault})"):
        open_pt(raw(tmp_path / "x.pt", data))


def test_lists_that_double_are_not_unfolded(tmp_path):
    """60 lists, each with the one before it twice, have 2^60 leaves and take 60 lists' memory."""
    state = encode(STATE)
    data = START + b"}(" + encode("ema") + state + encode("args") + DOUBLING + b"u."
    checkpoint = open_pt(raw(tmp_path / "x.pt", data, SIX))
    assert checkpoint.tensors.names == ("w",)
    inner = checkpoint.rest["args"]
    for _ in range(60):
        first, second = inner
        assert first is second
        inner = first
    assert inner == []


def test_a_zip_file_that_lies_about_its_entries(tmp_path):
    path = save(tmp_path / "x.pt", {"w": tensor("Byte", count=2**40, shape=(2**40,), strides=(1,))}, SIX)
    data, size = path.read_bytes(), (24).to_bytes(4, "little")
    place = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)  # the second in the directory: data/0
    assert data[place + 20 : place + 28] == size + size
    path.write_bytes(data[: place + 20] + b"\xf0\xff\xff\x7f" * 2 + data[place + 28 :])
    with pytest.raises(UserError, match=r"data/0 ends beyond the file's \d+ bytes"):
        open_pt(path)
    path.write_bytes(data[: place + 8] + b"\x01\x00" + data[place + 10 :])
    first = data.index(b"PK\x01\x02")
    path.write_bytes(data[: first + 8] + b"\x01\x00" + data[first + 10 :])  # "encrypted"
    with pytest.raises(UserError, match=r"cut short or damaged.*encrypted"):
        open_pt(path)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(save(path, STATE, SIX), "a") as archive:
        archive.writestr("x/data/0", SIX.tobytes())
    with pytest.raises(UserError, match="1 of its entries have the name of another"):
        open_pt(path)


def test_damaged_files_are_named(tmp_path):
    whole = save(tmp_path / "x.pt", STATE, SIX).read_bytes()
    for data, fault in (
        (whole[:-30], "cut short or damaged"),
        (b"\x80\x02}.", "not a zip file"),
        (b"", "not a zip file"),
        (whole.replace(b"}(", b"})"), "cut short or damaged"),  # the checksum
    ):
        (tmp_path / "x.pt").write_bytes(data)
        with pytest.raises(UserError, match=rf"x\.pt.*{fault}"):
            open_pt(tmp_path / "x.pt")
    with pytest.raises(UserError, match="compressed"):
        open_pt(save(tmp_path / "x.pt", STATE, SIX, compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(UserError, match="big-endian"):
        open_pt(save(tmp_path / "x.pt", STATE, SIX, byteorder="big"))
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/model.json", "")
    with pytest.raises(UserError, match=r"without a data\.pkl"):
        open_pt(tmp_path / "x.pt")


def test_writing_what_torch_lacks(tmp_path):
    for array in (np.zeros(2, np.uint16), np.zeros(2, ml_dtypes.float8_e5m2)):
        with pytest.raises(UserError, match="torch files hold"):
            write_pt(tmp_path / "x.pt", [("w", array)], {"w": array})
    with pytest.raises(ValueError, match="are missing"):
        write_pt(tmp_path / "x.pt", [], {"w": SIX})
    assert os.listdir(tmp_path) == []


# Files of torch before 1.6


MACHINE = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


def save_old(path, value, keys, *data, machine=MACHINE):
    """A torch file as torch wrote them before 1.6, by hand."""
    parts = [legacy.MAGIC + b"."]
    parts += [b"\x80\x02" + encode(part) + b"." for part in (1001, machine, value, keys)]
    parts += [len(array).to_bytes(8, "little") + array.tobytes() for array in data]
    path.write_bytes(b"".join(parts))
    return path


SHORTS = np.arange(5, dtype=np.int16)
TWO = {"w": tensor(), "part": tensor(start=2, shape=(2,), strides=(1,)), "n": tensor("Short", "7", 5, 1, (4,), (1,))}


def test_old_files_are_read(tmp_path):
    """With storages in another order than the tensors that use them."""
    for value in (TWO, {"state_dict": TWO, "epoch": 3}):
        checkpoint = open_pt(save_old(tmp_path / "x.pth", value, ["7", "0"], SHORTS, SIX))
        with checkpoint.tensors as found:
            np.testing.assert_array_equal(found.read("w"), SIX.reshape(2, 3), strict=True)
            np.testing.assert_array_equal(found.read("part"), SIX[2:4], strict=True)
            np.testing.assert_array_equal(found.read("n"), SHORTS[1:], strict=True)
    assert (checkpoint.part, checkpoint.rest) == ("state_dict", {"epoch": 3})


def test_tensors_of_torch_before_0_4(tmp_path):
    old = Call(Name("torch._utils _rebuild_tensor"), (Storage("Float", "0", 6), 0, (2, 3), (3, 1)))
    with open_pt(save_old(tmp_path / "x.pth", {"w": old}, ["0"], SIX)).tensors as found:
        np.testing.assert_array_equal(found.read("w"), SIX.reshape(2, 3), strict=True)


@pytest.mark.parametrize(
    ("value", "keys", "data", "fault"),
    [
        (STATE, ["0"], [SIX[:5]], r"storage 0 ends beyond the file's"),
        (STATE, ["0"], [np.zeros(7, np.float32)], "storage 0 does not have the 6 elements"),
        (STATE, ["0", "1"], [SIX], "its list of storages is not that of its tensors"),
        (STATE, ["0", "0"], [SIX], "its list of storages is not that of its tensors"),
        (STATE, {"0": 1}, [SIX], "its list of storages is not that of its tensors"),
        (STATE, [0], [SIX], "its list of storages is not that of its tensors"),
        ({"w": tensor("ComplexFloat")}, ["0"], [SIX], "of an unknown type"),
        (STATE | {"v": tensor(count=5)}, ["0"], [SIX], "storage 0 has two sizes"),
        (STATE | {"v": tensor(shape=(9,), strides=(1,))}, ["0"], [SIX], r"\(9,\) reaches beyond its 24 bytes"),
        (STATE | {"v": Call(Name("os system"), ("true",))}, ["0"], [SIX], "wants to call `os.system`"),
    ],
)
def test_old_files_that_are_damaged(tmp_path, value, keys, data, fault):
    with pytest.raises(UserError, match=rf"x\.pth.*{fault}"):
        open_pt(save_old(tmp_path / "x.pth", value, keys, *data))


def test_an_old_file_of_a_module(tmp_path):
    value = {"model": Module(("module", Name("models.net Net"), "net.py", "import os"))}
    with pytest.raises(UserError, match="holds a whole module with its code"):
        open_pt(save_old(tmp_path / "x.pth", value, []))


def test_an_old_file_of_another_machine(tmp_path):
    for machine in (MACHINE | {"little_endian": False}, {}, 3):
        with pytest.raises(UserError, match="big-endian"):
            open_pt(save_old(tmp_path / "x.pth", STATE, ["0"], SIX, machine=machine))


@given(st.data())
def test_any_change_of_an_old_file_is_read_or_refused(tmp_path_factory, data):
    path = save_old(tmp_path_factory.mktemp("old") / "x.pth", TWO, ["7", "0"], SHORTS, SIX)
    whole = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        del whole[place:]
    else:
        whole[place] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        with open_pt(path).tensors as found:
            for name in found.names:
                found.read(name)
    except UserError:
        pass
