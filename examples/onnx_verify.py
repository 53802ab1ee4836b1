"""The cosine of two pictures by an exported model, without cifarnet and torch: python onnx_verify.py model.onnx a.png b.png"""

import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
size = int(session.get_modelmeta().custom_metadata_map["image_size"])
pictures = []
for path in sys.argv[2:4]:
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
    pictures.append(np.asarray(ImageOps.exif_transpose(small)))
first, second = session.run(["embedding"], {"images": np.stack(pictures)})[0]
print(f"{first @ second:.6f}")
