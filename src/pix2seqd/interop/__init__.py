"""The model in other programs: `transformers`, `onnx`, `napari`, `official` weights, and the `cards` of checkpoints."""
