"""A bot with a face, on this machine alone and without a key: ``python examples/pipecat_bot.py [portrait.jpg]``.

Opens nothing: go to http://127.0.0.1:7860, click, type. It says what one types (a language model goes in the place of
``echo``), over Pipecat's small WebRTC transport. Needs ``pip install "atldiff[pipecat,serve]"``.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from pipecat.frames.frames import InterruptionFrame, TTSSpeakFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.transports.base_transport import TransportParams
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection
from pipecat.transports.smallwebrtc.transport import SmallWebRTCTransport
from pipecat.workers.runner import WorkerRunner

import atldiff
from atldiff.face.detection import FaceDetector
from atldiff.face.portrait import prepare_portrait
from atldiff.face.prepared import PreparedPortrait
from atldiff.integrations.pipecat import ATLDiffVideoService, LocalTTSService

PORT = 7860
PAGE = """<!doctype html><meta charset="utf-8"><title>A bot with a face</title>
<body style="font: 16px system-ui; max-width: 40rem; margin: 2rem auto">
<video autoplay playsinline style="width: 100%"></video>
<form><button type="button">Begin</button> <input placeholder="Type a sentence" size="40" disabled></form>
<script type="module">
const [video, button, field] = ["video", "button", "input"].map((name) => document.querySelector(name));
button.addEventListener("click", async () => {
  button.disabled = true;
  const peer = new RTCPeerConnection();
  const channel = peer.createDataChannel("bot");
  const stream = video.srcObject = new MediaStream();
  peer.addEventListener("track", ({ track }) => stream.addTrack(track));
  for (const kind of ["audio", "video"]) peer.addTransceiver(kind, { direction: "sendrecv" });
  await peer.setLocalDescription();
  while (peer.iceGatheringState !== "complete") await new Promise((resolve) => setTimeout(resolve, 50));
  const headers = { "Content-Type": "application/json" };
  const answer = await fetch("/offer", { method: "POST", headers, body: JSON.stringify(peer.localDescription) });
  await peer.setRemoteDescription(await answer.json());
  channel.addEventListener("open", () => { field.disabled = false; field.focus(); });
  setInterval(() => channel.readyState === "open" && channel.send("ping"), 1000);
  document.forms[0].addEventListener("submit", (event) => {
    event.preventDefault();
    channel.send(JSON.stringify({ type: "text", text: field.value }));
    field.value = "";
  });
});
</script>"""


def prepared(portrait: Path) -> PreparedPortrait:
    """The face, found once for all who come."""
    with FaceDetector() as detector:
        return prepare_portrait(portrait, lambda: detector)


async def hold(connection: SmallWebRTCConnection, face: PreparedPortrait, **service: Any) -> None:
    """One conversation, until the other side goes."""
    height, width = face.picture.shape[:2]
    params = TransportParams(
        audio_out_enabled=True,
        video_out_enabled=True,
        video_out_is_live=True,
        video_out_width=width,
        video_out_height=height,
        video_out_framerate=25,
    )
    transport = SmallWebRTCTransport(connection, params)
    video = ATLDiffVideoService(portrait=face, **service)
    pipeline = Pipeline([LocalTTSService(), video, transport.output()])
    worker = PipelineWorker(pipeline, params=PipelineParams(enable_metrics=True), cancel_on_idle_timeout=False)

    @transport.event_handler("on_client_connected")
    async def greet(*_: Any) -> None:
        await worker.queue_frame(TTSSpeakFrame("Hello. Type something, and I say it."))

    @transport.event_handler("on_app_message")
    async def echo(_: Any, message: dict[str, Any], *__: Any) -> None:
        await worker.queue_frame(InterruptionFrame())
        await worker.queue_frame(TTSSpeakFrame(str(message.get("text", ""))[:1000]))

    @transport.event_handler("on_client_disconnected")
    async def end(*_: Any) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


def create_app(face: PreparedPortrait, **service: Any) -> FastAPI:
    """A page, and the route that its offer goes to; ``service`` goes to :class:`ATLDiffVideoService`."""
    app, conversations = FastAPI(), set()

    @app.get("/")
    def page() -> HTMLResponse:
        return HTMLResponse(PAGE)

    @app.post("/offer")
    async def offer(content: dict[str, Any]) -> dict[str, Any]:
        connection = SmallWebRTCConnection()
        await connection.initialize(content["sdp"], content["type"])
        conversation = asyncio.create_task(hold(connection, face, **service))
        conversations.add(conversation)
        conversation.add_done_callback(conversations.discard)
        answer = connection.get_answer()
        assert answer is not None
        return {"sdp": answer["sdp"], "type": answer["type"]}

    return app


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(atldiff.__file__).parent / "assets" / "portrait.jpg"
    uvicorn.run(create_app(prepared(path)), port=PORT)
