"""The classes of pictures by an exported model, without cifarnet and torch: python onnx_predict.py model.onnx photo.jpg"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
about = session.get_modelmeta().custom_metadata_map
classes, size = json.loads(about["classes"]), int(about["image_size"])
temperature, least = json.loads(about["temperature"]), json.loads(about["unknown_at"])  # None: not calibrated
for path in sys.argv[2:]:
    picture = file = Image.open(path)
    if file.mode.startswith("I"):  # grey of 16 bits, which convert() would cut off at 255
        picture = Image.fromarray(((np.asarray(file).astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))
    white = Image.new("RGBA", file.size, "white")  # what transparent pictures are laid on
    small = (
        Image.alpha_composite(white, picture.convert("RGBA"))
        .convert("RGB")
        .resize((size, size), Image.Resampling.BILINEAR)
    )
    small.info = file.info  # the camera's note which side is up
    pixels = np.asarray(ImageOps.exif_transpose(small))
    probabilities, logits = (rows[0] for rows in session.run(["probabilities", "logits"], {"images": pixels[None]}))
    if least is not None and (score := temperature * np.logaddexp.reduce(logits / temperature)) < least:
        print(path, f"none of these (score {score:.6f})")
        continue
    best = probabilities.argsort()[::-1][:3]
    print(path, *(f"{classes[index]} {probabilities[index]:.6f}" for index in best))
