"""In which type of number the image network works."""

import copy
from typing import TypeVar

import torch
from torch import nn

from atldiff.errors import InputError

Network = TypeVar("Network", bound=nn.Module)

PRECISIONS = ("auto", "float32", "bfloat16")


def network_type(precision: str, device: torch.device) -> torch.dtype:
    """The type that a precision means on a device.

    ``auto`` is bfloat16 where the device multiplies it by itself (AVX-512 BF16, AMX, CUDA from compute capability
    8.0 on), float32 elsewhere. Pictures stay float32.

    Raises:
        InputError: not one of :data:`PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}; expected one of {', '.join(PRECISIONS)}")
    if precision == "auto":
        return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32
    return torch.float32 if precision == "float32" else torch.bfloat16


def in_precision(network: Network, number: torch.dtype) -> Network:
    """The network itself if it works in that type already, or a copy of it that does."""
    if all(parameter.dtype == number for parameter in network.parameters()):
        return network
    return copy.deepcopy(network).to(number)


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
