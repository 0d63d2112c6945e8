"""Which line of Python made which node, and what that line costs in ONNX Runtime."""
