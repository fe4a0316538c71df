"""What finds faces does without what draws them."""

import subprocess
import sys

CODE = """
import sys
from atldiff.face.detection import FaceDetector
with FaceDetector() as detector:
    pass
print(sorted({"matplotlib", "cv2", "scipy"} & set(sys.modules)))
from mediapipe.tasks.python import vision
print(vision.drawing_utils.DrawingSpec().thickness, vision.drawing_styles.__name__)
"""


def test_no_matplotlib_before_something_is_drawn() -> None:
    ran = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert ran.stdout.splitlines() == ["[]", "2 mediapipe.tasks.python.vision.drawing_styles"]
