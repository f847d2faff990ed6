"""The page of `pix2seqd serve`: segment, correct and export in a browser. `editing` and `work` do not use gradio."""
