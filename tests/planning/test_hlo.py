import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from rfjax.errors import UserError
from rfjax.planning import hlo, hlo_groups
from rfjax.planning.hlo import Traffic

MESH = {"data": 2, "fsdp": 4, "tensor": 1}


def module(*lines, others="", header="num_partitions=8"):
    body = "\n".join(f"  {line}" for line in lines)
    return (
        f"HloModule jit_f, is_scheduled=true, {header}\n\n{others}\nENTRY %main (p: f32[8]) -> f32[8] {{\n{body}\n}}\n"
    )


X = "%x = f32[16,4]{1,0} parameter(0)"
FOURS, PAIRS = "replica_groups={{0,1,2,3},{4,5,6,7}}", "replica_groups=[4,2]<=[2,4]T(1,0)"


@pytest.mark.parametrize(
    ("lines", "kind", "received", "size", "axes"),
    [
        ((f"%g = f32[64,4]{{1,0}} all-gather(%x), channel_id=1, {FOURS}",), "all-gather", 768, 4, ("fsdp",)),
        ((f"%g = f32[4,4]{{1,0}} reduce-scatter(%x), {FOURS}, to_apply=%add",), "reduce-scatter", 192, 4, ("fsdp",)),
        ((f"%g = f32[16,4]{{1,0:T(8,128)}} all-reduce(f32[16,4] %x), {PAIRS}",), "all-reduce", 256, 2, ("data",)),
        (("%g = f32[16,4] all-reduce(%x), replica_groups={}",), "all-reduce", 448, 8, ("data", "fsdp")),
        ((f"%g = (f32[4,4], f32[12,4]) all-to-all(%x), {FOURS}",), "all-to-all", 192, 4, ("fsdp",)),
        ((f"%g = f32[16,4] ragged-all-to-all(%x), {FOURS}",), "ragged-all-to-all", 192, 4, ("fsdp",)),
        ((f"%g = f32[16,4] collective-broadcast(%x), {PAIRS}",), "collective-broadcast", 256, 2, ("data",)),
        (
            ("%g = f32[16,4] collective-permute(%x), source_target_pairs={{0,1},{1,2},{2,3},{3,0},{4,5},{5,4}}",),
            "collective-permute",
            256,
            2,
            ("fsdp",),
        ),
        (
            (
                f"%s = (f32[16,4]{{1,0}}, f32[64,4]{{1,0}}) all-gather-start(%x), {FOURS}",
                "%g = f32[64,4]{1,0} all-gather-done(%s)",
            ),
            "all-gather",
            768,
            4,
            ("fsdp",),
        ),
        (
            (f"%s = f32[16,4] all-reduce-start(%x), {PAIRS}", "%g = f32[16,4] all-reduce-done(%s)"),
            "all-reduce",
            256,
            2,
            ("data",),
        ),
        (
            (
                "%s = (f32[16,4], f32[16,4], u32[], u32[]) collective-permute-start(%x), source_target_pairs={{0,4}}",
                "%g = f32[16,4] collective-permute-done(%s)",
            ),
            "collective-permute",
            256,
            2,
            ("data",),
        ),
    ],
)
def test_every_form_is_counted_once(lines, kind, received, size, axes):
    (one,) = hlo.read_communication(module(X, *lines)).collectives
    assert (one.kind, one.received, one.group_size) == (kind, received, size)
    assert hlo_groups.axes_of(one.groups, MESH) == axes


def test_a_group_of_one_device_counts_as_nothing():
    read = hlo.read_communication(module(X, "%g = f32[16,4] all-reduce(%x), replica_groups={{0},{1}}"))
    assert len(read.collectives) == 1
    assert read.by_axes(MESH) == {}


BODY = """
%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %s = f32[] add(%a, %b)
}

%inner (q: (s32[], f32[16])) -> (s32[], f32[16]) {
  %i = f32[16]{0} get-tuple-element(%q), index=1
  %r = f32[16]{0} all-reduce(%i), replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%add, metadata={op_name="a/psum"}
}

%turns (q: (s32[], f32[16])) -> pred[] {
  ROOT %l = pred[] compare(%q, %q), direction=LT
}

%outer (q: (s32[], f32[16])) -> (s32[], f32[16]) {
  %w = (s32[], f32[16]) while(%q), condition=%turns, body=%inner, backend_config={"known_trip_count":{"n":"3"}}
}

%wrapped (q: f32[16]) -> f32[16] {
  %q = f32[16] parameter(0)
  ROOT %t = f32[4]{0} reduce-scatter(%q), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
}

%plain (q: f32[16]) -> f32[16] {
  ROOT %z = f32[16] copy(%q)
}
"""
LOOP = "%w = (s32[], f32[16]) while(%x), condition=%turns, body=%outer"


def test_loops_multiply_and_calls_are_followed():
    text = module(
        X,
        LOOP
        + ', metadata={op_name="jit(f)/while"}, backend_config={"known_trip_count":{"n":"37"},"known_init_step":{}}',
        "%c = f32[16] call(%x), to_apply=%wrapped",
        "%a = ((f32[16]), f32[4], u32[]) async-start(%x), calls=%wrapped",
        "%b = ((f32[16]), f32[4], u32[]) async-update(%a), calls=%wrapped",
        "%d = f32[4] async-done(%b), calls=%wrapped",
        "%o = f32[16] conditional(%p, %x, %x), true_computation=%plain, false_computation=%wrapped",
        "%k = f32[16] conditional(%p, %x, %x), branch_computations={%wrapped, %wrapped}",
        others=BODY,
    )
    read = hlo.read_communication(text)
    pairs, fours = Traffic(111, 111 * 64.0), Traffic(4, 4 * 48.0)
    assert read.by_axes(MESH) == {("all-reduce", "fsdp"): pairs, ("reduce-scatter", "fsdp"): fours}
    assert read.unknown == ()


def test_a_loop_of_unknown_length_is_named_if_it_communicates():
    silent = "%v = (s32[], f32[16]) while(%x), condition=%turns, body=%plain"
    read = hlo.read_communication(module(X, LOOP, silent, others=BODY))
    assert read.unknown == ("w",)
    assert read.by_axes(MESH) == {("all-reduce", "fsdp"): Traffic(3, 3 * 64.0)}


def test_types_in_bytes():
    assert hlo.type_bytes("bf16[5,4]{1,0:T(8,128)(2,1)}") == 40
    assert (
        hlo.type_bytes("(f32[], pred[7]{0}, /*index=2*/f8e4m3fn[3], c128[2], s4[3], u32[])") == 4 + 7 + 3 + 32 + 2 + 4
    )
    assert hlo.type_bytes("s8[<=8,2]") == 16
    assert hlo.type_bytes("token[]") == 0
    with pytest.raises(UserError, match="'what'"):
        hlo.type_bytes("what[3]")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{{0,2},{1,3}}, x={}", ((0, 2), (1, 3))),
        ("{}, to_apply=%add", ((0, 1, 2, 3),)),
        ("[2,2]<=[4], x", ((0, 1), (2, 3))),
        ("[2,2]<=[2,2]T(1,0)", ((0, 2), (1, 3))),
        ("[4,2]<=[2,2,2]T(1,0,2)", ((0, 1), (4, 5), (2, 3), (6, 7))),
        ("mesh['a'=2,'b'=2] {'b'}, x={}", ((0, 1), (2, 3))),
        ("mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}", ((0, 2), (1, 3))),
        ("mesh['a'=2,'b'=2], device_ids=(3,2,1,0) {'a'}", ((3, 1), (2, 0))),
        ("mesh['a'=2,'b'=2] {'a','b'}", ((0, 1, 2, 3),)),
        ("mesh['a'=8] {'a':(2)2}", ((0, 2), (1, 3), (4, 6), (5, 7))),
    ],
)
def test_groups_in_three_notations(text, found):
    assert hlo_groups.read_groups(text, 4) == found


def test_what_can_not_be_read_is_said():
    with pytest.raises(UserError, match=r"can't be read: something"):
        hlo_groups.read_groups("something", 4)
    with pytest.raises(UserError, match="no ENTRY computation"):
        hlo.read_communication("func.func @main")


def test_axes_of_a_mesh():
    cube = {"data": 2, "fsdp": 2, "tensor": 2}
    places = np.arange(8).reshape(2, 2, 2)
    rows = lambda *order: tuple(map(tuple, places.transpose(order).reshape(4, 2).tolist()))  # noqa: E731
    assert hlo_groups.axes_of(rows(0, 1, 2), cube) == ("tensor",)
    assert hlo_groups.axes_of(rows(0, 2, 1), cube) == ("fsdp",)
    assert hlo_groups.axes_of(rows(1, 2, 0), cube) == ("data",)
    assert hlo_groups.axes_of(((0, 1, 4, 5), (2, 3, 6, 7)), cube) == ("data", "tensor")
    assert hlo_groups.axes_of((tuple(range(8)),), cube) == ("data", "fsdp", "tensor")
    assert hlo_groups.axes_of(((0, 3), (1, 2)), cube) == ()
    assert hlo_groups.axes_of(((0, 9),), cube) == ()


def compiled(function, in_specs, out_specs, *shapes):
    mesh = jax.make_mesh(tuple(MESH.values()), tuple(MESH), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    mapped = jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    lowered = jax.jit(mapped).lower(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))
    return hlo.read_communication(lowered.compile().as_text()).by_axes(MESH)


def test_weights_gathered_in_a_scan():
    def layers(weights, x):
        def layer(x, part):
            return jnp.tanh(x @ jax.lax.all_gather(part, "fsdp", tiled=True)), None

        x, _ = jax.lax.scan(layer, x, weights)
        return jax.lax.psum((x**2).sum(), ("data", "fsdp"))

    whole = 16 * 16 * 4
    found = compiled(jax.grad(layers), (P(None, "fsdp"), P(("data", "fsdp"))), P(None, "fsdp"), (5, 16, 16), (32, 16))
    assert found["reduce-scatter", "fsdp"] == Traffic(5, 5 * whole * 3 / 4)
    assert found["all-gather", "fsdp"] == Traffic(5, 5 * whole * 3 / 4)


def test_a_sum_over_one_axis_of_three_and_a_permutation():
    def both(x):
        return jax.lax.psum(x, "data"), jax.lax.ppermute(x, "fsdp", [(i, (i + 1) % 4) for i in range(4)])

    found = compiled(both, P(("data", "fsdp")), (P("fsdp"), P(("data", "fsdp"))), (32, 16))
    part = 4 * 16 * 4
    assert found == {
        ("all-reduce", "data"): Traffic(1, 2 * part / 2),
        ("collective-permute", "fsdp"): Traffic(1, part),
    }
