"""Files that survive a crash: atomic writes, safetensors headers, tensors spread over files, run folders."""
