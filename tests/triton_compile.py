"""Compiles every Triton kernel for two GPU generations, without one: to PTX and machine code.

Run by tests/unit/test_kernel_triton.py in a process of its own, as the interpreter replaces the compiler.
Prints one line per kernel: name, compute capability, and the fused multiply-adds of its PTX.
"""

import re

import triton
from triton.backends.compiler import GPUTarget

from spikingmoe.kernels import triton_neurons, triton_norm

POINTERS = {"first_sequence": "*i64", "starts": "*i64", "gaps": "*u8"}
CURRENTS = ("x", "spikes", "grad_spikes", "grad_current", "g")
NUMBERS = {"rows": "i32", "channels": "i32", "step": "i64", "blocks": "i32"}
CONSTANTS = {
    "SURROGATE": "atan",
    "STEPS": 4,
    "STILL": False,
    "AFFINE": True,
    "DETACH_RESET": False,
    "GATED": True,
    "BLOCK_R": 16,
    "BLOCK_Q": 16,
    "BLOCK_C": 64,
}
KERNELS = (
    triton_neurons.lif_forward,
    triton_neurons.lif_backward,
    triton_neurons.sequences_forward,
    triton_neurons.sequences_backward,
    triton_norm.norm_apply,
    triton_norm.norm_gradient_sums,
    triton_norm.norm_combine,
)


def signature_of(kernel, currents):
    types = {}
    for name in kernel.arg_names:
        if name.isupper():
            types[name] = "constexpr"
        elif name in NUMBERS:
            types[name] = NUMBERS[name]
        elif name in ("decay", "threshold"):
            types[name] = "fp32"
        else:
            types[name] = POINTERS.get(name, f"*{currents}" if name in CURRENTS else "*fp32")
    return types


def compile_kernel(kernel, capability, currents, changes, fusion=False):
    """`changes` are constants, and numbers that are 1, which Triton makes constants of."""
    constants = {**CONSTANTS, **changes}
    constants = {name: constants[name] for name in kernel.arg_names if name in constants}
    signature = signature_of(kernel, currents) | dict.fromkeys(constants, "constexpr")
    return triton.compile(
        triton.compiler.ASTSource(fn=kernel, signature=signature, constexprs=constants),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": 4, "enable_fp_fusion": fusion},
    )


def fused_operations(made):
    assert made.asm["cubin"]
    return len(re.findall(r"\bfma\.rn(?:\.ftz)?\.f32", made.asm["ptx"]))


if __name__ == "__main__":
    for capability, currents, changes in (
        (80, "bf16", {"SURROGATE": "sigmoid", "rows": 1}),
        (90, "fp32", {"STEPS": 1, "channels": 1, "blocks": 1, "BLOCK_C": 1, "AFFINE": False}),
        (90, "fp16", {"SURROGATE": "fast_sigmoid", "STILL": True, "DETACH_RESET": True}),
    ):
        for kernel in KERNELS:
            made = compile_kernel(kernel, capability, currents, changes)
            print(kernel.__name__, capability, fused_operations(made))
    made = compile_kernel(triton_neurons.lif_forward, 90, "fp32", {}, fusion=True)
    print("with_fusion", 90, fused_operations(made))
