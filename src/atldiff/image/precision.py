"""In which type of number the image network works."""

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from atldiff.errors import InputError

Network = TypeVar("Network", bound=nn.Module)

PRECISIONS = ("auto", "float32", "bfloat16", "int8")


def network_type(precision: str, device: torch.device) -> torch.dtype:
    """The type that a precision means on a device.

    ``auto`` is bfloat16 where the device multiplies it by itself (AMX, CUDA from compute capability 8.0 on), 8-bit
    convolutions (see :mod:`atldiff.image.quantised`) on CPUs with AVX-512 VNNI and no AMX, float32 elsewhere.
    Pictures stay float32.

    Raises:
        InputError: not one of :data:`PRECISIONS`, or 8 bits where there is no such CPU.
    """
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}; expected one of {', '.join(PRECISIONS)}")
    if precision == "int8" and not _multiplies_int8(device):
        raise InputError(f"precision is 'int8' on {device}; expected a CPU with AVX-512 VNNI")
    if precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}[precision]
    has_amx = device.type == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16"))
    if _multiplies_int8(device) and not has_amx:
        return torch.int8
    return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32


def in_precision(network: Network, number: torch.dtype) -> Network:
    """The network itself if it works in that type already, or a copy of it that does."""
    if all(parameter.dtype == number for parameter in network.parameters()):
        return network
    return copy.deepcopy(network).to(number)


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = _capabilities(device)
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _multiplies_int8(device: torch.device) -> bool:
    return bool(_capabilities(device).get("avx512_vnni"))


def _capabilities(device: torch.device) -> Mapping[str, Any]:
    """Those of the CPU, as far as oneDNN makes use of them: none where that is kept from AVX-512."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return {}
    return torch.cpu.get_capabilities() if torch.ops.mkldnn._is_mkldnn_bf16_supported() else {}
