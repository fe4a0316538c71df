"""An agent with a face for LiveKit: ``python examples/livekit_agent.py dev``.

Needs ``pip install "atldiff[livekit]"``, a LiveKit server (``livekit-server --dev`` on this machine, or LiveKit's
cloud) and its address and keys in LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET. It says one sentence with the
voice of the extra ``tts``; give its session the ears and the mind of your agent. ATLDIFF_PORTRAIT is its face.
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
from livekit import rtc
from livekit.agents import Agent, AgentSession, JobContext, WorkerOptions, cli

import atldiff
from atldiff.integrations.livekit import ATLDiffAvatar
from atldiff.speech.text import speak

PORTRAIT = os.environ.get("ATLDIFF_PORTRAIT", str(Path(atldiff.__file__).parent / "assets" / "portrait.jpg"))


async def voice(text: str) -> AsyncIterator[rtc.AudioFrame]:
    """A text as audio, sentence by sentence."""
    for samples, rate in speak(text):
        pcm = np.round(samples.clip(-1, 1) * 32767).astype(np.int16)
        yield rtc.AudioFrame(pcm.tobytes(), rate, 1, len(pcm))


async def entrypoint(context: JobContext) -> None:
    await context.connect()
    avatar, session = ATLDiffAvatar(PORTRAIT), AgentSession()
    context.add_shutdown_callback(avatar.aclose)
    await avatar.start(session, context.room)
    await session.start(agent=Agent(instructions="You are a face."), room=context.room)
    greeting = "Hello. I am a face, and I run on this machine."
    await session.say(greeting, audio=voice(greeting))


if __name__ == "__main__":
    cli.run_app(WorkerOptions(entrypoint_fnc=entrypoint))
