"""What an exception says about a device: that its memory is full, or that it can no longer be used by this process.

Libraries say so in several ways, mostly in the text. Does not know what is done about it; imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator

MEMORY = (
    "can't allocate memory",
    "out of memory",
    "not enough memory",
    "cublas_status_alloc_failed",
    "cublas_status_not_initialized when calling `cublascreate",  # its handle needs memory
    "cudnn_status_alloc_failed",
    "cudnn_status_internal_error_host_allocation_failed",
    "cudnn_status_internal_error_device_allocation_failed",
    "cusolver_status_alloc_failed",
    "unable to find an engine",  # cuDNN found none that its workspace has room for
)
FAULTS = (
    "cuda error",
    "cuda driver error",
    "cudaerror",
    "triton error [cuda]",
    "cublaslt ran into an error",
    "cublas_status_execution_failed",
    "cublas_status_internal_error",
    "cublas_status_mapping_error",
    "cudnn_status_execution_failed",
    "cudnn_status_internal_error",
    "cudnn_status_mapping_error",
    "cusolver_status_execution_failed",
    "cusolver_status_internal_error",
    "nccl error",
    "illegal memory access",
    "device-side assert",
    "unspecified launch failure",
    "uncorrectable ecc error",
    "gpu is lost",
    "fallen off the bus",
    "nvrm: xid",
)
"""After one of these CUDA answers every later call of the process with an error."""
CALLS = (
    "cublas_status_invalid_value",
    "cublas_status_not_supported",
    "cublas_status_arch_mismatch",
    "cudnn_status_not_supported",
    "cudnn_status_bad_param",
    "invalid argument",
    "invalid configuration argument",
    "invalid device function",
    "no kernel image is available",
    "driver version is insufficient",
    "unsupported toolchain",
)
"""CUDA errors that concern one call, or how torch was installed: the process may go on, and a new one would not
help."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device or the machine has no more memory."""
    text = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # PyTorch's, which is not imported here
        or any(words in text for words in MEMORY)
    )


FAULT_EXIT = 70
"""Exit code of a process whose device failed."""


def device_fault(error: BaseException) -> str:
    """The line that says that the device has failed for this process; "" if it has not.

    Errors that were wrapped, or raised while another was handled, are looked at too.
    """
    for one in _chain(error):
        text = str(one).lower()
        if is_out_of_memory(one) or any(words in text for words in CALLS):
            continue
        if type(one).__name__ == "AcceleratorError" or any(words in text for words in FAULTS):
            return " ".join(str(one).split("\n")[0].split())[:300] or type(one).__name__
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
