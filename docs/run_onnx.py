"""The box in a photo, with NumPy, onnxruntime and OpenCV alone:

python run_onnx.py localizer.onnx photo.jpg boxed.png
"""

import json
import sys

import cv2
import numpy as np
import onnxruntime

if len(sys.argv) != 4:
    print("usage: python run_onnx.py localizer.onnx photo.jpg boxed.png", file=sys.stderr)
    sys.exit(2)
program, photo, boxed = sys.argv[1:]
session = onnxruntime.InferenceSession(program, providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
side, threshold = int(about["image_size"]), float(about["threshold"])

picture = cv2.imread(photo)  # upright by its EXIF orientation; the upper 8 of 16 bits
if picture is None or picture.dtype != np.uint8:
    sys.exit(f"cannot read {photo} as a photo of 8 or 16 bits a channel")
height, width = picture.shape[:2]
shrink = cv2.INTER_AREA if side < max(height, width) else cv2.INTER_LINEAR
image = cv2.resize(picture[..., ::-1], (side, side), interpolation=shrink)  # RGB
images = image.transpose(2, 0, 1)[None].astype(np.float32) / 255
logits, heatmaps = session.run(["logits", "heatmap"], {"images": images})

pixels = (heatmaps[0].astype(np.float64) * 255).astype(np.uint8)
region = (pixels > int(threshold * pixels.max())).astype(np.uint8)
contours = cv2.findContours(region, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
largest = max(contours, key=cv2.contourArea, default=np.zeros((0, 1, 2), np.int32))
x, y, w, h = cv2.boundingRect(largest) if len(largest) else (0, 0, 0, 0)
scale = np.array([width, height, width, height]) / side
box = np.array([x, y, x + w, y + h]) * scale  # half-open x0, y0, x1, y1

name = json.loads(about["class_names"])[int(logits[0].argmax())]
print(name, *box.tolist())
corners = box.round().astype(int).tolist()
cv2.rectangle(picture, corners[:2], [corners[2] - 1, corners[3] - 1], (64, 64, 255), 2)
cv2.imwrite(boxed, picture)
