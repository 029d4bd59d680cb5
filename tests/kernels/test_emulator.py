"""The emulator itself: kernels made for the purpose set off every check, and every counter counts right."""

import re

import numpy as np
import pytest
from emulated import Device, bank_conflicts, from_bfloat16, sector_efficiency, to_bfloat16

SEEDS = (0, 1, 2, 3)


@pytest.fixture(params=SEEDS, ids=lambda seed: f"schedule{seed}")
def scheduled(module, request):
    return Device(module, seed=request.param)


@pytest.fixture
def counted(module):
    return Device(module, counting=True)


def floats(n: int) -> np.ndarray:
    return np.arange(n, dtype=np.float32)


def test_dropped_barrier_after_a_write(scheduled):
    out = scheduled.output("out", 64, "float32")
    with pytest.raises(scheduled.module.Violation, match=r"shared_race: .*shared values: (race|uninitialized)"):
        scheduled.call("selftest.shared_race", out, False)
    scheduled.call("selftest.shared_race", out, True)
    assert np.array_equal(out.numpy(), floats(64)[::-1])


def test_dropped_barrier_before_a_write(scheduled):
    out = scheduled.output("out", 64, "float32")
    with pytest.raises(scheduled.module.Violation, match=r"race: .* with no barrier between"):
        scheduled.call("selftest.read_after_write_over", out, False)
    scheduled.call("selftest.read_after_write_over", out, True)
    assert (out.numpy() == 3).all()


def test_lanes_of_a_warp_need_a_sync_too(scheduled):
    out = scheduled.output("out", 32, "float32")
    with pytest.raises(scheduled.module.Violation, match=r"within_warp: .*(race|uninitialized)"):
        scheduled.call("selftest.within_warp", out, False)
    scheduled.call("selftest.within_warp", out, True)
    assert np.array_equal(out.numpy(), floats(32)[::-1])


def test_uninitialized_shared_memory(scheduled):
    out = scheduled.output("out", 32, "float32")
    message = "thread 31: read of 4 bytes at byte 124 of shared values: uninitialized memory"
    with pytest.raises(scheduled.module.Violation, match=message):
        scheduled.call("selftest.uninitialized_shared", out, 31)
    scheduled.call("selftest.uninitialized_shared", out, 32)


def test_shared_memory_is_fresh_in_the_next_launch(device):
    out = device.output("out", 32, "float32")
    device.call("selftest.uninitialized_shared", out, 32)
    with pytest.raises(device.module.Violation, match="uninitialized"):
        device.call("selftest.uninitialized_shared", out, 0)


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (64, 0, "read of 4 bytes out of bounds: 0 bytes past the end of in"),
        (-1, 0, "read of 4 bytes out of bounds: 4 bytes before in"),
        (0, 64, "write of 4 bytes out of bounds: 0 bytes past the end of out"),
        (10**10, 0, "read of 4 bytes out of bounds: no buffer"),
    ],
)
def test_out_of_bounds(device, start, end, message):
    source = device.input("in", floats(64), "float32")
    with pytest.raises(device.module.Violation, match=rf"copy_at: block \(0, 0, 0\), thread 0: {message}"):
        device.call("selftest.copy_at", source, device.output("out", 64, "float32"), start, end)


def test_misaligned(device):
    source, out = device.input("in", floats(64), "float32"), device.output("out", 64, "float32")
    device.call("selftest.copy_pack", source, out, 4)
    with pytest.raises(device.module.Violation, match=r"16 bytes at byte 4 of (in|out): misaligned"):
        device.call("selftest.copy_pack", source, out, 1)


def test_inputs_are_not_written_nor_outputs_read(device):
    first, second = device.input("first", floats(8), "float32"), device.input("second", floats(8), "float32")
    with pytest.raises(device.module.Violation, match="of second: an input is not to be written"):
        device.call("selftest.copy_at", first, second, 0, 0)
    with pytest.raises(device.module.Violation, match="of first: uninitialized memory"):
        device.call("selftest.copy_at", device.output("first", 8, "float32"), device.output("out", 8, "float32"), 0, 0)


def test_padding_is_neither_read_nor_written(device):
    view = {"strides": (8, 1), "offset": 3}  # two rows of five at 3 .. 7 and 11 .. 15
    source = device.input("in", np.ones((2, 5)), "float32", **view)
    out = device.output("out", (2, 5), "float32", **view)
    device.call("selftest.copy_at", source, out, 8, 8)  # counts from the view's first element
    assert out.numpy()[1, 0] == 1
    for start, end in ((5, 0), (0, 5), (-1, 0), (0, -3)):
        with pytest.raises(device.module.Violation, match="padding of the buffer"):
            device.call("selftest.copy_at", source, out, start, end)


def test_a_word_that_two_blocks_write(scheduled):
    out = scheduled.output("out", 4, "float32")
    with pytest.raises(scheduled.module.Violation, match=r"block \d wrote there too"):
        scheduled.call("selftest.every_block_writes", out, 0)
    scheduled.call("selftest.every_block_writes", out, 1)
    assert (out.numpy() == 1).all()


def test_work_in_place_that_reads_what_another_block_writes(scheduled):
    x = scheduled.in_place("x", floats(5), "float32")
    scheduled.call("selftest.reads_its_neighbor", x, 1)
    assert np.array_equal(x.numpy(), [1, 2, 3, 4, 4])
    with pytest.raises(scheduled.module.Violation, match=r"block \d (wrote|read) there"):
        scheduled.call("selftest.reads_its_neighbor", x, 0)


@pytest.mark.parametrize("missing", [1, 2, 3], ids=["barrier", "release", "acquire"])
def test_what_another_block_wrote_must_be_released_and_acquired(scheduled, missing):
    def publish(how):
        out = scheduled.output("sum", 1, "float32")
        partial, counter = scheduled.workspace("partial", 256, "float32"), scheduled.zeros("counter", 1)
        scheduled.call("selftest.publish", partial, counter, out, how)
        return out.numpy()[0]

    assert publish(0) == 256
    with pytest.raises(scheduled.module.Violation, match=r"of partial: block \d wrote there, and did not release it"):
        publish(missing)


def test_asynchronous_copies(scheduled):
    source = scheduled.input("in", floats(128), "float32")
    out = scheduled.output("out", 32, "float32")
    scheduled.call("selftest.pending_copy", source, out, True, True)
    assert np.array_equal(out.numpy(), floats(128)[::4][::-1])
    with pytest.raises(scheduled.module.Violation, match="data of copy_async is pending there"):
        scheduled.call("selftest.pending_copy", source, out, False, True)
    with pytest.raises(scheduled.module.Violation, match=r"race|pending|uninitialized"):
        scheduled.call("selftest.pending_copy", source, out, True, False)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (1, r"divergent barrier \(63 threads at a barrier, 0 at a collective, 1 have returned\)"),
        (2, r"divergent barrier \(32 threads at a barrier, 0 at a collective, 32 have returned\)"),
        (3, r"divergent warp collective: lanes are missing"),
    ],
    ids=["one thread returned", "a warp returned", "barrier against warp sync"],
)
def test_divergence(scheduled, how, message):
    scheduled.call("selftest.divergent_barrier", scheduled.output("out", 64, "float32"), 0)
    with pytest.raises(scheduled.module.Violation, match=message):
        scheduled.call("selftest.divergent_barrier", scheduled.output("out", 64, "float32"), how)


def test_a_lane_missing_from_a_shuffle(scheduled):
    with pytest.raises(scheduled.module.Violation, match=r"missing_lane: .*lanes are missing .*1 have returned"):
        scheduled.call("selftest.missing_lane", scheduled.output("out", 32, "float32"))


def test_collectives(scheduled):
    out = scheduled.output("out", 192, "int32")
    scheduled.call("selftest.collectives", out)
    lane = np.arange(32)
    down, up, xor, one, ballot, votes = out.numpy().reshape(6, 32)
    assert np.array_equal(down, np.where(lane + 4 < 32, lane + 4, lane))
    assert np.array_equal(up, np.where(lane >= 4, lane - 4, lane))
    assert np.array_equal(xor, lane ^ 5)
    assert (one == 9).all()
    assert (ballot.view(np.uint32) == sum(1 << i for i in range(0, 32, 3))).all()
    assert (votes == 1).all()  # some lane is 7; not every lane is below 31


def fragments(matrix: np.ndarray, rows: str) -> np.ndarray:
    """Each lane's values of A (16 x k, `rows` "m") or B (k x 8, "n") as the PTX manual lays them out."""
    along, deep = (matrix, matrix.shape[1]) if rows == "m" else (matrix.T, matrix.shape[0])
    per_register = deep // 8
    lanes = []
    for lane in range(32):
        g, t = lane // 4, lane % 4
        for half in range(2):
            for row in (g, g + 8) if rows == "m" else (g,):
                first = per_register * t + half * 4 * per_register
                lanes.append(along[row, first : first + per_register])
    return np.array(lanes)


@pytest.mark.parametrize("kind", ["tf32", "bf16", "f16"])
def test_mma_multiplies_matrices(counted, kind):
    rng = np.random.default_rng(5)
    depth = 8 if kind == "tf32" else 16
    a, b = rng.standard_normal((16, depth)), rng.standard_normal((depth, 8))
    if kind == "tf32":
        a, b = (x.astype(np.float32) for x in (a, b))
        words = [fragments(a, "m").ravel().view(np.uint32), fragments(b, "n").ravel().view(np.uint32)]
        a, b = ((x.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32) for x in (a, b))
    else:
        bits = [to_bfloat16(x) if kind == "bf16" else x.astype(np.float16).view(np.uint16) for x in (a, b)]
        words = [fragments(x, rows).ravel().copy().view(np.uint32) for x, rows in zip(bits, "mn", strict=True)]
        a, b = (from_bfloat16(x) if kind == "bf16" else x.view(np.float16) for x in bits)
    d = counted.output("d", 128, "float32")
    left, right = (counted.input(n, w.view(np.int32), "int32") for n, w in zip("ab", words, strict=True))
    counted.call("selftest.multiply", left, right, d, kind)
    made = np.zeros((16, 8))
    for lane, values in enumerate(d.numpy().reshape(32, 4)):
        g, t = lane // 4, lane % 4
        for i, value in enumerate(values):
            made[g + 8 * (i // 2), 2 * t + i % 2] = value
    expected = a.astype(np.float64) @ b.astype(np.float64)
    error = np.abs(expected) - np.abs(made)
    assert (error >= 0).all()  # rounded towards zero
    assert (error <= 2.0**-23 * np.abs(expected)).all()
    assert counted.counters["mma"] == {"tf32": 0, "bf16": 0, "f16": 0} | {kind: 1}
    assert counted.counters["mma_main"] == 1


def test_conversions(device):
    halves = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)
    # Values between halves, at and beyond the largest, subnormal ones.
    with np.errstate(over="ignore", invalid="ignore"):
        ends = np.array([65519.9, 65520, 1e9, -65520, 2**-25, 2**-25 * 1.01, 3e-8, 1e-40, -0.0], np.float32)
        between = (halves[:-1] + halves[1:]) / 2
    values = np.concatenate([halves, between[np.isfinite(between)], ends])
    values = np.concatenate([values, np.zeros(-len(values) % 64, np.float32)])
    half, bfloat = device.output("half", len(values), "float16"), device.output("bfloat", len(values), "bfloat16")
    back = device.output("back", 2 * len(values), "float32")
    device.call("selftest.convert", device.input("in", values, "float32"), half, bfloat, back)
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16).astype(np.float32)
    real = ~np.isnan(values)
    assert np.array_equal(half.numpy()[real], expected[real])
    assert np.array_equal(back.numpy()[::2][real], expected[real])
    assert np.array_equal(back.numpy()[1::2][real], from_bfloat16(to_bfloat16(values))[real])
    assert np.isnan(half.numpy()[~real]).all()
    assert np.isnan(bfloat.numpy()[~real]).all()


@pytest.mark.parametrize(
    ("width", "stride", "shared_stride", "sectors", "wavefronts", "least"),
    [
        (1, 1, 1, 4, 1, 1),
        (1, 2, 1, 8, 1, 1),
        (1, 8, 1, 32, 1, 1),
        (1, 1, 2, 4, 2, 1),  # two lanes per bank
        (1, 1, 32, 4, 32, 1),  # one bank
        (1, 1, 33, 4, 1, 1),
        (2, 2, 2, 8, 2, 2),  # half a warp at a time
        (4, 4, 4, 16, 4, 4),  # a quarter
        (4, 8, 4, 32, 4, 4),
        (4, 4, 8, 16, 8, 4),
        (4, 4, 12, 16, 4, 4),
    ],
)
def test_sectors_and_bank_conflicts(counted, width, stride, shared_stride, sectors, wavefronts, least):
    source = counted.input("in", floats(32 * stride), "float32")
    out = counted.output("out", 32 * stride, "float32")
    counted.call("selftest.traffic", source, out, width, stride, shared_stride)
    counters, asked = counted.counters, 32 * 4 * width
    main = counters["main_loop"]
    assert main["reads"] == {"requests": 1, "sectors": sectors, "bytes": asked, "widest": 4 * width}
    assert sector_efficiency(main["reads"]) == asked / (32 * sectors)
    assert main["writes"]["requests"] == 0
    assert counters["elsewhere"]["writes"] == main["reads"]
    assert main["shared"] == {"requests": 1, "wavefronts": wavefronts, "least": least}
    assert bank_conflicts(main) == wavefronts - least
    assert source.buffer.read_bytes() == out.buffer.written_bytes() == asked
    assert source.buffer.written_bytes() == out.buffer.read_bytes() == 0
    assert counters["block_read_bytes"] == 32 * sectors


def test_barriers_are_counted(counted):
    counted.call("selftest.shared_race", counted.output("out", 64, "float32"), True)
    counters = counted.counters
    assert (counters["blocks"], counters["threads"], counters["barriers"]) == (1, 64, 1)


def test_addresses_past_two_to_the_31(device):
    far = 2**31 + 5
    source = device.sparse("in", (2**32,), "float32")
    source.buffer.poke(far, np.float32(7).tobytes())
    out = device.sparse("out", (2**32,), "float32", kind="output")
    device.call("selftest.copy_at", source, out, far, 2**32 - 1)
    assert np.frombuffer(out.buffer.peek(2**32 - 1, 1), np.float32)[0] == 7
    with pytest.raises(device.module.Violation, match="past the end"):
        device.call("selftest.copy_at", source, out, 2**32, 0)


def test_buffers_are_what_was_put_in(device):
    values = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    turned = np.ascontiguousarray(values.transpose(0, 2, 1)).transpose(0, 2, 1)
    for array, options in ((values, {}), (turned, {}), (values, {"layout": "channels_last_padded"})):
        buffer = device.input("x", array, "float32", **options)
        assert np.array_equal(buffer.numpy(), values)
    assert device.input("x", turned, "float32").strides == (12, 1, 3)
    assert np.array_equal(device.input("x", values, "bfloat16").numpy(), from_bfloat16(to_bfloat16(values)))


def test_messages_name_what_went_wrong_where(device):
    with pytest.raises(device.module.Violation) as caught:
        device.call("selftest.every_block_writes", device.output("out", 4, "float32"), 0)
    assert re.fullmatch(
        r"every_block_writes: block \(1, 0, 0\), thread 0: write of 4 bytes at byte 0 of out: "
        r"block 0 wrote there too, and did not release it to this thread",
        str(caught.value),
    )
