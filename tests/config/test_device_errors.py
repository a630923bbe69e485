"""What errors of PyTorch, cuBLAS, cuDNN, NCCL, Triton and the driver say about a device. The texts are theirs."""

from __future__ import annotations

import pytest
import torch

from fastgen.config.device_errors import device_fault, is_out_of_memory

FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("Unable to find an engine to execute this computation"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    MemoryError(),
]
FAILED = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be ..."),
    torch.AcceleratorError("CUDA error: unspecified launch failure"),
    torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"),
    torch.AcceleratorError("something that a later version says"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx( handle, opa, opb)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED_CUDART"),
    RuntimeError("NCCL Error 1: unhandled cuda error (run with NCCL_DEBUG=INFO for details)"),
    RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
    RuntimeError("NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, GPU has fallen off the bus."),
    RuntimeError("Unable to determine the device handle for GPU 0000:3B:00.0: GPU is lost.  Reboot the system"),
]
NEITHER = [
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasLtMatmul`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasGemmEx`"),
    torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device"),
    torch.AcceleratorError("CUDA error: invalid configuration argument"),
    RuntimeError("self.size(0) needs to be greater than 16, but got 4"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x8 and 4x8)"),
    ValueError("a row is bad"),
]


@pytest.mark.parametrize(
    ("error", "full", "failed"),
    [*((e, True, False) for e in FULL), *((e, False, True) for e in FAILED), *((e, False, False) for e in NEITHER)],
    ids=lambda value: str(value)[:60] if isinstance(value, BaseException) else "",
)
def test_what_an_error_says_about_the_device(error, full, failed):
    assert (is_out_of_memory(error), bool(device_fault(error))) == (full, failed)


def test_it_is_said_in_one_line():
    assert device_fault(FAILED[0]) == "CUDA error: an illegal memory access was encountered"


def test_a_fault_is_found_behind_the_error_that_it_led_to():
    def wrapped(first, how):
        try:
            try:
                raise first
            except RuntimeError as error:
                raise KeyError("gone") from (error if how == "from" else None)
        except KeyError as error:
            return error

    for how in ("from", "while"):
        assert device_fault(wrapped(FAILED[0], how))
        assert not device_fault(wrapped(RuntimeError("CUDA error: out of memory"), how))
