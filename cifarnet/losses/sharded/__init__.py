"""The margin head whose classes are spread over ranks."""
