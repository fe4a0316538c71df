"""Make a portrait speak, from Python: ``python examples/speak.py portrait.jpg speech.flac out.mp4``.

Without arguments it uses the portrait and the speech that come with the package.
"""

import sys
from pathlib import Path

import atldiff

ASSETS = Path(atldiff.__file__).parent / "assets"
if len(sys.argv) not in (1, 4):
    sys.exit(__doc__)
PORTRAIT, SPEECH, OUTPUT = sys.argv[1:] or (ASSETS / "portrait.jpg", ASSETS / "speech.flac", "speak.mp4")

pipe = atldiff.ATLDiffPipeline.from_pretrained()

# The whole video in memory …
head = pipe(PORTRAIT, SPEECH, fps=25, seed=0)
print(f"{len(head.frames)} frames of {head.frames.shape[2]}×{head.frames.shape[1]} at {head.fps:g} fps")
print("written:", head.save(OUTPUT))

# … or frame by frame, in constant memory, whatever the length.
for index, frame in enumerate(pipe.stream(PORTRAIT, SPEECH, emotion="auto", crop_only=True)):
    if index % 25 == 0:
        print(f"{index / 25:.0f} s: a crop of {frame.shape}, mean brightness {frame.mean():.0f}")

pipe.close()
