"""Peak FLOP/s, memory and links of accelerators, from their makers' data sheets."""

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One accelerator.

    Attributes:
        bfloat16: peak of dense bfloat16 matrix products, FLOP/s.
        float32: peak of dense matrix products of float32 arrays at JAX's default precision, FLOP/s.
        float32_how: the number format in which the chip computes those.
        memory: bytes.
        link: bytes/s that the chip can receive over all its fast links together, which is half of what data sheets
            call bidirectional. Of GPUs, within one NVLink domain.
    """

    bfloat16: float
    float32: float
    float32_how: str
    memory: float
    link: float

    def peak(self, precision: str) -> float:
        """Peak FLOP/s of matrix products for a value of config.model.precision."""
        return self.bfloat16 if precision == "bfloat16" else self.float32


def _gpu(bfloat16: float, tf32: float, gigabytes: float, nvlink: float) -> Chip:
    return Chip(bfloat16, tf32, "TF32", gigabytes * 1e9, nvlink / 2)


def _tpu(bfloat16: float, gibibytes: float, ici: float) -> Chip:
    return Chip(bfloat16, bfloat16, "bfloat16 products of float32 arrays", gibibytes * GIB, ici)


# GPUs: NVIDIA's data sheets of A100, H100, H200 (SXM) and HGX B200; peaks without sparsity, NVLink as printed there.
# TPUs: docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}; interconnect per chip, one direction.
CHIPS = {
    "a100-40": _gpu(312e12, 156e12, 40, 600e9),
    "a100-80": _gpu(312e12, 156e12, 80, 600e9),
    "h100": _gpu(989e12, 494e12, 80, 900e9),
    "h200": _gpu(989e12, 494e12, 141, 900e9),
    "b200": _gpu(2250e12, 1100e12, 180, 1800e9),
    "tpu-v4": _tpu(275e12, 32, 300e9),
    "tpu-v5e": _tpu(197e12, 16, 200e9),
    "tpu-v5p": _tpu(459e12, 95, 600e9),
    "tpu-v6e": _tpu(918e12, 32, 400e9),
}
