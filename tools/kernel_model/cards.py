"""What the model knows of each card, with its source.

Peaks, memory bandwidths and sizes are NVIDIA's datasheets and whitepapers, through bench/gpu/roofline.py. Latencies of
L1, L2 and memory are in cycles, measured by chains of dependent loads: those of GH200 for H100 and H200, and those of
RTX 4090 also for L4, from github.com/markdewing/AI_kernels (latency/README.md); those of A100 from Luo et al. 2024,
"Benchmarking and Dissecting the Nvidia Hopper GPU Architecture" (arXiv:2402.13499). `sync` is the part of the
tensor-core peak that mma.sync reaches: 62 % on Hopper, where only wgmma reaches the peak (Luo et al.), all of it on the
others. The bandwidth of L2 is about 5.5 TB/s on H100 (chipsandcheese.com, "Nvidia's H100: Funny L2, and Tons of
Bandwidth"); for the other cards it is an estimate from their clocks and multiprocessors. `measured` is the part of the
published memory bandwidth that a copy reaches: 4.3 TB/s on an H200, taken to be the same on all.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.gpu import roofline

GAP = 1.0e-6
"""Seconds from the end of a kernel to the start of the next in a CUDA graph. An assumption; 0.8 to 1.5 are seen."""

L1_LATENCY = 40  # cycles, on all of them


@dataclass(frozen=True)
class Chip:
    """A card as the model sees it; latencies in cycles, rates per second."""

    name: str
    architecture: int
    sms: int
    clock: float  # boost
    l2_bandwidth: float
    l2_bytes: float
    l2_latency: float
    memory_latency: float
    shared: int  # bytes of shared memory of a multiprocessor
    warps: int  # resident on a multiprocessor
    blocks: int
    sync: float = 1.0
    measured: float = 0.9

    @property
    def peaks(self) -> roofline.Card:
        """Published peaks."""
        return next(card for card in roofline.CARDS if card.name == self.name)

    @property
    def bandwidth(self) -> float:
        """Bytes per second that a copy reaches."""
        return self.peaks.bandwidth * self.measured

    def product_cycles(self, opcode: str) -> float:
        """Cycles between two tensor-core instructions of the same quarter of a multiprocessor."""
        deep = 16 if "16816" in opcode else 8
        rate = self.peaks.tf32 if "TF32" in opcode else self.peaks.half
        per_cycle = rate / (self.sms * 4 * self.clock) * self.sync
        return 2 * 16 * 8 * deep / per_cycle

    def resident(self, threads: int, registers: int, shared: int) -> int:
        """Blocks on a multiprocessor at once: the rules of cuda_occupancy.h."""
        warps = -(-threads // 32)
        per_warp = -(-registers * 32 // 256) * 256
        by_registers = 65536 // per_warp // 4 * 4 // warps if registers else self.blocks
        taken = -(-(shared + 1024) // 128) * 128
        return min(self.blocks, self.warps // warps, by_registers, self.shared // taken)


K = 1024
CHIPS = (
    Chip("H200", 90, 132, 1.98e9, 5.5e12, 50e6, 281, 690, 228 * K, 64, 32, sync=0.62),
    Chip("H100", 90, 132, 1.98e9, 5.5e12, 50e6, 281, 690, 228 * K, 64, 32, sync=0.62),
    Chip("A100-80", 80, 108, 1.41e9, 4.5e12, 40e6, 262, 466, 164 * K, 64, 32),
    Chip("RTX 4090", 89, 128, 2.52e9, 5.0e12, 72e6, 296, 636, 100 * K, 48, 24),
    Chip("L4", 89, 58, 2.04e9, 1.8e12, 48e6, 296, 636, 100 * K, 48, 24),
)


def named(name: str) -> Chip:
    """The card of a name, in any case; ValueError otherwise."""
    for chip in CHIPS:
        if name.lower() in (chip.name.lower(), chip.name.lower().split()[-1]):
            return chip
    raise ValueError(f"no card {name!r}: use one of {', '.join(chip.name for chip in CHIPS)}")
