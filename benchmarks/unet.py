"""Time the image network against one of the published size: ``python benchmarks/unet.py [--threads 2]``.

The reference is MONAI's ``DiffusionModelUNet`` at the published working point: 32 frames of 128×128, 8 DDIM steps,
channels 64-128-256, two residual blocks a level, attention at the last level, cross-attention to 64 identity tokens
of 32; the rest are MONAI's defaults. The reference's steps cost the same, so ``--reference-steps`` may be fewer than
are counted. Ours takes the clip in pieces, as it does in use. Both multiply in the same precision. Prints JSON and a
table.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch

import common
from atldiff.errors import InputError
from atldiff.image.animator import PIECE_FRAMES
from atldiff.image.guidance import MAP_GROUPS
from atldiff.image.precision import in_precision, network_type
from atldiff.image.sampler import BridgeSampler
from atldiff.image.temporal import PassingFrames
from atldiff.image.unet import IdentityDiffusionUNet
from atldiff.pipeline import ATLDiffPipeline

FPS = 25
REFERENCE_CHANNELS = (64, 128, 256)
REFERENCE_STEPS = 8
IDENTITY_TOKENS, TOKEN_SIZE = 64, 32


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    pipeline = ATLDiffPipeline.from_pretrained(device=arguments.device)
    about = common.machine(pipeline.device)
    steps = arguments.steps or pipeline.config.steps
    unet = pipeline.unet
    if not isinstance(unet, IdentityDiffusionUNet):
        raise InputError("the model in the package has another image network; expected IdentityDiffusionUNet")
    number = network_type(arguments.precision, pipeline.device)
    with torch.no_grad():
        ours = time_ours(in_precision(unet, number), arguments, steps, pipeline.device)
    with torch.no_grad(), torch.autocast(pipeline.device.type, number, enabled=number != torch.float32):
        step = time_reference(arguments, pipeline.device)
    pipeline.close()
    reference = REFERENCE_STEPS * step
    per_second = {name: FPS * cost / arguments.frames for name, cost in (("ours", ours), ("reference", reference))}
    result = about | {
        "frames": arguments.frames,
        "size": arguments.size,
        "precision": str(number).removeprefix("torch."),
        "steps": {"ours": steps, "reference": REFERENCE_STEPS, "reference_timed": arguments.reference_steps},
        "parameters": {"ours": count(unet), "reference": count(make_reference(torch.device("meta")))},
        "clip_seconds": {"ours": round(ours, 4), "reference": round(reference, 4)},
        "seconds_per_generated_second": {name: round(value, 4) for name, value in per_second.items()},
        "times_cheaper": round(per_second["reference"] / per_second["ours"], 1),
    }
    rows = [
        ("compact", steps, ours, per_second["ours"], arguments.frames / ours),
        (
            "MONAI DiffusionModelUNet",
            REFERENCE_STEPS,
            reference,
            per_second["reference"],
            arguments.frames / reference,
        ),
    ]
    common.show(result, ("network", "steps", "s a clip", "s a generated second", "frames/s"), rows)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time the image network against the published one's size.")
    parser.add_argument("--frames", type=int, default=32, help="of a clip, a multiple of 4")
    parser.add_argument("--size", type=int, default=128, help="side of the frames, a multiple of 8")
    parser.add_argument("--steps", type=int, help="of ours (default: the model's own)")
    parser.add_argument("--reference-steps", type=int, default=REFERENCE_STEPS, help="how many are timed")
    parser.add_argument("--repeats", type=int, default=5, help="of ours; the median counts")
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16"), default="bfloat16", help="of both (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def time_ours(unet: IdentityDiffusionUNet, arguments: argparse.Namespace, steps: int, device: torch.device) -> float:
    """Median seconds for a clip."""
    frames, size = arguments.frames, arguments.size
    warped = torch.rand(frames, 3, size, size, device=device)
    maps = torch.rand(frames, 2 * len(MAP_GROUPS), size // 2, size // 2, device=device)
    region = torch.ones(frames, 2, size, size, device=device)
    tokens = unet.encode_identity(torch.rand(1, 3, 128, 128, device=device))

    def denoise(state: torch.Tensor, moment: torch.Tensor, *given: torch.Tensor | PassingFrames) -> torch.Tensor:
        warped, maps, region, passing = given
        return unet(state, moment, warped, maps, tokens, region, passing)

    def run() -> None:
        sampler = BridgeSampler(denoise, steps)
        pieces = [each.split(PIECE_FRAMES * steps) for each in (warped, warped, maps, region)]
        for number, piece in enumerate(zip(*pieces, strict=True)):
            sampler.take(*piece, last=number == len(pieces[0]) - 1)

    seconds = [timed(run, device) for _ in range(arguments.repeats + 1)]
    return sorted(seconds[1:])[arguments.repeats // 2]


def time_reference(arguments: argparse.Namespace, device: torch.device) -> float:
    """Seconds for a step on a clip."""
    unet = make_reference(device)
    state = torch.rand(1, 3, arguments.frames, arguments.size, arguments.size, device=device)
    tokens = torch.rand(1, IDENTITY_TOKENS, TOKEN_SIZE, device=device)
    moment = torch.tensor([500], device=device)

    def run() -> None:
        for _ in range(arguments.reference_steps):
            unet(state, moment, context=tokens)

    if device.type == "cuda":
        run()
    return timed(run, device) / arguments.reference_steps


def make_reference(device: torch.device) -> Any:
    try:
        from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet
    except ImportError as error:
        raise InputError('the reference needs MONAI and einops: pip install "atldiff[benchmark]"') from error
    with device:
        unet = DiffusionModelUNet(
            spatial_dims=3,
            in_channels=3,
            out_channels=3,
            channels=REFERENCE_CHANNELS,
            attention_levels=(False, False, True),
            num_res_blocks=2,
            num_head_channels=REFERENCE_CHANNELS[-1] // 4,
            with_conditioning=True,
            cross_attention_dim=TOKEN_SIZE,
        )
    return unet.eval()


def timed(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


if __name__ == "__main__":
    main()
